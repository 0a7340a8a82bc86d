"""Globs of rules as regular expressions of RE2, against fnmatch, which judges them in the daemon."""

from __future__ import annotations

import itertools
import re
from fnmatch import fnmatchcase

import pytest

from watchdog import sanitize
from watchdog.web import promql

PATTERNS = [
    *("nginx", "ng*", "*x", "n?inx", "*", "?", "", "a.b", "a+b", "(x)", "a|b", "^a$", "{a}", "a\\b", "\\", "[ab]*"),
    *(
        "[!ab]*",
        "[a-c]",
        "[!a-c]x",
        "[z-a]",
        "[!z-a]",
        "[]]",
        "[!]]",
        "[a",
        "a]",
        "[-a]",
        "[a-]",
        "[^a]",
        "[a\\]",
        "**",
    ),
    *("ü*", "[ä-ü]", "\x1b*", "[[]", "[a-c-e]"),
]
NAMES = [
    *PATTERNS,
    *(
        "nginx-worker",
        "axb",
        "aab",
        "b",
        "c",
        "z",
        "x",
        "ax",
        "dx",
        "]",
        "-",
        "^",
        "e",
        "über",
        "ö",
        "ab",
        "a\nb",
        "x\x1b",
    ),
]


def as_python(regex):
    """Return an expression of RE2 for Python, which writes code points in another way."""
    return re.sub(r"\\x\{([0-9A-F]+)\}", lambda found: re.escape(chr(int(found[1], 16))), regex)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_glob_matches_the_same_names(pattern):
    regex = re.compile(as_python(promql.glob_regex(pattern)), re.DOTALL)
    printable = [name for name in NAMES if name.isprintable() or "[" not in pattern + "?"]
    assert [name for name in printable if regex.fullmatch(sanitize.escape_unprintable(name))] == [
        name for name in printable if fnmatchcase(name, pattern)
    ]


def test_strings_are_on_one_line_and_printable():
    for characters in itertools.product('"\\\n\x1b{}a', repeat=2):
        literal = promql.quote("".join(characters))
        assert literal.isprintable()
        inside = re.fullmatch(r'"((?:[^"\\]|\\["\\])*)"', literal)
        assert inside is not None, literal


@pytest.mark.parametrize(
    ("any_of", "none_of", "wanted"),
    [
        (["nginx"], [], ['process="nginx"']),
        (["a.b"], [], ['process="a.b"']),
        (["nginx", "a.b*"], [], [r'process=~"nginx|a\\.b.*"']),
        ([], ["chrom*"], ['process!~"chrom.*"']),
        (["a*"], ["ab"], ['process=~"a.*"', 'process!="ab"']),
        ([""], [], ['process=""']),
        (['"}'], [], [r'process="\"}"']),
    ],
)
def test_matchers(any_of, none_of, wanted):
    assert list(promql.name_matchers("process", any_of, none_of)) == wanted


@pytest.mark.parametrize(
    ("duration_ns", "text"), [(90_000_000_000, "1m30s"), (500_000_000, "500ms"), (1, "1ms"), (1_500_000, "2ms")]
)
def test_durations_have_whole_milliseconds(duration_ns, text):
    assert promql.duration(duration_ns) == text


@pytest.mark.parametrize(("value", "text"), [(100.0, "100"), (0.05, "0.05"), (2.5e9, "2500000000"), (1e-7, "1e-07")])
def test_numbers_have_all_their_digits(value, text):
    assert promql.number(value) == text
