"""Sums of a period, tick by tick."""

import tracemalloc

import pytest
from sample_period import SECOND, Period, make_connections, make_sums

from watchdog.kernel.layout import FLAG_CORRECTION
from watchdog.kernel.quality import Quality
from watchdog.measure.sample_connections import ConnectionAggregate
from watchdog.measure.sample_groups import GroupAggregate
from watchdog.measure.sample_sums import SampleLosses


def seen(rows, *names):
    return [tuple(row[name] for name in names) for row in rows]


def test_a_connection_is_one_row_with_sums_of_all_ticks_and_values_of_the_newest():
    period = Period(ConnectionAggregate())
    period.tick(live=[make_connections(bytes_sent=5, srtt_us=100)], responses=[(1, 2_000_000)])
    period.tick(live=[make_connections(bytes_sent=12, srtt_us=300)])
    names = ("cookie", "process", "bytes_sent", "rtt_us", "response_latency_us", "lifetime_us", "closes")

    assert seen(period.aggregate.rows(), *names) == [(1, "culprit", 12, 300, 2_000, 2_000_000, 0)]


def test_an_ended_connection_keeps_its_last_values():
    period = Period(ConnectionAggregate())
    period.tick(live=[make_connections(bytes_sent=5)])
    period.tick(closed=[make_connections(bytes_sent=7, ended_ns=3 * SECOND, state=7)])
    for _ in range(3):
        period.tick(live=[make_connections(first=2, bytes_sent=1)])
    names = ("cookie", "bytes_sent", "state", "closes", "lifetime_us")

    assert seen(period.aggregate.rows(), *names) == [
        (1, 7, "CLOSE", 1, 2_000_000),
        (2, 1, "ESTABLISHED", 0, 5_000_000),
    ]
    assert list(period.aggregate.rows()) == list(period.aggregate.rows())


def test_sums_are_one_row_over_all_ticks():
    period = Period(ConnectionAggregate())
    for closes in (3, 5, 11):
        period.tick(folded=make_sums(closes))

    assert seen(period.aggregate.rows(), "cookie", "closes") == [(0, 11)]


def test_a_limit_keeps_the_rows_with_most_bytes_and_the_totals_of_all():
    period = Period(ConnectionAggregate(limit=3))
    sent = [5, 900, 7, 700, 600, 3]  # the odd ones end, the others are live
    at_ns = 2 * SECOND
    ended = [make_connections(first=1 + i, bytes_sent=sent[i], ended_ns=at_ns) for i in (1, 3, 5)]
    live = [make_connections(first=1 + i, bytes_sent=sent[i]) for i in (0, 2, 4)]
    period.tick(live=live, closed=ended)
    period.tick(live=live, folded=make_sums(11))

    assert seen(period.aggregate.rows(), "bytes_sent") == [(900,), (700,), (600,)]
    assert (period.aggregate.row_count(), period.aggregate.totals()["bytes_sent"]) == (7, sum(sent))
    assert period.aggregate.totals()["closes"] == 3 + 11


def test_a_connection_without_a_file_that_comes_back_is_one_row():
    period = Period(ConnectionAggregate())
    period.tick(live=[make_connections(bytes_sent=5)])
    for _ in range(3):
        period.tick()
    period.tick(closed=[make_connections(bytes_sent=9, ended_ns=6 * SECOND)])
    period.tick()

    assert seen(period.aggregate.rows(), "cookie", "bytes_sent", "closes") == [(1, 9, 1)]


def test_a_correction_is_in_the_row_of_its_connection():
    final = make_connections(ended_ns=2 * SECOND, srtt_us=300, bytes_sent=5)
    correction = make_connections(ended_ns=2 * SECOND, resets_sent=1, flags=FLAG_CORRECTION)
    for ticks in ([[final, correction]], [[final], [correction]]):
        period = Period(ConnectionAggregate())
        for closed in ticks:
            period.tick(closed=closed)
        period.tick()

        assert seen(period.aggregate.rows(), "cookie", "bytes_sent", "resets_sent", "closes") == [(1, 5, 1, 1)]


def test_too_many_connections_without_a_file_can_have_two_rows_and_exact_totals():
    period, count = Period(ConnectionAggregate()), 5_003
    period.tick(live=[make_connections(count, bytes_sent=5)])
    period.tick()
    period.tick(closed=[make_connections(count, bytes_sent=9, ended_ns=4 * SECOND)])
    rows = list(period.aggregate.rows())

    assert len({row["cookie"] for row in rows}) == count < len(rows) == period.aggregate.row_count() < 2 * count
    assert sum(row["bytes_sent"] for row in rows) == period.aggregate.totals()["bytes_sent"] == 9 * count
    assert sum(row["closes"] for row in rows) == period.aggregate.totals()["closes"] == count


def test_groups_beyond_the_limit_are_in_the_totals():
    period = Period(GroupAggregate(["local_port"], limit=2))
    period.tick(live=[make_connections(first=port, local_port=port, bytes_sent=port) for port in range(1, 101)])
    period.tick(folded=make_sums(11))

    assert seen(period.aggregate.rows(), "local_port", "bytes_sent") == [(100, 100), (99, 99)]
    assert (period.aggregate.row_count(), period.aggregate.totals()["bytes_sent"]) == (101, 5_050)
    assert period.aggregate.totals()["closes"] == 11


def test_groups_have_sums_of_counters_the_newest_gauge_and_all_values_of_a_distribution():
    period = Period(GroupAggregate(["process", "direction"]))
    period.tick(live=[make_connections(3, bytes_sent=5, packets_received=1, srtt_us=1_000)])
    period.tick(live=[make_connections(2, bytes_sent=6, packets_received=2, srtt_us=3_000)])
    [row] = list(period.aggregate.rows())

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
    live = make_connections(1_000, bytes_sent=1)
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
