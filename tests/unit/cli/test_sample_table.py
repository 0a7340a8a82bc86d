"""Tables of `sample`: they fit every terminal with any names; numbers and ports are never cut."""

from __future__ import annotations

import re

import pytest
from sample_period import Period, make_connections

from watchdog.cli.sample_columns import sample_columns, sort_key
from watchdog.cli.sample_table import SampleTables, cut_text, text_width
from watchdog.errors import UsageError
from watchdog.measure.sample_connections import ConnectionAggregate
from watchdog.measure.sample_groups import GroupAggregate

NAMES = [
    b"nginx",
    b"\x1b[2J\x1b[31mX\n\r",
    "漢字漢字漢".encode(),
    b"a\xe2\x80\xaetxt",
    b"e" + b"\xcc\x81" * 7,
    b"-" * 15,
]


def connections():
    all_rows = []
    for number, name in enumerate(NAMES):
        rows = make_connections(first=number + 1, local_port=443, remote_port=65_535, bytes_sent=3 * 10**number)
        rows["owner"]["comm"], rows["owner"]["tgid"] = name, 2**22 - number
        rows["remote"] = range(0x11, 0x21)  # an IPv6 address of full length
        all_rows.append(rows)
    return all_rows


def table(width, aggregate=None, dimensions=(), *, seconds=2.0, messages=False, sort=""):
    period = Period(aggregate or ConnectionAggregate())
    period.tick(live=connections())
    tables = SampleTables(sample_columns(dimensions, messages=messages, sort=sort), width)
    return list(tables.lines(list(period.aggregate.rows()), seconds))


@pytest.mark.parametrize("width", [1, 30, 60, 80, 120, 200, 400])
@pytest.mark.parametrize("dimensions", [(), ("process", "remote"), ("remote", "exe", "pid", "user", "unit", "netns")])
@pytest.mark.parametrize("messages", [False, True])
def test_each_row_is_one_line_that_fits(width, dimensions, messages):
    aggregate = GroupAggregate(dimensions) if dimensions else ConnectionAggregate()
    lines = table(width, aggregate, dimensions, messages=messages)
    assert len(lines) == 1 + len(NAMES)
    assert all(text_width(line) <= width and line.isprintable() for line in lines)


def test_at_80_columns_a_row_has_name_peer_and_bytes_with_their_rate():
    head, first, *_ = table(80)
    assert head.split() == ["process", "remote", "bytes_sent", "rate", "bytes_received", "rate"]
    assert first.split()[0].endswith("…")
    assert re.search(r" \[1112:1314:[0-9a-f:]+…:65535 +300 kB +150 kB/s +0 B +0 B/s$", first)


def test_at_80_columns_response_latency_is_beside_bytes_with_their_rate():
    head = table(80, GroupAggregate(["process"]), ["process"], messages=True)[0].split()
    assert head == ["process", "response_latency.count", "response_latency.p99", "bytes_sent", "rate"]


def test_a_pipe_and_a_wide_terminal_have_all_columns_uncut():
    lines = table(None)
    assert lines == table(1_000)
    assert lines[0].split()[:6] == ["process", "pid", "direction", "local", "remote", "state"]
    assert all("[1112:1314:1516:1718:191a:1b1c:1d1e:1f20]:65535" in line for line in lines[1:])
    assert "…" not in "".join(lines)


def test_a_rate_is_never_shown_without_the_metric_before_it():
    for width in range(10, 250):
        titles = table(width)[0].split()
        assert all(
            titles[index - 1] in {"bytes_sent", "bytes_received", "connects"}
            for index, title in enumerate(titles)
            if title == "rate"
        ), width


def test_columns_do_not_get_narrower_from_table_to_table():
    period = Period(ConnectionAggregate())
    period.tick(live=connections())
    tables = SampleTables(sample_columns((), messages=False), None)
    rows = list(period.aggregate.rows())
    head, *_ = tables.lines(rows, 1)
    assert next(tables.lines(rows[-1:], 1)) == next(tables.lines([], 1)) == head


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("sort", ["retransmits", "rtt", "netns", "lifetime", "remote_port", "packets_received"])
def test_the_column_to_sort_by_is_always_shown(width, sort):
    assert sort in table(width, sort=sort)[0].split()


@pytest.mark.parametrize("name", ["process", "pid", "remote", "bytes_sent", "rtt", "lifetime", "accepts"])
def test_connections_can_be_sorted_by_names_of_rules(name):
    key = sort_key(name, (), messages=False)
    assert len(table(80, ConnectionAggregate(sort=key), sort=name)) == 1 + len(NAMES)


@pytest.mark.parametrize("name", ["process", "bytes_sent", "open", "rtt.p50", "connect_latency.count", "accepts"])
def test_groups_can_be_sorted_by_names_of_rules(name):
    key = sort_key(name, ["process"], messages=False)
    assert len(table(80, GroupAggregate(["process"], sort=key), ["process"], sort=name)) == 1 + len(NAMES)


@pytest.mark.parametrize(
    ("name", "dimensions", "messages", "message"),
    [
        ("byte_sent", (), False, 'did you mean "?bytes_sent'),
        ("rate", (), False, "unknown column"),
        ("remote", ("process",), False, "unknown column"),
        ("response_latency", (), False, "measured only with --messages"),
        ("response_latency.p99", ("process",), False, "measured only with --messages"),
        ("rtt", ("process",), True, "unknown column"),
    ],
)
def test_a_column_that_is_not_there_is_refused(name, dimensions, messages, message):
    with pytest.raises(UsageError, match=message):
        sort_key(name, dimensions, messages=messages)


def test_names_are_cut_by_the_columns_that_they_take():
    assert (text_width("漢字"), cut_text("漢字漢字", 5), cut_text("漢字", 4)) == (4, "漢字…", "漢字")
