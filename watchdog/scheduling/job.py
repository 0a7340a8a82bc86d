"""One periodic job: the grid of times at which it is due, its counters, and the edge that catches what a run raises."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from watchdog.clock import SECOND_NS, Clock


@dataclass(frozen=True, slots=True)
class ScheduledTick:
    """One run of a job, in ns of CLOCK_BOOTTIME: the point of the grid that it stands for, and when it really began.

    `missed`: points of the grid since the previous run that never had one.
    """

    planned_ns: int
    began_ns: int
    late_seconds: float
    missed: int


@dataclass(frozen=True, slots=True)
class JobCounters:
    """What became of a job's ticks since the daemon began.

    `overruns`: runs that took longer than the interval. `missed`: points of the grid that never had a run, those that
    pass while one is still going on included.
    """

    runs: int = 0
    errors: int = 0
    overruns: int = 0
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Grid:
    """The points in time at which a job is due: `anchor_ns` + n * `interval_ns`, by CLOCK_BOOTTIME."""

    anchor_ns: int
    interval_ns: int

    def index_at(self, boottime_ns: int) -> int:
        """Return the number of the last point at or before `boottime_ns`."""
        return (boottime_ns - self.anchor_ns) // self.interval_ns

    def time_ns_of(self, index: int) -> int:
        """Return when point `index` is, in ns of CLOCK_BOOTTIME."""
        return self.anchor_ns + index * self.interval_ns


class Job:
    """One job's function with its grid and counters: the edge at which whatever a tick raises is caught."""

    def __init__(
        self, name: str, function: Callable[[ScheduledTick], None], grid: Grid, clock: Clock, log: logging.Logger
    ) -> None:
        """Keep what to run and when; nothing runs before `run` is called."""
        self._name = name
        self._function = function
        self._clock = clock
        self._log = log
        self._lock = threading.Lock()
        self._grid = grid
        self._last: int | None = None  # the point of the grid that ran last
        self._counters = JobCounters()
        self._failed_in_a_row = 0

    @property
    def interval_ns(self) -> int:
        """Return how far the points of the grid are apart."""
        return self._grid.interval_ns

    def set_grid(self, grid: Grid) -> None:
        """Go by `grid` from now on, its point 0 taken as run."""
        with self._lock:
            self._counters = self._counted(missed=self._missed(self._clock.boottime_ns()))
            self._grid, self._last = grid, 0

    def counters(self) -> JobCounters:
        """Return what became of the ticks so far."""
        with self._lock:
            return self._counted(missed=self._missed(self._clock.boottime_ns()))

    def run(self) -> None:
        """Run the function for the point of the grid that is now, unless that point had its run already."""
        began_ns = self._clock.boottime_ns()
        tick = self._begin(began_ns)
        if tick is None:
            return
        failed, interval_ns = True, self.interval_ns
        try:
            self._function(tick)
            failed = False
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the edge: the next tick must come, whatever this one did
            self._tell_failure(error)
        overrun = self._clock.boottime_ns() - began_ns > interval_ns
        with self._lock:
            self._counters = self._counted(runs=1, errors=failed, overruns=overrun)
        if not failed:
            self._tell_recovery()

    def _begin(self, began_ns: int) -> ScheduledTick | None:
        # None if this point of the grid had its run: the alarm rang early, after a forward step.
        with self._lock:
            index = self._grid.index_at(began_ns)
            if self._last is not None and index <= self._last:
                return None
            missed = self._missed(began_ns)
            self._counters = self._counted(missed=missed)
            self._last = index
            planned_ns = self._grid.time_ns_of(index)
        return ScheduledTick(planned_ns, began_ns, (began_ns - planned_ns) / SECOND_NS, missed)

    def _missed(self, boottime_ns: int) -> int:
        return 0 if self._last is None else max(0, self._grid.index_at(boottime_ns) - self._last - 1)

    def _counted(self, *, runs: int = 0, errors: int = 0, overruns: int = 0, missed: int = 0) -> JobCounters:
        had = self._counters
        return JobCounters(had.runs + runs, had.errors + errors, had.overruns + overruns, had.missed + missed)

    def _tell_failure(self, error: BaseException) -> None:
        # A job that fails each second must not fill the log: told the 1st, 2nd, 4th, 8th, … time in a row.
        self._failed_in_a_row += 1
        if self._failed_in_a_row & (self._failed_in_a_row - 1) == 0:
            self._log.error("job %s failed, %d in a row", self._name, self._failed_in_a_row, exc_info=error)

    def _tell_recovery(self) -> None:
        if self._failed_in_a_row:
            self._log.warning("job %s works again after %d failures", self._name, self._failed_in_a_row)
            self._failed_in_a_row = 0
