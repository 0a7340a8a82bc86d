"""One job without a scheduler: its grid, and its handling of failures."""

from __future__ import annotations

import logging

import pytest

from watchdog.clock import SECOND_NS
from watchdog.scheduling.job import Grid, Job, ScheduledTick

LOG = logging.getLogger("test.job")


@pytest.fixture
def ticks():
    return []


@pytest.fixture
def make(clock):
    def make(function) -> Job:
        return Job("sample", function, Grid(clock.boottime_ns(), SECOND_NS), clock, LOG)

    return make


def test_a_tick_belongs_to_the_last_point_of_the_grid_and_has_its_delay(clock, make, ticks):
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
    assert [tick.missed for tick in ticks] == [0, 0]


def test_the_next_tick_has_the_number_of_points_without_a_run(clock, make, ticks):
    job = make(ticks.append)
    job.run()
    clock.advance(7.5)
    job.run()
    clock.advance(1)
    job.run()

    assert [tick.missed for tick in ticks] == [0, 6, 0]
    assert len(ticks) == 3


def test_steps_of_the_wall_clock_do_not_affect_ticks(clock, make, ticks):
    job = make(ticks.append)
    job.run()
    clock.step(-3_600)
    clock.advance(1)
    job.run()
    clock.step(86_400 * 7)
    clock.advance(1)
    job.run()

    assert [(tick.planned_ns // SECOND_NS, tick.missed) for tick in ticks] == [(1_000, 0), (1_001, 0), (1_002, 0)]


@pytest.mark.parametrize(("takes", "missed"), [(1, 0), (1.001, 0), (2, 1), (5.5, 4)])
def test_points_that_pass_during_a_run_are_missed_by_the_next_tick(clock, make, ticks, takes, missed):
    def work(tick):
        ticks.append(tick)
        clock.advance(takes)

    job = make(work)
    job.run()
    job.run()

    assert [tick.missed for tick in ticks] == [0, missed]


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3), MemoryError()])
def test_after_any_exception_of_a_run_the_next_one_comes(clock, make, ticks, caplog, error):
    def fail_once(tick):
        ticks.append(tick)
        if len(ticks) == 1:
            raise error

    job = make(fail_once)
    job.run()
    clock.advance(1)
    job.run()

    assert len(ticks) == 2
    assert caplog.messages == ["job failed: job=sample in_a_row=1", "job works again: job=sample failures=1"]


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
        *(f"job failed: job=sample in_a_row={count}" for count in (1, 2, 4, 8, 16, 32, 64)),
        "job works again: job=sample failures=100",
    ]
    assert caplog.records[0].exc_info[0] is ValueError


def test_point_0_of_another_grid_counts_as_run(clock, make, ticks):
    job = make(ticks.append)
    job.run()
    clock.advance(3.5)
    job.set_grid(Grid(clock.boottime_ns(), 10 * SECOND_NS))
    job.run()
    clock.advance(10)
    job.run()

    assert [(tick.planned_ns, tick.missed) for tick in ticks] == [(1_000 * SECOND_NS, 0), (1_013_500_000_000, 0)]
    assert ticks[1].late_seconds == 0
