"""Totals of a stretch of time, tick by tick."""

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


class Stretch:
    """A meter and a tally after their baseline: an empty host."""

    def __init__(self, tally):
        self.tally, self.meter, self.second = tally, Meter(), 1
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
        self.tally.add(*self.meter.advance_with_changes(self.reading(**given), 0))


def seen(rows, *names):
    return [tuple(row[name] for name in names) for row in rows]


def test_a_connection_is_one_row_with_what_all_ticks_counted_and_the_newest_saw():
    stretch = Stretch(ConnectionAggregate())
    stretch.tick(live=[connections(bytes_sent=5, srtt_us=100)], responses=[(1, 2_000_000)])
    stretch.tick(live=[connections(bytes_sent=12, srtt_us=300)])
    names = ("cookie", "process", "bytes_sent", "rtt_us", "response_latency_us", "lifetime_us", "closes")

    assert seen(stretch.tally.rows(), *names) == [(1, "culprit", 12, 300, 2_000, 2_000_000, 0)]


def test_a_connection_that_ended_stays_as_it_was_seen_last():
    stretch = Stretch(ConnectionAggregate())
    stretch.tick(live=[connections(bytes_sent=5)])
    stretch.tick(closed=[connections(bytes_sent=7, ended_ns=3 * SECOND, state=7)])
    for _ in range(3):
        stretch.tick(live=[connections(first=2, bytes_sent=1)])
    names = ("cookie", "bytes_sent", "state", "closes", "lifetime_us")

    assert seen(stretch.tally.rows(), *names) == [
        (1, 7, "CLOSE", 1, 2_000_000),
        (2, 1, "ESTABLISHED", 0, 5_000_000),
    ]
    assert stretch.tally.rows() == stretch.tally.rows()


def test_what_was_folded_together_is_one_row_over_all_ticks():
    stretch = Stretch(ConnectionAggregate())
    for closes in (3, 5, 11):
        stretch.tick(folded=sums(closes))

    assert seen(stretch.tally.rows(), "cookie", "closes") == [(0, 11)]


def test_groups_sum_counters_up_keep_the_newest_gauge_and_every_value_of_a_distribution():
    stretch = Stretch(GroupAggregate(["process", "direction"]))
    stretch.tick(live=[connections(3, bytes_sent=5, packets_received=1, srtt_us=1_000)])
    stretch.tick(live=[connections(2, bytes_sent=6, packets_received=2, srtt_us=3_000)])
    [row] = stretch.tally.rows()

    assert (row["process"], row["direction"], row["bytes_sent"], row["open"]) == ("culprit", "out", 3 * 5 + 2, 2)
    assert (row["rtt"]["count"], row["rtt"]["min"], row["rtt"]["p50"], row["rtt"]["max"]) == (5, 0.001, 0.001, 0.003)
    stretch.tick()
    assert seen(stretch.tally.rows(), "bytes_sent", "open") == [(17, 0)]


def test_losses_are_told_in_words():
    losses = SampleLosses()
    for _ in range(2):
        losses.add(Quality(sums_full=3))

    assert losses.counts_by_cause()["connections lost (too many processes)"] == 6
    assert sum(losses.counts_by_cause().values()) == 6


@pytest.mark.parametrize(
    "tally", [ConnectionAggregate(), GroupAggregate(["process", "local_port"])], ids=["connections", "groups"]
)
def test_what_is_kept_does_not_grow_with_the_ticks(tally):
    stretch = Stretch(tally)
    live = connections(1_000, bytes_sent=1)
    tracemalloc.start()
    try:
        kept = []
        for ticks in (5, 60):
            for _ in range(ticks):
                stretch.tick(live=[live])
            kept.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()

    assert kept[1] - kept[0] < live.nbytes
