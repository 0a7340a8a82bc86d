"""The rhythm by hand: ticks that take what the test says, on a scheduler that is a plain job."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from watchdog.clock import SECOND_NS
from watchdog.scheduling.job import Grid, Job
from watchdog.scheduling.tick_loop import TickLoop

LOG = logging.getLogger("test.rhythm")


class Beat:
    """Stands for scheduler and systemd; `tick` lets one interval pass."""

    def __init__(self, clock):
        self.clock = clock
        self.takes = 0.0
        self.missed = []
        self.told = []  # the intervals that systemd was told, in seconds
        self.meanwhile = lambda: None
        self.job = None
        self.rhythm = TickLoop(self, SimpleNamespace(set_watchdog_timeout=self.told.append), clock, LOG)

    def add_job(self, name, interval_ns, function):
        self.job = Job(name, function, Grid(self.clock.boottime_ns(), interval_ns), self.clock, LOG)

    def set_interval(self, _name, interval_ns):
        self.job.set_grid(Grid(self.clock.boottime_ns(), interval_ns))

    def look(self, tick):
        self.missed.append(tick.missed)
        self.clock.advance(self.takes)
        self.meanwhile()

    def ticks(self, count, takes):
        self.takes = takes
        for _ in range(count):
            self.clock.advance(max(0, self.job.interval_ns / SECOND_NS - takes))
            self.job.run()


@pytest.fixture
def beat(clock):
    beat = Beat(clock)
    beat.rhythm.start(beat.look, SECOND_NS)
    return beat


def test_a_host_too_large_for_its_interval_is_looked_at_less_often_and_told_so(beat, caplog):
    beat.ticks(3, takes=0.6)

    assert beat.job.interval_ns == 2 * SECOND_NS
    assert beat.told == [1, 2]
    assert caplog.messages == ["sampling took 0.60 s of a 1s interval: interval raised to 2s (configured: 1s)"]


def test_it_comes_back_and_says_so(beat, caplog):
    beat.ticks(3, takes=0.6)
    caplog.clear()
    beat.ticks(31, takes=0.1)  # the first comes before the new grid has a point

    assert beat.job.interval_ns == SECOND_NS
    assert beat.told == [1, 2, 1]
    assert caplog.messages == [
        "sampling took 0.10 s of a 2s interval: interval lowered to 1s (configured: 1s)",
    ]


def test_no_tick_counts_as_missed_because_of_the_change(beat):
    beat.ticks(10, takes=0.6)
    beat.ticks(100, takes=0.1)

    assert set(beat.missed) == {0}
    assert len(beat.missed) == 110 - 2  # two changes of the interval: each skips the rest of one interval


def test_a_reload_begins_anew_with_what_its_settings_ask_for(beat):
    beat.ticks(3, takes=0.6)
    beat.rhythm.change_interval(SECOND_NS)
    assert (beat.job.interval_ns, beat.told) == (SECOND_NS, [1, 2, 1])
    beat.rhythm.change_interval(5 * SECOND_NS)
    assert (beat.job.interval_ns, beat.told) == (5 * SECOND_NS, [1, 2, 1, 5])
    beat.rhythm.change_interval(5 * SECOND_NS)
    assert beat.told == [1, 2, 1, 5]


def test_a_tick_that_began_before_a_reload_says_nothing_of_what_comes_after_it(beat):
    beat.ticks(2, takes=0.6)
    beat.meanwhile = lambda: beat.rhythm.change_interval(SECOND_NS)
    beat.ticks(1, takes=0.6)
    beat.meanwhile = lambda: None
    beat.ticks(2, takes=0.6)

    assert beat.job.interval_ns == SECOND_NS


def test_ticks_longer_than_the_interval_raise_it_too(beat):
    beat.ticks(3, takes=1.5)

    assert beat.job.interval_ns == 2 * SECOND_NS
