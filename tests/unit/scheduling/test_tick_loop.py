"""The tick loop with ticks of given durations, on a fake scheduler with a real job."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from watchdog.clock import SECOND_NS
from watchdog.scheduling.job import Grid, Job
from watchdog.scheduling.tick_loop import TickLoop

LOG = logging.getLogger("test.rhythm")


class FakeScheduler:
    """Replaces scheduler and systemd; `ticks` runs ticks of a given duration."""

    def __init__(self, clock):
        self.clock = clock
        self.takes = 0.0
        self.missed = []
        self.missed_configured = []
        self.timeouts = []  # the watchdog timeouts set, in seconds
        self.during_tick = lambda: None
        self.job = None
        self.tick_loop = TickLoop(self, SimpleNamespace(set_watchdog_timeout=self.timeouts.append), clock, LOG)

    def add_job(self, name, interval_ns, function):
        self.job = Job(name, function, Grid(self.clock.boottime_ns(), interval_ns), self.clock, LOG)

    def set_interval(self, _name, interval_ns):
        self.job.set_grid(Grid(self.clock.boottime_ns(), interval_ns))

    def run_tick(self, tick):
        self.missed.append(tick.missed)
        self.missed_configured.append(tick.missed_configured)
        self.clock.advance(self.takes)
        self.during_tick()

    def ticks(self, count, takes):
        self.takes = takes
        for _ in range(count):
            self.clock.advance(max(0, self.job.interval_ns / SECOND_NS - takes))
            self.job.run()

    def run_for(self, seconds, takes):
        """Run the ticks that come within `seconds`, each a quarter of a second late at most."""
        self.takes = takes
        end_ns = self.clock.boottime_ns() + seconds * SECOND_NS
        while self.clock.boottime_ns() < end_ns:
            self.clock.advance(0.25)
            self.job.run()


@pytest.fixture
def scheduler(clock):
    scheduler = FakeScheduler(clock)
    scheduler.tick_loop.start(scheduler.run_tick, SECOND_NS)
    return scheduler


def test_long_ticks_raise_the_interval_and_that_is_logged(scheduler, caplog):
    scheduler.ticks(3, takes=0.6)

    assert scheduler.job.interval_ns == 2 * SECOND_NS
    assert scheduler.timeouts == [1, 2]
    assert caplog.messages == ["sampling took 0.60 s of a 1s interval: interval raised to 2s (configured: 1s)"]


def test_short_ticks_lower_the_interval_and_that_is_logged(scheduler, caplog):
    scheduler.ticks(3, takes=0.6)
    caplog.clear()
    scheduler.ticks(6, takes=0.1)  # the first one is before the next point of the new grid

    assert scheduler.job.interval_ns == SECOND_NS
    assert scheduler.timeouts == [1, 2, 1]
    assert caplog.messages == [
        "sampling took 0.10 s of a 2s interval: interval lowered to 1s (configured: 1s)",
    ]


def test_no_tick_counts_as_missed_because_of_the_change(scheduler):
    scheduler.ticks(10, takes=0.6)
    scheduler.ticks(100, takes=0.1)

    assert set(scheduler.missed) == {0}
    assert len(scheduler.missed) == 110 - 2  # two changes of the interval: each skips the rest of one interval


def test_a_raised_interval_counts_as_missed_ticks_of_the_configured_one(scheduler):
    scheduler.run_for(120, takes=3)
    assert scheduler.job.interval_ns == 8 * SECOND_NS
    assert (scheduler.missed[-1], scheduler.missed_configured[-1]) == (0, 7)
    scheduler.clock.advance(16)
    scheduler.job.run()
    assert (scheduler.missed[-1], scheduler.missed_configured[-1]) in {(1, 15), (2, 23)}


def test_the_interval_is_the_configured_one_within_twenty_seconds_of_the_last_long_tick(scheduler, clock):
    scheduler.run_for(300, takes=7)
    assert scheduler.job.interval_ns == 16 * SECOND_NS
    ended_ns = clock.boottime_ns()
    while scheduler.job.interval_ns > SECOND_NS:
        scheduler.run_for(0.25, takes=0.05)
    assert clock.boottime_ns() - ended_ns <= 20 * SECOND_NS


def test_a_reload_starts_with_its_configured_interval(scheduler):
    scheduler.ticks(3, takes=0.6)
    scheduler.tick_loop.change_interval(SECOND_NS)
    assert (scheduler.job.interval_ns, scheduler.timeouts) == (SECOND_NS, [1, 2, 1])
    scheduler.tick_loop.change_interval(5 * SECOND_NS)
    assert (scheduler.job.interval_ns, scheduler.timeouts) == (5 * SECOND_NS, [1, 2, 1, 5])
    scheduler.tick_loop.change_interval(5 * SECOND_NS)
    assert scheduler.timeouts == [1, 2, 1, 5]


def test_the_duration_of_a_tick_that_began_before_a_reload_does_not_count(scheduler):
    scheduler.ticks(2, takes=0.6)
    scheduler.during_tick = lambda: scheduler.tick_loop.change_interval(SECOND_NS)
    scheduler.ticks(1, takes=0.6)
    scheduler.during_tick = lambda: None
    scheduler.ticks(2, takes=0.6)

    assert scheduler.job.interval_ns == SECOND_NS


def test_ticks_longer_than_the_interval_raise_it_too(scheduler):
    scheduler.ticks(3, takes=1.5)

    assert scheduler.job.interval_ns == 2 * SECOND_NS
