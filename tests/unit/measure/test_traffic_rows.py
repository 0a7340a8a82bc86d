"""Rows of `top`: sums of one tick by connection, process, unit or peer, per second."""

import pytest
from sample_period import Period, make_connections

from watchdog.measure.catalogue import DIMENSIONS
from watchdog.measure.traffic_rows import TrafficQuery, keep_columns, traffic_table
from watchdog.measure.traffic_view import SUMMED, TopView
from watchdog.routing.silencing import parse_matchers
from watchdog.rules.engine.selection import Selection

LISTEN = 10


class Rows(Period):
    """Snapshots of given connections, and their rows."""

    def __init__(self):
        super().__init__(self)
        self.snapshot = None

    def add(self, _, snapshot):
        self.snapshot = keep_columns(snapshot)

    def table(self, view=TopView.PROCESSES, sort="", where=(), *, reverse=False, limit=1_000):
        mask = Selection().mask(self.snapshot, parse_matchers(where, DIMENSIONS) if where else ())
        table = traffic_table(self.snapshot, TrafficQuery(view, sort, reverse, limit), mask)
        return table, [dict(zip(view.columns, row, strict=True)) for row in table.rows]


def connection(first, name, pid, *, remote=1, **values):
    rows = make_connections(1, first, **values)
    rows["owner"]["comm"], rows["owner"]["tgid"] = name, pid
    rows["remote"][:, 10:12], rows["remote"][:, 12:] = 0xFF, (10, 0, 0, remote)
    return rows


@pytest.fixture
def rows():
    rows = Rows()
    rows.tick(
        live=[
            connection(
                1,
                b"web",
                11,
                remote=1,
                bytes_sent=600,
                srtt_us=1_000,
                packets_received=1,
                local_port=80,
                remote_port=5_001,
            ),
            connection(
                2,
                b"web",
                11,
                remote=2,
                bytes_sent=100,
                srtt_us=9_000,
                packets_received=1,
                local_port=80,
                remote_port=5_002,
            ),
            connection(3, b"web", 12, remote=2, bytes_received=7, remote_port=443, send_queue=13),
            connection(4, b"db", 20, remote=1, bytes_sent=500, bytes_received=500, retransmits=3, remote_port=5_432),
            connection(5, b"db", 20, state=LISTEN, local_port=5_432, direction=2, born_ns=0),
        ]
    )
    return rows


def test_processes_have_the_sums_of_their_connections_most_bytes_first(rows):
    table, found = rows.table()
    assert [(row["process"], row["pid"], row["bytes_sent"], row["open"]) for row in found] == [
        ("db", 20, 500.0, 1.0),
        ("web", 11, 700.0, 2.0),
        ("web", 12, 0.0, 1.0),
    ]
    assert [row["rtt.p99"] for row in found] == [None, 0.009, None]
    assert table.row_count == 3
    assert (table.totals["bytes_sent"], table.totals["bytes_received"], table.totals["open"]) == (1200.0, 507.0, 4.0)


def test_counters_are_per_second_and_gauges_are_not(rows):
    rows.second += 3  # the next tick is four seconds after
    rows.tick(live=[connection(3, b"web", 12, remote=2, bytes_received=407, remote_port=443, send_queue=13)])
    _, found = rows.table()
    assert [(row["bytes_received"], row["send_queue"]) for row in found] == [(100.0, 13.0)]


def test_peers_are_addresses_and_connections_have_ports(rows):
    _, peers = rows.table(TopView.PEERS)
    assert [(row["remote"], row["bytes_sent"]) for row in peers if row["open"]] == [
        ("10.0.0.1", 1100.0),
        ("10.0.0.2", 100.0),
    ]
    _, connections = rows.table(TopView.CONNECTIONS)
    assert [(row["remote"], row["remote_port"], row["rtt"]) for row in connections] == [
        ("10.0.0.1", 5_432, None),
        ("10.0.0.1", 5_001, 0.001),
        ("10.0.0.2", 5_002, 0.009),
        ("10.0.0.2", 443, None),
    ]


def test_listeners_are_among_the_sockets_of_a_process_only(rows):
    for view, states in ((TopView.CONNECTIONS, ["ESTABLISHED"]), (TopView.SOCKETS, ["ESTABLISHED", "LISTEN"])):
        _, found = rows.table(view, where=["pid=20"])
        assert [row["state"] for row in found] == states


@pytest.mark.parametrize("view", list(TopView))
def test_each_column_sorts_both_ways_and_a_limit_keeps_the_first(rows, view):
    for column in ("", *view.columns):
        table, found = rows.table(view, column)
        _, backwards = rows.table(view, column, reverse=True)
        assert sorted(map(str, found)) == sorted(map(str, backwards)), column
        if column and any(row[column] not in (None, "") for row in found):
            values = [row[column] for row in found if row[column] not in (None, "")]
            assert values == sorted(values, reverse=not isinstance(values[0], str)), column
        _, first = rows.table(view, column, limit=1)
        assert first == found[:1]
        assert table.row_count == len(found)


def test_conditions_select_rows_and_totals(rows):
    table, found = rows.table(where=["remote=10.0.0.2", "process=w*"])
    assert [row["pid"] for row in found] == [11, 12]
    assert table.totals["bytes_sent"] == 100.0


def test_columns_of_every_view_are_complete_for_an_empty_host():
    rows = Rows()
    rows.tick()
    for view in TopView:
        table, found = rows.table(view)
        assert (found, table.row_count) == ([], 0)
        assert set(SUMMED) == table.totals.keys()
