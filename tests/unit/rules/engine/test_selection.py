"""Rows that `where` selects."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.rules.engine.selection import Selection, can_select
from watchdog.rules.language.rule import Condition


def chosen(host, rows, *conditions):
    mask = Selection().mask(host.tick(*rows), conditions)
    return list(range(len(rows))) if mask is None else mask.nonzero()[0].tolist()


def processes(*names):
    return [{"process": name} for name in names]


def test_without_conditions_every_row_is_selected(host):
    assert chosen(host, processes("a", "b")) == [0, 1]


def test_a_glob_selects_names(host):
    rows = processes("nginx", "nginx-worker", "redis", "Nginx")
    assert chosen(host, rows, Condition("process", any_of=("nginx*",))) == [0, 1]


def test_one_matching_pattern_of_several_is_enough(host):
    assert chosen(host, processes("a", "b", "c"), Condition("process", any_of=("a", "c"))) == [0, 2]


def test_an_exclusion_overrides_a_pattern(host):
    rows = processes("chrome", "chromium", "curl")
    assert chosen(host, rows, Condition("process", any_of=("c*",), none_of=("chrom*",))) == [2]


def test_exclusions_alone_select_all_other_rows(host):
    assert chosen(host, processes("chrome", "curl"), Condition("process", none_of=("chrom*",))) == [1]


def test_a_name_with_a_newline_is_matched_whole(host):
    assert chosen(host, processes("evil\nname", "evil"), Condition("process", any_of=("evil",))) == [1]
    assert chosen(host, processes("evil\nname", "evil"), Condition("process", any_of=("evil*",))) == [0, 1]


def test_choices_are_selected_by_their_names(host):
    rows = [{"direction": "out"}, {"direction": "in"}, {}]
    assert chosen(host, rows, Condition("direction", any_of=("out",))) == [0]
    assert chosen(host, rows, Condition("direction", none_of=("out",))) == [1, 2]


def test_numbers_and_ranges_include_both_ends(host):
    rows = [{"remote_port": port} for port in (79, 80, 443, 1023, 1024, 65535)]
    assert chosen(host, rows, Condition("remote_port", any_of=("80", "1024-65535"))) == [1, 4, 5]
    assert chosen(host, rows, Condition("remote_port", none_of=("80", "1024-65535"))) == [0, 2, 3]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("10.0.0.0/8", ["10.0.0.0", "10.255.255.255"]),
        ("10.0.0.0", ["10.0.0.0"]),
        ("0.0.0.0/0", ["9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"]),
        ("::/0", ["9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0", "::1", "2001:db8::1", "2001:db9::"]),
        ("2001:db8::/32", ["2001:db8::1"]),
        ("2001:db8::1/128", ["2001:db8::1"]),
        ("::ffff:10.0.0.0/104", ["10.0.0.0", "10.255.255.255"]),
        ("::1", ["::1"]),
    ],
)
def test_addresses_are_selected_by_address_block(host, block, expected):
    addresses = ["9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0", "::1", "2001:db8::1", "2001:db9::"]
    rows = [{"remote": address} for address in addresses]
    assert [addresses[row] for row in chosen(host, rows, Condition("remote", any_of=(block,)))] == expected
    excluded = chosen(host, rows, Condition("remote", none_of=(block,)))
    assert [addresses[row] for row in excluded] == [address for address in addresses if address not in expected]


def test_a_row_must_meet_every_condition(host):
    rows = [{"process": "a", "direction": "out"}, {"process": "a", "direction": "in"}, {"process": "b"}]
    assert chosen(host, rows, Condition("process", any_of=("a",)), Condition("direction", any_of=("out",))) == [0]


def test_names_that_appear_later_are_matched_then(host):
    selection, where = Selection(), [Condition("process", any_of=("p*7",))]
    assert selection.mask(host.tick(*processes("p7", "p8")), where).tolist() == [True, False]
    later = [f"p{number}" for number in range(200)]
    assert selection.mask(host.tick(*processes(*later)), where).nonzero()[0].tolist() == [*range(7, 200, 10)]


def test_a_snapshot_without_rows_selects_none(host):
    where = [Condition("process", any_of=("a",)), Condition("remote", any_of=("::1",)), Condition("pid", any_of=("1",))]
    assert Selection().mask(host.tick(), where).tolist() == []


@pytest.mark.parametrize(
    ("dimension", "one", "other"),
    [
        ("process", "a", "b"),
        ("failure", "refused", "timeout"),
        ("state", "LISTEN", "CLOSE"),
        ("remote_port", "80", "81"),
        ("remote", "10.0.0.1", "10.0.0.2"),
        ("remote", "::/0", "::1"),
    ],
)
def test_a_lost_value_matches_neither_a_pattern_nor_its_opposite(host, dimension, one, other):
    rows = [{dimension: None}, {dimension: "10.9.9.9" if dimension == "remote" else other}]
    assert 0 not in chosen(host, rows, Condition(dimension, any_of=(one, other)))
    assert chosen(host, rows, Condition(dimension, none_of=(one,)))[:1] != [0]
    assert 0 not in chosen(
        host, rows, Condition(dimension, none_of=(one, "9.0.0.0") if dimension == "remote" else (one,))
    )


def test_matching_ever_new_names_takes_bounded_memory(host):
    selection, condition = Selection(), Condition("process", any_of=("*7",))
    host.text = lambda _dimension, code: str(code)
    for tick in range(40):
        snapshot = host.tick()
        codes = np.arange(tick * 10_000, tick * 10_000 + 20_000, dtype=np.uint32)  # half of them old
        snapshot.dimensions["process"] = codes
        assert np.array_equal(selection.mask(snapshot, [condition]), codes % 10 == 7)
    assert len(selection._matchers[condition]._codes) == 1 << 17


def test_names_with_codes_in_the_same_cache_cell_are_matched_separately(host):
    selection, condition = Selection(), Condition("process", any_of=("*7",))
    host.text = lambda _dimension, code: str(code)
    codes = np.array([7, 7 + 64, 7 + 128, 7 + 64 * 1000, 8], dtype=np.uint32)
    for _ in range(3):
        snapshot = host.tick()
        snapshot.dimensions["process"] = codes
        assert selection.mask(snapshot, [condition]).tolist() == [True, False, False, True, False]


PATTERNS = {
    "process": ("a", "a*", "", "[!a]*", "evil\nname"),
    "unit": ("", "*.service", "user@1000/*"),
    "direction": ("out", "*"),
    "remote_port": ("80", "1-1023", "1024-65535"),
    "remote": ("192.0.2.0/24", "192.0.2.1", "2001:db8::/32", "::/0", "0.0.0.0/0"),
}
VALUES = {
    "process": ("a", "ab", "", "evil\nname"),
    "unit": ("", "a.service", "user@1000/a.service"),
    "direction": ("out", "in", "unknown"),
    "remote_port": (0, 80, 1023, 65535),
    "remote": ("192.0.2.1", "198.51.100.1", "2001:db8::1", "::ffff:192.0.2.1"),
}


@given(st.data())
def test_labels_meet_a_condition_as_the_rows_of_their_group_do(make_host, data):
    dimension = data.draw(st.sampled_from(sorted(PATTERNS)))
    patterns = st.lists(st.sampled_from(PATTERNS[dimension]), max_size=2).map(tuple)
    condition = Condition(dimension, data.draw(patterns), data.draw(patterns))
    value = data.draw(st.sampled_from(VALUES[dimension]))
    selected = chosen(make_host(), [{dimension: value}], condition) == [0]

    assert can_select([condition], ((dimension, str(value)), ("family", "ipv4"))) is selected
    assert can_select([condition], (("family", "ipv4"),))


@pytest.mark.parametrize("label", [("remote", "x"), ("remote", ""), ("pid", "x"), ("pid", "99999999999")])
def test_a_label_that_is_no_value_meets_no_condition(label):
    assert not can_select([Condition(label[0], none_of=("7",))], (label,))
