import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.measure.catalogue import DIMENSIONS, UNIT_ENDINGS
from watchdog.rules.language.name_patterns import check_name_pattern

ID = "0123456789ab" + "c" * 52


def refusal(dimension, pattern):
    with pytest.raises(ValueError, match="never matches") as caught:
        check_name_pattern(DIMENSIONS[dimension], pattern)
    return str(caught.value).removeprefix("never matches: ")


@pytest.mark.parametrize(
    ("dimension", "pattern", "needed", "use"),
    [
        ("process", "prometheus-node-exporter", 24, '; use "prometheus-node"'),
        ("process", "0123456789abcdef", 16, '; use "0123456789abcde"'),
        ("process", "prometheus-node-*", 16, '; use "prometheus-node"'),
        ("process", "prom*-node-exporter-x", 20, '; use "prom*-node-expor*"'),
        ("process", "worker-?-of-many-x", 18, '; use "worker-?-of-man*"'),
        ("process", "worker-[0-9]-of-many-x", 18, '; use "worker-[0-9]-of-man*"'),
        ("process", "*-with-a-very-long-name", 22, ""),
        ("process", "?" * 16, 16, ""),
        ("process", "ä" * 8, 16, f'; use "{"ä" * 7}*"'),
        ("exe", "a-service-with-a-very-long-name-indeed-v2", 41, '; use "a-service-with-a-very-long-name"'),
    ],
)
def test_refuses_a_pattern_longer_than_the_field_and_names_the_text_that_would_match(dimension, pattern, needed, use):
    size = DIMENSIONS[dimension].max_bytes
    assert refusal(dimension, pattern) == (
        f"{dimension} holds the first {size} bytes of a name, this pattern needs {needed}{use}"
    )


@pytest.mark.parametrize("form", ["{}", "docker-{}.scope", "docker://{}", "cri-containerd-{}.scope"])
@pytest.mark.parametrize("digits", [13, 64])
def test_refuses_container_ids_with_more_digits_than_are_kept(form, digits):
    expected = 'a container id is its first 12 digits; use "0123456789ab"'
    assert refusal("container", form.format(ID[:digits])) == expected


@pytest.mark.parametrize("pattern", ["nginx", "*nginx", "user.slice", "backup.timer", "ssh?", "n*servic"])
def test_refuses_units_without_the_ending_that_every_unit_has(pattern):
    assert f'use "{pattern}.service"' in refusal("unit", pattern)


@pytest.mark.parametrize(
    ("dimension", "pattern"),
    [
        ("process", "prometheus-node"),
        ("process", "prometheus-nod*"),
        ("process", "*-node-exporter"),
        ("process", "(unattributed)"),
        ("process", ""),
        ("process", "[a-z][a-z]rometheus-nod"),
        ("process", "[unclosed"),
        ("exe", "a-service-with-a-very-long-name"),
        ("user", "a-directory-user@a-very-long-domain.example.com"),
        ("unit", ""),
        ("unit", "*"),
        ("unit", "ssh*"),
        ("unit", "ssh.serv[ij]ce"),
        ("unit", "*ice"),
        ("unit", "*e"),
        ("unit", "user@1000/app.service"),
        ("unit", "ssh.?????t"),
        ("container", ID[:12]),
        ("container", ID[:6] + "*"),
        ("container", "debian-web.1"),
        ("container", "7c0d9c3e-5d1b-4b4e-9a43-0123456789ab"),
    ],
)
def test_accepts_a_pattern_that_some_name_matches(dimension, pattern):
    check_name_pattern(DIMENSIONS[dimension], pattern)


_LETTERS = st.sampled_from("abz-[].?*!äß")
_PARTS = st.lists(st.sampled_from(["*", "?", "[a-z]", "[!x]", "a", "z", "ä", "-", "[", "]", "!"]), max_size=20)


@given(st.text(_LETTERS, max_size=20), _PARTS)
def test_no_pattern_that_matches_a_name_of_the_field_is_refused(name, parts):
    pattern = "".join(parts)
    if fnmatch.fnmatchcase(name, pattern) and len(name.encode()) <= 15:
        check_name_pattern(DIMENSIONS["process"], pattern)


@given(st.text(_LETTERS, max_size=5), st.sampled_from(UNIT_ENDINGS), st.data())
def test_no_pattern_that_matches_a_unit_is_refused(name, ending, data):
    unit = name + ending
    marks = data.draw(st.lists(st.sampled_from("=?*"), min_size=len(unit), max_size=len(unit)))
    letters = ("[[]" if letter in "[*?" else letter for letter in unit)
    pattern = "".join(letter if mark == "=" else mark for letter, mark in zip(letters, marks, strict=True))
    if fnmatch.fnmatchcase(unit, pattern):
        check_name_pattern(DIMENSIONS["unit"], pattern)
