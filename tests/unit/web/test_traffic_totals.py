"""Totals of the traffic against the readings that they were made of."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from simulated_host import FakeCollector

from watchdog.clock import SECOND_NS
from watchdog.kernel.layout import CONNECTION, FLAG_CONNECT, FLAG_FAILED
from watchdog.kernel.live_sockets import Coverage
from watchdog.measure.catalogue import DIRECTIONS, TCP_STATES
from watchdog.measure.meter import Meter, TickCounts
from watchdog.web.traffic_totals import BOUNDS, COUNTERS, FAILURE_NAMES, GAUGES, STATE_NAMES, TrafficTotals

REFUSED = 111  # errno ECONNREFUSED


class Ticks:
    """Ticks of made readings, added to totals of `max_places`."""

    def __init__(self, clock, max_places=200):
        self.clock, self.totals, self._meter = clock, TrafficTotals(max_places), Meter()
        self._collector = FakeCollector(clock)
        self._cookie = 0
        self._meter.advance(self._collector.read(), 0.0)

    def rows(self, *names, **fields):
        rows = np.zeros(len(names), CONNECTION)
        rows["cookie"] = self._cookie + 1 + np.arange(len(names))
        self._cookie += len(names)
        now_ns = self.clock.boottime_ns()
        rows["born_ns"], rows["established_ns"] = now_ns - 3_000_000, now_ns - 1_000_000
        rows["direction"], rows["family"], rows["flags"] = DIRECTIONS.index("out"), 2, FLAG_CONNECT
        rows["remote"][:, 10:] = 255, 255, 192, 0, 2, 7
        rows["owner"]["comm"] = [name.encode() for name in names]
        rows["owner"]["tgid"] = [1_000_000 + hash(name) % 1_000_000 for name in names]
        rows["state"] = TCP_STATES.index("ESTABLISHED")
        for name, value in fields.items():
            rows[name] = value
        return rows

    def tick(self, live=None, closed=None, counts=None, coverage=Coverage.ALL):
        self.clock.advance(1)
        reading = dataclasses.replace(
            self._collector.read(),
            live=self.rows() if live is None else live,
            closed=self.rows() if closed is None else closed,
            coverage=coverage,
        )
        self.totals.add(self._meter.advance(reading, 0.0, counts or TickCounts()))
        return self.totals.view()


def value(view, metric, process):
    """Return the total of a counter, or the gauge, of a process."""
    place = [pair[0] for pair in view.pairs].index(process)
    names, values = (COUNTERS, view.counters) if metric in COUNTERS else (GAUGES, view.gauges)
    return values[names.index(metric), place]


def closed_rows(ticks, *names, **fields):
    now_ns = ticks.clock.boottime_ns() + SECOND_NS
    return ticks.rows(*names, ended_ns=now_ns, state=TCP_STATES.index("CLOSE"), **fields)


def test_counters_add_up_over_ticks_and_gauges_are_those_of_the_newest(clock):
    ticks = Ticks(clock)
    rows = ticks.rows("nginx", "nginx", "curl", bytes_sent=1_000, send_queue=7)
    first = ticks.tick(rows)
    rows = rows.copy()
    rows["bytes_sent"], rows["send_queue"] = 1_500, 3
    second = ticks.tick(rows)
    assert [value(first, "bytes_sent", name) for name in ("nginx", "curl")] == [2_000, 1_000]
    assert [value(second, "bytes_sent", name) for name in ("nginx", "curl")] == [3_000, 1_500]
    assert [value(view, "send_queue", "nginx") for view in (first, second)] == [14, 6]
    assert value(ticks.tick(), "bytes_sent", "nginx") == 3_000


def test_open_connections_are_kept_by_state_also_while_they_are_idle(clock):
    ticks = Ticks(clock)
    ticks.tick(ticks.rows("nginx", "nginx"))
    view = ticks.tick(coverage=Coverage.CHANGED)
    place = view.pairs.index(("nginx", ""))
    assert view.open_by_state[place, STATE_NAMES.index("ESTABLISHED")] == view.open_by_state.sum() == 2
    assert view.seen_states[place].nonzero()[0].tolist() == [STATE_NAMES.index("ESTABLISHED")]


def test_failed_connects_are_counted_by_failure(clock):
    ticks = Ticks(clock)
    rows = closed_rows(ticks, *["crawler"] * 7, error=REFUSED, flags=FLAG_CONNECT | FLAG_FAILED, established_ns=0)
    view = ticks.tick(closed=rows)
    assert view.failures.sum() == view.failures[view.pairs.index(("crawler", "")), FAILURE_NAMES.index("refused")] == 7


def test_each_value_of_a_distribution_is_in_the_bucket_of_its_upper_bound(clock):
    ticks = Ticks(clock)
    values = np.array([0.0001, 0.00011, 10.0, 10.1, np.nan])
    totals = ticks.totals
    totals._add_values("rtt", values, np.zeros(5, np.intp))
    view = totals.view()
    counts = view.buckets["rtt"][0]
    assert (counts[0], counts[1], counts[len(BOUNDS["rtt"]) - 1], counts[-1]) == (1, 1, 1, 1)
    assert view.sums["rtt"][0] == pytest.approx(np.nansum(values))


@pytest.mark.parametrize("max_places", [4, 50])
def test_with_ten_thousand_names_the_series_are_bounded_and_the_totals_still_match(clock, max_places):
    ticks = Ticks(clock, max_places)
    names = [f"name{number}" for number in range(10_000)]
    for _ in range(2):
        view = ticks.tick(closed=closed_rows(ticks, *names, bytes_sent=10))
        assert len(view.pairs) <= max_places
    assert view.counters[COUNTERS.index("bytes_sent")].sum() == 2 * 10_000 * 10
    assert view.counters[COUNTERS.index("closes")].sum() == 2 * 10_000
    assert view.counters[COUNTERS.index("bytes_sent"), 0] >= 2 * (10_000 - max_places) * 10
    assert view.refused >= 10_000 - max_places


def test_those_with_most_traffic_get_the_places(clock):
    ticks = Ticks(clock, 5)
    names = [f"name{number}" for number in range(100)]
    rows = closed_rows(ticks, *names)
    rows["bytes_sent"] = np.arange(100)
    view = ticks.tick(closed=rows)
    assert {pair[0] for pair in view.pairs[1:]} == {"name99", "name98", "name97"}


def test_the_rows_of_the_watchdog_itself_are_no_traffic_and_its_counts_are_kept(clock):
    ticks = Ticks(clock)
    ticks.tick(counts=TickCounts(missed=2, failed=1))
    view = ticks.tick(counts=TickCounts(missed=3))
    assert view.pairs == (("(other)", "(other)"),)
    assert (view.own["missed_ticks"], view.own["failed_ticks"], view.ticks) == (5, 1, 2)


def test_a_code_that_belongs_to_another_name_now_is_looked_up_again(clock):
    ticks = Ticks(clock)
    first = ticks.tick(closed=closed_rows(ticks, "old", bytes_sent=10))
    for hour in range(3):
        ticks.clock.advance(3 * 3_600)
        view = ticks.tick(closed=closed_rows(ticks, f"new{hour}", bytes_sent=1))
    assert value(view, "bytes_sent", "old") == value(first, "bytes_sent", "old") == 10
    assert value(view, "bytes_sent", "new2") == 1
