"""The busiest processes and peers against sums by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from simulated_host import FakeCollector

from watchdog.kernel.layout import CONNECTION, FLAG_CONNECT
from watchdog.measure.catalogue import DIRECTIONS, TCP_STATES
from watchdog.measure.meter import Meter
from watchdog.web.busiest_traffic import PERIOD_SECONDS, SHOWN, BusiestTraffic


class Ticks:
    """Ticks of made readings."""

    def __init__(self, clock):
        self.clock, self.busiest, self._meter = clock, BusiestTraffic(), Meter()
        self._collector = FakeCollector(clock)
        self._cookie = 0
        self._meter.advance(self._collector.read(), 0.0)

    def rows(self, *names, peers=None, **fields):
        """Return ended outbound connections, one a name."""
        rows = np.zeros(len(names), CONNECTION)
        rows["cookie"] = self._cookie + 1 + np.arange(len(names))
        self._cookie += len(names)
        rows["born_ns"] = rows["ended_ns"] = self.clock.boottime_ns()
        rows["direction"], rows["family"], rows["flags"] = DIRECTIONS.index("out"), 2, FLAG_CONNECT
        rows["remote"][:, 10:] = 255, 255, 192, 0, 2, 7
        rows["remote"][:, 15] = 7 if peers is None else peers
        rows["owner"]["comm"] = [name.encode() for name in names]
        rows["owner"]["tgid"] = [1_000_000 + hash(name) % 1_000_000 for name in names]
        rows["state"] = TCP_STATES.index("CLOSE")
        for name, value in fields.items():
            rows[name] = value
        return rows

    def tick(self, closed, seconds=1.0):
        self.clock.advance(seconds)
        reading = dataclasses.replace(self._collector.read(), closed=closed)
        self.busiest.add(self._meter.advance(reading, self.clock.wall()))

    def end_period(self):
        for _ in range(PERIOD_SECONDS):
            self.tick(self.rows())
        return self.busiest.ranking


@pytest.fixture
def ticks(clock):
    return Ticks(clock)


def names(ranked):
    return [one.names[0] for one in ranked]


def test_rates_are_of_the_whole_period_the_busiest_first(ticks):
    for _ in range(PERIOD_SECONDS - 1):
        ticks.tick(ticks.rows("nginx", "curl", peers=[7, 8], bytes_sent=[2_000, 700], bytes_received=[100, 50]))
        assert ticks.busiest.ranking is None
    ticks.tick(ticks.rows())
    ranking = ticks.busiest.ranking
    assert names(ranking.processes) == ["nginx", "curl"]
    nginx = ranking.processes[0]
    assert (nginx.bytes_sent, nginx.bytes_received) == (pytest.approx(2_000 * 29 / 30), pytest.approx(100 * 29 / 30))
    assert (nginx.connects, nginx.open) == (pytest.approx(29 / 30), 0)
    assert [one.names for one in ranking.peers] == [("192.0.2.7", "out"), ("192.0.2.8", "out")]
    assert (ranking.seconds, ranking.wall) == (30.0, ticks.clock.wall())


def test_many_connections_count_as_much_as_many_bytes(ticks):
    ticks.tick(ticks.rows("sender", bytes_sent=10_000_000))
    ticks.tick(ticks.rows(*["scanner"] * 500))
    ticks.tick(ticks.rows("quiet", bytes_sent=1_000))
    ranking = ticks.end_period()
    assert set(names(ranking.processes)[:2]) == {"sender", "scanner"}
    assert names(ranking.processes)[2] == "quiet"


def test_a_period_begins_without_the_former_one(ticks):
    ticks.tick(ticks.rows("early", bytes_sent=5_000))
    assert names(ticks.end_period().processes) == ["early"]
    assert names(ticks.end_period().processes) == []


def test_thousands_of_small_names_hide_no_busy_one_and_are_bounded(ticks):
    for tick in range(PERIOD_SECONDS):
        small = ticks.rows(*(f"s{tick}-{number}" for number in range(200)), bytes_sent=10)
        ticks.tick(np.concatenate([small, ticks.rows("busy", bytes_sent=500_000)]))
        assert len(ticks.busiest._processes._sums) <= 1_024
    ranking = ticks.busiest.ranking
    assert names(ranking.processes)[0] == "busy"
    assert ranking.processes[0].bytes_sent == pytest.approx(500_000)
    assert len(ranking.processes) == SHOWN
