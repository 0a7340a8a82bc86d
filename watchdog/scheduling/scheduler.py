"""Runs jobs on grids of CLOCK_BOOTTIME, independent of the wall clock. Only this module imports APScheduler.

APScheduler sets its alarms by the wall clock. With its own interval trigger, a backward step of that clock stops jobs
for the size of the step, and a forward step makes it list every run that it takes for missed, up to exhausting memory
(agronholm/apscheduler issues 351, 526, 1066). Therefore the trigger here only returns the next point of a grid, and the
clock watch compares each alarm with its grid and sets it again after a step.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue

from apscheduler.executors.base import BaseExecutor
from apscheduler.job import Job as Alarm
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from watchdog.clock import SECOND_NS, Clock
from watchdog.scheduling.job import Grid, Job, ScheduledTick
from watchdog.thread_edge import ThreadEdge

__all__ = ["GridTrigger", "ScheduledTick", "Scheduler"]

_MAX_WATCH_INTERVAL_SECONDS = 1.0  # longest time until a clock step is detected
_MAX_LATE = timedelta(seconds=1)  # a later alarm is set again; half an interval, if that is less


class GridTrigger(BaseTrigger):
    """Returns the next point of the grid after now, by the present wall clock; ignores missed points."""

    def __init__(self, clock: Clock, grid: Grid) -> None:
        """Use `grid`; `clock` relates it to the wall clock at each call."""
        self._clock = clock
        self._grid = grid

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:  # noqa: ARG002 - signature of APScheduler
        """Return the wall-clock time of the next point, always later than `now`.

        It is later even if the clock stepped back after `now` was read: APScheduler calls again until it is.
        """
        boottime_ns = self._clock.boottime_ns()
        ahead_ns = self._grid.time_ns_of(self._grid.index_at(boottime_ns) + 1) - boottime_ns
        # Rounded up: an alarm one microsecond early would wake the thread for nothing.
        alarm = _wall(self._clock) + timedelta(microseconds=ahead_ns // 1000 + 2)
        return max(alarm, now + timedelta(milliseconds=1))


class Scheduler:
    """Runs each job in its own thread, at most once per point of its grid, from `start` until `stop`."""

    def __init__(self, clock: Clock, log: logging.Logger) -> None:
        """Create a scheduler without jobs; log failing jobs and clock steps to `log`."""
        self._clock = clock
        self._log = log
        self._jobs: dict[str, Job] = {}
        self._threads = _JobThreads()
        self._stopping = threading.Event()
        self._clock_watch = threading.Thread(target=self._watch_clock, name="clock-watch", daemon=True)
        # It warns at every tick while the job is still running; the metric of missed ticks shows the same.
        quiet = log.getChild("apscheduler")
        quiet.setLevel(logging.ERROR)
        self._scheduler = BackgroundScheduler(timezone=UTC, executors={"default": self._threads}, logger=quiet)

    def add_job(self, name: str, interval_ns: int, function: Callable[[ScheduledTick], None]) -> None:
        """Call `function` every `interval_ns`, the first time at once (at `start`, if that comes later)."""
        grid = Grid(self._clock.boottime_ns(), interval_ns)
        self._jobs[name] = Job(name, function, grid, self._clock, self._log)
        self._scheduler.add_job(
            self._jobs[name].run,
            trigger=GridTrigger(self._clock, grid),
            id=name,
            name=name,
            next_run_time=_wall(self._clock),
            misfire_grace_time=None,  # a late tick is better than none; APScheduler's default drops it after 1 s
            coalesce=True,
            max_instances=1,
        )

    def set_interval(self, name: str, interval_ns: int) -> None:
        """Run job `name` every `interval_ns` from now on; the next run is one interval from now."""
        grid = Grid(self._clock.boottime_ns(), interval_ns)
        self._jobs[name].set_grid(grid)
        self._scheduler.reschedule_job(name, trigger=GridTrigger(self._clock, grid))

    def start(self) -> None:
        """Start to run the jobs."""
        self._scheduler.start()
        self._clock_watch.start()

    def stop(self, grace_seconds: float = 1.0) -> tuple[str, ...]:
        """Start no more runs and wait for the present ones; return the jobs that still run after `grace_seconds`.

        Their threads are daemon threads, which do not keep the process alive.
        """
        self._stopping.set()
        self._clock_watch.join()
        self._scheduler.shutdown(wait=False)
        return self._threads.join(grace_seconds)

    def _watch_clock(self) -> None:
        edge = ThreadEdge("clock-watch")
        while not self._stopping.wait(self._watch_interval_seconds()):
            with edge.step():
                for alarm in self._scheduler.get_jobs():
                    self._check(alarm)
        edge.end()

    def _watch_interval_seconds(self) -> float:
        shortest = min((job.interval_ns for job in list(self._jobs.values())), default=SECOND_NS)
        return min(_MAX_WATCH_INTERVAL_SECONDS, shortest / SECOND_NS / 2)

    def _check(self, alarm: Alarm) -> None:
        # Read before the grid: otherwise the alarm of the next tick could look like one of this tick that is too late.
        alarm_time = alarm.next_run_time
        now = _wall(self._clock)
        late = alarm_time - alarm.trigger.get_next_fire_time(None, now)
        # An alarm that is too early does no harm: the job finds that this grid point had its run.
        if alarm_time <= now:
            # Due: after a forward step, or after a suspend, which the thread's CLOCK_MONOTONIC does not count.
            self._scheduler.wakeup()
        elif late > min(_MAX_LATE, timedelta(microseconds=self._jobs[alarm.id].interval_ns / 2000)):
            self._log.warning(
                "wall clock stepped back, job scheduled again: job=%s step=%.3fs", alarm.id, late.total_seconds()
            )
            self._scheduler.modify_job(alarm.id, next_run_time=alarm_time - late)


class _JobThreads(BaseExecutor):
    """An executor with a daemon thread per job: a job that hangs delays neither other jobs nor the end of the process.

    The interpreter joins the threads of APScheduler's own pool at its end, without a limit. A thread per job also
    allows a job to own an object that is bound to a thread, such as an SQLite connection.
    """

    def __init__(self) -> None:
        super().__init__()
        self._threads: dict[str, threading.Thread] = {}
        self._queues: dict[str, SimpleQueue[Callable[[], None] | None]] = {}

    def _do_submit_job(self, alarm: Alarm, run_times: Sequence[datetime]) -> None:  # noqa: ARG002 - signature of APScheduler
        if alarm.id not in self._threads:
            self._queues[alarm.id] = SimpleQueue()
            thread = threading.Thread(target=self._work, args=(alarm.id,), name=f"job {alarm.id}", daemon=True)
            thread.start()  # RuntimeError, where the host has no thread: tried again at the job's next time
            self._threads[alarm.id] = thread
        self._queues[alarm.id].put(alarm.func)

    def _work(self, name: str) -> None:
        for run in iter(self._queues[name].get, None):
            run()
            self._run_job_success(name, [])

    def shutdown(self, wait: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002 - signature of APScheduler
        for queue in list(self._queues.values()):
            queue.put(None)

    def join(self, grace_seconds: float) -> tuple[str, ...]:
        """Wait at most `grace_seconds` for all threads to end; return the jobs of those that did not."""
        deadline = time.monotonic() + grace_seconds
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        return tuple(name for name, thread in self._threads.items() if thread.is_alive())


def _wall(clock: Clock) -> datetime:
    return datetime.fromtimestamp(clock.wall(), UTC)
