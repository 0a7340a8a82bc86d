"""Run the daemon's jobs on grids of CLOCK_BOOTTIME, whatever the wall clock does. Only this module imports APScheduler.

APScheduler keeps its alarms by the wall clock. With its own interval trigger, jobs rest for the size of a backward
step, and a forward step makes it list every run that it believes missed, up to exhausting memory
(agronholm/apscheduler issues 351, 526, 1066). Hence: a trigger that only ever names the next point of a grid, and a
pacemaker that compares each alarm with where the grid puts it and sets it anew after a step.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue

from apscheduler.executors.base import BaseExecutor
from apscheduler.job import Job as Alarm
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from watchdog.clock import SECOND_NS, Clock
from watchdog.scheduling.job import Grid, Job, JobCounters, ScheduledTick

__all__ = ["GridTrigger", "JobCounters", "ScheduledTick", "Scheduler"]

_MAX_WATCH_INTERVAL_SECONDS = 1.0  # how long a clock step may stay unseen when all intervals are long
_MOST_LATE = timedelta(seconds=1)  # an alarm this late is set anew; half an interval, if that is less


class GridTrigger(BaseTrigger):
    """Name the next point of the grid after now, by the wall clock of now; never look back at what was missed."""

    def __init__(self, clock: Clock, grid: Grid) -> None:
        """Keep the grid; `clock` relates it to the wall clock, anew at each call."""
        self._clock = clock
        self._grid = grid

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:  # noqa: ARG002 - theirs
        """Return the wall-clock time of the next point, always later than `now`.

        Later even when the clock stepped back since `now` was read: APScheduler asks again until it is.
        """
        boottime_ns = self._clock.boottime_ns()
        ahead_ns = self._grid.time_ns_of(self._grid.index_at(boottime_ns) + 1) - boottime_ns
        # Rounded up: an alarm a microsecond early would wake up for nothing.
        alarm = _wall(self._clock) + timedelta(microseconds=ahead_ns // 1000 + 2)
        return max(alarm, now + timedelta(milliseconds=1))


class Scheduler:
    """Runs each job in a thread of its own, once per point of its grid at most, from `start` until `stop`."""

    def __init__(self, clock: Clock, log: logging.Logger) -> None:
        """Make a scheduler without jobs; `log` hears of failing jobs and stepped clocks."""
        self._clock = clock
        self._log = log
        self._jobs: dict[str, Job] = {}
        self._threads = _JobThreads()
        self._stopping = threading.Event()
        self._clock_watch = threading.Thread(target=self._watch_clock, name="pacemaker", daemon=True)
        # It warns of every tick that finds the job still running; Counters tell that better.
        quiet = log.getChild("apscheduler")
        quiet.setLevel(logging.ERROR)
        self._scheduler = BackgroundScheduler(timezone=UTC, executors={"default": self._threads}, logger=quiet)

    def add_job(self, name: str, interval_ns: int, function: Callable[[ScheduledTick], None]) -> None:
        """Run `job` every `interval_ns`, the first time at once (at `start`, if that is still to come)."""
        grid = Grid(self._clock.boottime_ns(), interval_ns)
        self._jobs[name] = Job(name, function, grid, self._clock, self._log)
        self._scheduler.add_job(
            self._jobs[name].run,
            trigger=GridTrigger(self._clock, grid),
            id=name,
            name=name,
            next_run_time=_wall(self._clock),
            misfire_grace_time=None,  # a late tick is better than none; the default drops it after 1 s
            coalesce=True,
            max_instances=1,
        )

    def set_interval(self, name: str, interval_ns: int) -> None:
        """Run job `name` every `interval_ns` from now on, next after one such interval."""
        grid = Grid(self._clock.boottime_ns(), interval_ns)
        self._jobs[name].set_grid(grid)
        self._scheduler.reschedule_job(name, trigger=GridTrigger(self._clock, grid))

    def start(self) -> None:
        """Begin to run jobs."""
        self._scheduler.start()
        self._clock_watch.start()

    def stop(self, grace_seconds: float = 1.0) -> tuple[str, ...]:
        """Start no more ticks and wait for running ones; return the jobs that still run after `grace_seconds`.

        Those are left behind in their threads, which don't keep the process from ending.
        """
        self._stopping.set()
        self._clock_watch.join()
        self._scheduler.shutdown(wait=False)
        return self._threads.join(grace_seconds)

    def job_counters(self) -> Mapping[str, JobCounters]:
        """Return each job's counters by its name."""
        return {name: job.counters() for name, job in self._jobs.items()}

    def _watch_clock(self) -> None:
        while not self._stopping.wait(self._watch_interval_seconds()):
            for alarm in self._scheduler.get_jobs():
                self._check(alarm)

    def _watch_interval_seconds(self) -> float:
        shortest = min((job.interval_ns for job in list(self._jobs.values())), default=SECOND_NS)
        return min(_MAX_WATCH_INTERVAL_SECONDS, shortest / SECOND_NS / 2)

    def _check(self, alarm: Alarm) -> None:
        # Read before the grid is: read after it, the next tick's alarm could be taken for this one's, set too late.
        rings = alarm.next_run_time
        now = _wall(self._clock)
        late = rings - alarm.trigger.get_next_fire_time(None, now)
        # An alarm that is too early needs no care: its job finds that this point of the grid had its run.
        if rings <= now:
            # Due: after a forward step, or after a suspend, which the clock that the thread waits by does not count.
            self._scheduler.wakeup()
        elif late > min(_MOST_LATE, timedelta(microseconds=self._jobs[alarm.id].interval_ns / 2000)):
            self._log.warning("the wall clock stepped back: job %s set %.3f s earlier", alarm.id, late.total_seconds())
            self._scheduler.modify_job(alarm.id, next_run_time=rings - late)


class _JobThreads(BaseExecutor):
    """An executor with one daemon thread per job, so that a job that hangs holds up neither the others nor the end.

    The pool that comes with APScheduler has its threads joined when the interpreter ends, for ever if need be.
    A thread per job also means that what belongs to a thread (an SQLite connection) can belong to a job.
    """

    def __init__(self) -> None:
        super().__init__()
        self._threads: dict[str, threading.Thread] = {}
        self._orders: dict[str, SimpleQueue[Callable[[], None] | None]] = {}

    def _do_submit_job(self, alarm: Alarm, run_times: Sequence[datetime]) -> None:  # noqa: ARG002 - theirs
        if alarm.id not in self._threads:
            self._orders[alarm.id] = SimpleQueue()
            self._threads[alarm.id] = threading.Thread(
                target=self._work, args=(alarm.id,), name=f"job {alarm.id}", daemon=True
            )
            self._threads[alarm.id].start()
        self._orders[alarm.id].put(alarm.func)

    def _work(self, name: str) -> None:
        for run in iter(self._orders[name].get, None):
            run()
            self._run_job_success(name, [])

    def shutdown(self, wait: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002 - theirs
        for orders in list(self._orders.values()):
            orders.put(None)

    def join(self, grace_seconds: float) -> tuple[str, ...]:
        """Wait for the threads to end, `grace_seconds` in all; return the jobs of those that did not."""
        deadline = time.monotonic() + grace_seconds
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        return tuple(name for name, thread in self._threads.items() if thread.is_alive())


def _wall(clock: Clock) -> datetime:
    return datetime.fromtimestamp(clock.wall(), UTC)
