"""The scheduler with real threads and APScheduler inside, under a wall clock that steps."""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from itertools import pairwise

import pytest

from watchdog.clock import SECOND_NS
from watchdog.scheduling.scheduler import Scheduler

LOG = logging.getLogger("test.scheduler")
INTERVAL_NS = SECOND_NS // 5  # long enough that a busy machine's pauses are less than one
PATIENCE_SECONDS = 60.0


class SteppedClock:
    """The host's clocks, with the wall clock shifted by `offset`."""

    def __init__(self) -> None:
        self.offset = 0.0

    def boottime_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        return time.time() + self.offset


class Ticks:
    """Collects ticks, and lets the test wait for them."""

    def __init__(self) -> None:
        self.seen = []
        self._came = threading.Condition()

    def __call__(self, tick) -> None:
        with self._came:
            self.seen.append(tick)
            self._came.notify_all()

    def wait_for_more(self, count: int) -> None:
        with self._came:
            target = len(self.seen) + count
            assert self._came.wait_for(lambda: len(self.seen) >= target, PATIENCE_SECONDS), f"{len(self.seen)} ticks"


@pytest.fixture
def clock(monkeypatch):
    clock = SteppedClock()

    class Datetime(dt.datetime):
        @classmethod
        def now(cls, tz=None):
            return dt.datetime.fromtimestamp(clock.wall(), tz)

    monkeypatch.setattr("apscheduler.schedulers.base.datetime", Datetime)
    return clock


@pytest.fixture
def scheduler(clock):
    scheduler = Scheduler(clock, LOG)
    yield scheduler
    scheduler.stop()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(0, -3_600, id="an hour back"),
        pytest.param(0, 3_600, id="an hour forward"),
        pytest.param(0, 7 * 86_400, id="a week forward"),
        pytest.param(0, 50 * 365 * 86_400, id="fifty years forward"),
        pytest.param(-int(time.time()), 0, id="from 1970 to now"),
    ],
)
def test_no_tick_is_missed_by_more_than_two_intervals_when_the_clock_steps(clock, scheduler, before, after):
    ticks = Ticks()
    clock.offset = before
    scheduler.add_job("sample", INTERVAL_NS, ticks)
    scheduler.start()
    ticks.wait_for_more(3)

    for share in (0.0, 0.3, 0.6, 0.9):  # of the way from one tick to the next
        time.sleep(share * INTERVAL_NS / SECOND_NS)
        clock.offset = after
        ticks.wait_for_more(3)
        clock.offset = before
        ticks.wait_for_more(3)

    gaps = [later.began_ns - earlier.began_ns for earlier, later in pairwise(ticks.seen)]
    # Two intervals, and one more for delays of a busy machine; without the clock watch it is an hour, or for ever.
    assert max(gaps) <= 3 * INTERVAL_NS
    points = [tick.planned_ns for tick in ticks.seen]
    assert points == sorted(set(points))
    gaps_in_points = [(b - a) // INTERVAL_NS - 1 for a, b in pairwise(points)]
    assert [tick.missed for tick in ticks.seen[1:]] == gaps_in_points


def test_a_job_added_while_the_clock_is_wrong_runs_at_once_and_goes_on(clock, scheduler):
    ticks = Ticks()
    scheduler.start()
    clock.offset = 10**8
    scheduler.add_job("sample", INTERVAL_NS, ticks)
    clock.offset = 0
    ticks.wait_for_more(3)


def test_a_job_that_hangs_delays_neither_the_others_nor_the_stop(clock):
    scheduler, ticks = Scheduler(clock, LOG), Ticks()
    release, started = threading.Event(), []

    def hang(tick):
        started.append(tick)
        release.wait()

    scheduler.add_job("hangs", INTERVAL_NS, hang)
    scheduler.add_job("sample", INTERVAL_NS, ticks)
    scheduler.start()
    ticks.wait_for_more(5)
    began = time.monotonic()
    left = scheduler.stop(grace_seconds=0.5)
    took = time.monotonic() - began
    release.set()

    assert len(started) == 1
    assert left == ("hangs",)
    assert took < 1.5  # the grace, and time for a busy machine


def test_after_stop_no_job_begins(clock):
    scheduler, ticks = Scheduler(clock, LOG), Ticks()
    scheduler.add_job("sample", INTERVAL_NS, ticks)
    scheduler.start()
    ticks.wait_for_more(1)

    assert scheduler.stop() == ()
    count = len(ticks.seen)
    time.sleep(2.5 * INTERVAL_NS / SECOND_NS)
    assert len(ticks.seen) == count


def test_a_longer_interval_is_kept_from_then_on(clock, scheduler):
    ticks = Ticks()
    scheduler.add_job("sample", INTERVAL_NS, ticks)
    scheduler.start()
    ticks.wait_for_more(2)
    scheduler.set_interval("sample", 3 * INTERVAL_NS)
    before = len(ticks.seen)
    ticks.wait_for_more(3)

    later = [tick.planned_ns for tick in ticks.seen[before + 1 :]]
    assert all((b - a) % (3 * INTERVAL_NS) == 0 for a, b in pairwise(later))


def test_a_job_keeps_its_thread(scheduler):
    threads = set()
    ticks = Ticks()

    def job(tick):
        threads.add(threading.current_thread().name)
        ticks(tick)

    scheduler.add_job("sample", INTERVAL_NS, job)
    scheduler.start()
    ticks.wait_for_more(3)

    assert threads == {"job sample"}


def test_apscheduler_logs_nothing_of_its_own(scheduler, caplog):
    caplog.set_level(logging.DEBUG)
    ticks = Ticks()

    def slow(_tick):
        time.sleep(2.5 * INTERVAL_NS / SECOND_NS)

    scheduler.add_job("slow", INTERVAL_NS, slow)
    scheduler.add_job("sample", INTERVAL_NS, ticks)
    scheduler.start()
    ticks.wait_for_more(4)

    assert caplog.records == []
