"""One job by hand: its grid, its counters, and what it does with failures."""

from __future__ import annotations

import logging

import pytest

from watchdog.clock import SECOND_NS
from watchdog.scheduling.job import Grid, Job, JobCounters, ScheduledTick

LOG = logging.getLogger("test.job")


@pytest.fixture
def ticks():
    return []


@pytest.fixture
def make(clock):
    def make(function) -> Job:
        return Job("sample", function, Grid(clock.boottime_ns(), SECOND_NS), clock, LOG)

    return make


def test_a_tick_stands_for_the_last_point_of_the_grid_and_knows_how_late_it_is(clock, make, ticks):
    job = make(ticks.append)
    clock.advance(3.25)
    job.run()

    assert ticks == [ScheduledTick(1_003 * SECOND_NS, 1_003_250_000_000, 0.25, 0)]


def test_a_point_of_the_grid_has_one_run_at_most(clock, make, ticks):
    job = make(ticks.append)
    job.run()
    clock.advance(0.9)
    job.run()
    clock.advance(0.1)
    job.run()

    assert [tick.planned_ns // SECOND_NS for tick in ticks] == [1_000, 1_001]
    assert job.counters() == JobCounters(runs=2)


def test_points_without_a_run_are_counted_as_missed_and_told_to_the_next_tick(clock, make, ticks):
    job = make(ticks.append)
    job.run()
    clock.advance(7.5)
    job.run()
    clock.advance(1)
    job.run()

    assert [tick.missed for tick in ticks] == [0, 6, 0]
    assert job.counters() == JobCounters(runs=3, missed=6)


def test_the_wall_clock_is_nothing_to_a_tick(clock, make, ticks):
    job = make(ticks.append)
    job.run()
    clock.step(-3_600)
    clock.advance(1)
    job.run()
    clock.step(86_400 * 7)
    clock.advance(1)
    job.run()

    assert [(tick.planned_ns // SECOND_NS, tick.missed) for tick in ticks] == [(1_000, 0), (1_001, 0), (1_002, 0)]


def test_ticks_that_pass_while_a_run_goes_on_show_before_it_ends(clock, make):
    seen = []

    def hang(_tick):
        clock.advance(5.5)
        seen.append(job.counters())

    job = make(hang)
    job.run()

    assert seen == [JobCounters(missed=4)]


def test_a_run_longer_than_the_interval_is_an_overrun(clock, make):
    job = make(lambda _tick: clock.advance(1.001))
    job.run()

    assert job.counters() == JobCounters(runs=1, overruns=1)


def test_a_run_as_long_as_the_interval_is_none(clock, make):
    job = make(lambda _tick: clock.advance(1))
    job.run()

    assert job.counters() == JobCounters(runs=1)


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3), MemoryError()])
def test_whatever_a_run_raises_is_counted_and_the_next_one_comes(clock, make, ticks, error):
    def fail_once(tick):
        ticks.append(tick)
        if len(ticks) == 1:
            raise error

    job = make(fail_once)
    job.run()
    clock.advance(1)
    job.run()

    assert len(ticks) == 2
    assert job.counters() == JobCounters(runs=2, errors=1)


def test_a_job_that_keeps_failing_is_logged_ever_more_rarely_and_its_recovery_once(clock, make, caplog):
    broken = True

    def fail(_tick):
        if broken:
            raise ValueError("broken")

    job = make(fail)
    for _ in range(100):
        job.run()
        clock.advance(1)
    broken = False
    job.run()
    clock.advance(1)
    job.run()

    assert [record.getMessage() for record in caplog.records] == [
        *(f"job sample failed, {count} in a row" for count in (1, 2, 4, 8, 16, 32, 64)),
        "job sample works again after 100 failures",
    ]
    assert caplog.records[0].exc_info[0] is ValueError


def test_another_grid_keeps_the_counters_and_takes_its_first_point_as_run(clock, make, ticks):
    job = make(ticks.append)
    job.run()
    clock.advance(3.5)
    job.set_grid(Grid(clock.boottime_ns(), 10 * SECOND_NS))
    job.run()
    clock.advance(10)
    job.run()

    assert [(tick.planned_ns, tick.missed) for tick in ticks] == [(1_000 * SECOND_NS, 0), (1_013_500_000_000, 0)]
    assert job.counters() == JobCounters(runs=2, missed=2)
