"""Sums of a period, tick by tick."""

import tracemalloc

import numpy as np
import pytest

from watchdog.kernel.collector import Reading
from watchdog.kernel.layout import CONNECTION, DATAGRAMS, DATAGRAMS_KEY, RESPONSE, SUMS, SUMS_KEY
from watchdog.kernel.quality import Quality
from watchdog.kernel.totals_map import Totals
from watchdog.measure.aggregate import ConnectionAggregate, GroupAggregate, SampleLosses
from watchdog.measure.catalogue import DIRECTIONS
from watchdog.measure.meter import Meter

SECOND = 1_000_000_000
OUT = DIRECTIONS.index("out")


def connections(count=1, first=1, **values):
    rows = np.zeros(count, CONNECTION)
    rows["cookie"] = np.arange(first, first + count)
    for name, value in ({"born_ns": SECOND, "direction": OUT, "state": 1, "family": 2} | values).items():
        rows[name] = value
    rows["owner"]["tgid"], rows["owner"]["comm"] = 2**22 + 1, b"culprit"
    return rows


def sums(closes):
    keys, values = np.zeros(1, SUMS_KEY), np.zeros(1, SUMS)
    values["closes"] = closes
    return Totals(keys, values)


def nothing(key, value):
    return Totals(np.empty(0, key), np.empty(0, value))


class Period:
    """A meter and an aggregate after their baseline: an empty host."""

    def __init__(self, aggregate):
        self.aggregate, self.meter, self.second = aggregate, Meter(), 1
        self.meter.advance_with_changes(self.reading(), 0)

    def reading(self, live=(), closed=(), responses=(), folded=None):
        empty = np.empty(0, CONNECTION)
        return Reading(
            at_ns=self.second * SECOND,
            live=np.concatenate([empty, *live]),
            closed=np.concatenate([empty, *closed]),
            sums=folded or nothing(SUMS_KEY, SUMS),
            responses=np.array(list(responses), RESPONSE),
            datagrams=nothing(DATAGRAMS_KEY, DATAGRAMS),
            quality=Quality(),
        )

    def tick(self, **given):
        self.second += 1
        self.aggregate.add(*self.meter.advance_with_changes(self.reading(**given), 0))


def seen(rows, *names):
    return [tuple(row[name] for name in names) for row in rows]


def test_a_connection_is_one_row_with_sums_of_all_ticks_and_values_of_the_newest():
    period = Period(ConnectionAggregate())
    period.tick(live=[connections(bytes_sent=5, srtt_us=100)], responses=[(1, 2_000_000)])
    period.tick(live=[connections(bytes_sent=12, srtt_us=300)])
    names = ("cookie", "process", "bytes_sent", "rtt_us", "response_latency_us", "lifetime_us", "closes")

    assert seen(period.aggregate.rows(), *names) == [(1, "culprit", 12, 300, 2_000, 2_000_000, 0)]


def test_an_ended_connection_keeps_its_last_values():
    period = Period(ConnectionAggregate())
    period.tick(live=[connections(bytes_sent=5)])
    period.tick(closed=[connections(bytes_sent=7, ended_ns=3 * SECOND, state=7)])
    for _ in range(3):
        period.tick(live=[connections(first=2, bytes_sent=1)])
    names = ("cookie", "bytes_sent", "state", "closes", "lifetime_us")

    assert seen(period.aggregate.rows(), *names) == [
        (1, 7, "CLOSE", 1, 2_000_000),
        (2, 1, "ESTABLISHED", 0, 5_000_000),
    ]
    assert period.aggregate.rows() == period.aggregate.rows()


def test_sums_are_one_row_over_all_ticks():
    period = Period(ConnectionAggregate())
    for closes in (3, 5, 11):
        period.tick(folded=sums(closes))

    assert seen(period.aggregate.rows(), "cookie", "closes") == [(0, 11)]


def test_groups_have_sums_of_counters_the_newest_gauge_and_all_values_of_a_distribution():
    period = Period(GroupAggregate(["process", "direction"]))
    period.tick(live=[connections(3, bytes_sent=5, packets_received=1, srtt_us=1_000)])
    period.tick(live=[connections(2, bytes_sent=6, packets_received=2, srtt_us=3_000)])
    [row] = period.aggregate.rows()

    assert (row["process"], row["direction"], row["bytes_sent"], row["open"]) == ("culprit", "out", 3 * 5 + 2, 2)
    assert (row["rtt"]["count"], row["rtt"]["min"], row["rtt"]["p50"], row["rtt"]["max"]) == (5, 0.001, 0.001, 0.003)
    period.tick()
    assert seen(period.aggregate.rows(), "bytes_sent", "open") == [(17, 0)]


def test_connections_in_a_sockmap_are_reported_by_their_greatest_number():
    losses = SampleLosses()
    for number in (1, 3, 2):
        losses.add(Quality(sockmap_connections=number))

    assert losses.counts_by_cause()["connections in a sockmap (their bytes are not known)"] == 3


def test_losses_have_a_description():
    losses = SampleLosses()
    for _ in range(2):
        losses.add(Quality(sums_full=3))

    assert losses.counts_by_cause()["connections lost (too many processes)"] == 6
    assert sum(losses.counts_by_cause().values()) == 6


@pytest.mark.parametrize(
    "aggregate", [ConnectionAggregate(), GroupAggregate(["process", "local_port"])], ids=["connections", "groups"]
)
def test_memory_does_not_grow_with_the_number_of_ticks(aggregate):
    period = Period(aggregate)
    live = connections(1_000, bytes_sent=1)
    tracemalloc.start()
    try:
        kept = []
        for ticks in (5, 60):
            for _ in range(ticks):
                period.tick(live=[live])
            kept.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()

    assert kept[1] - kept[0] < live.nbytes
