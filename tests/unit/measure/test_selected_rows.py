"""`sample --where` and `--sort`: the rows that conditions select, in the order of any value."""

import json
from itertools import pairwise

import pytest
from sample_period import SECOND, Period, make_connections, make_sums

from watchdog.measure.catalogue import DIMENSIONS
from watchdog.measure.sample_connections import ConnectionAggregate
from watchdog.measure.sample_groups import GroupAggregate
from watchdog.measure.selected_rows import select_rows
from watchdog.routing.silencing import parse_matchers
from watchdog.rules.engine.selection import Selection

PORTS = (80, 443, 8080)


class SelectedPeriod(Period):
    """A period that counts the rows of conditions alone."""

    def __init__(self, aggregate, *where):
        super().__init__(aggregate)
        self.where, self.selection = parse_matchers(where, DIMENSIONS), Selection()

    def tick(self, **given):
        self.second += 1
        changes, snapshot = self.meter.advance_with_changes(self.reading(**given), 0)
        self.aggregate.add(*select_rows(changes, snapshot, self.selection.mask(snapshot, self.where)))
        self.selection.release()


def live(ticks):
    return [
        make_connections(1, number, local_port=port, bytes_sent=ticks * number, srtt_us=1_000 * number)
        for number, port in enumerate(PORTS, 1)
    ]


@pytest.mark.parametrize("make_aggregate", [ConnectionAggregate, lambda: GroupAggregate(["local_port"])])
@pytest.mark.parametrize(
    ("where", "ports"),
    [
        (["local_port=443"], {443: 4}),
        (["local_port=443", "local_port=8000-9000"], {443: 4, 8080: 6}),
        (["local_port!=443"], {80: 2, 8080: 6}),
        (["process=culp*", "local_port=80"], {80: 2}),
        (["process=nobody"], {}),
    ],
)
def test_rows_and_totals_are_those_that_meet_all_conditions(make_aggregate, where, ports):
    period = SelectedPeriod(make_aggregate(), *where)
    for ticks in (1, 2):
        responses = [(number, 5_000_000 * number) for number in (1, 2, 3)]
        period.tick(live=live(ticks), responses=responses, folded=make_sums(closes=3))

    assert {row["local_port"]: row["bytes_sent"] for row in period.aggregate.rows() if row["local_port"]} == ports
    assert period.aggregate.totals()["bytes_sent"] == sum(ports.values())


def test_responses_stay_with_their_connection():
    connections, groups = (
        SelectedPeriod(aggregate, "local_port=443", "local_port=8080")
        for aggregate in (ConnectionAggregate(), GroupAggregate(["local_port"]))
    )
    for period in (connections, groups):
        period.tick(live=live(1), responses=[(number, 5_000_000 * number) for number in (3, 1, 2)])

    assert {row["local_port"]: row["response_latency_us"] for row in connections.aggregate.rows()} == {
        443: 10_000,
        8080: 15_000,
    }
    assert {row["local_port"]: row["response_latency"]["p50"] for row in groups.aggregate.rows()} == {
        443: pytest.approx(0.010),
        8080: pytest.approx(0.015),
    }


def fill(period):
    """Let 40 connections of many values begin, and half of them end."""
    for number in range(40):
        at_ns = (period.second + 1) * SECOND
        rows = make_connections(1, number + 1, bytes_sent=number * 37 % 40, srtt_us=number * 11 % 17, local_port=number)
        rows["owner"]["comm"] = b"abcd"[: 1 + number % 4]
        if number % 2:
            rows["ended_ns"], rows["state"] = at_ns, 7
            period.tick(closed=[rows])
        else:
            period.tick(live=[rows])


@pytest.mark.parametrize(
    ("sort", "is_descending"),
    [("retransmits", True), ("rtt_us", True), ("local_port", True), ("process", False), ("bytes_sent", True)],
)
@pytest.mark.parametrize("limit", [0, 7])
def test_connections_are_in_the_order_of_the_value(sort, limit, is_descending):
    everything, limited = Period(ConnectionAggregate()), Period(ConnectionAggregate(limit, sort))
    fill(everything)
    fill(limited)
    values = [row[sort] for row in limited.aggregate.rows()]
    wanted = sorted(
        (row[sort] for row in everything.aggregate.rows()), key=lambda value: value or 0 if is_descending else value
    )
    if is_descending:
        wanted.reverse()

    assert values == wanted[: limit or None]
    assert limited.aggregate.totals() == everything.aggregate.totals()


@pytest.mark.parametrize(("sort", "part"), [("rtt", "p99"), ("connect_latency", "count"), ("rtt", "min")])
def test_groups_are_in_the_order_of_a_part_of_a_distribution_those_without_values_last(sort, part):
    period = Period(GroupAggregate(["local_port"], 0, f"{sort}.{part}"))
    fill(period)
    values = [row[sort] and row[sort][part] for row in period.aggregate.rows()]
    present = [value for value in values if value is not None]

    assert len(values) == 40
    assert all(first >= second for first, second in pairwise(present))
    assert values[: len(present)] == present


def test_rows_of_a_sort_are_json():
    period = Period(ConnectionAggregate(sort="process"))
    fill(period)
    assert len(json.loads(json.dumps(list(period.aggregate.rows())))) == 40
