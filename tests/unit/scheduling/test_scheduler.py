"""The trigger that replaces APScheduler's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from watchdog.clock import SECOND_NS
from watchdog.scheduling.job import Grid
from watchdog.scheduling.scheduler import GridTrigger

ROUNDING = timedelta(microseconds=2)


def now(clock) -> datetime:
    return datetime.fromtimestamp(clock.wall(), UTC)


@pytest.fixture
def trigger(clock):
    return GridTrigger(clock, Grid(clock.boottime_ns(), SECOND_NS))


@pytest.mark.parametrize(("passed", "ahead"), [(0, 1), (0.25, 0.75), (0.999, 0.001), (1, 1), (12_345.5, 0.5)])
def test_it_names_the_next_point_of_the_grid(clock, trigger, passed, ahead):
    clock.advance(passed)

    assert trigger.get_next_fire_time(None, now(clock)) == now(clock) + timedelta(seconds=ahead) + ROUNDING


@pytest.mark.parametrize("step", [-3_600, 3_600, 7 * 86_400, -1_749_999_000, 50 * 365 * 86_400])
def test_a_step_of_the_wall_clock_neither_delays_nor_hastens_the_next_point(clock, trigger, step):
    before = now(clock)
    clock.step(step)
    clock.advance(0.25)

    assert trigger.get_next_fire_time(before, now(clock)) == now(clock) + timedelta(seconds=0.75) + ROUNDING


def test_its_answer_is_later_than_now_even_if_the_clock_stepped_back_after_now_was_read(clock, trigger):
    read = now(clock)
    clock.step(-3_600)

    assert trigger.get_next_fire_time(None, read) == read + timedelta(milliseconds=1)
