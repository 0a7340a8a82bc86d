"""One periodic job: the grid of its due times, and the edge that catches the exceptions of a run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from watchdog.clock import SECOND_NS, Clock


@dataclass(frozen=True, slots=True)
class ScheduledTick:
    """One run of a job.

    `planned_ns`: the grid point that it belongs to; `began_ns`: its actual start (both ns of CLOCK_BOOTTIME).
    `late_seconds`: the difference. `missed`: grid points since the previous run that had no run. `interval_ns`: between
    two grid points. `configured_ns`: the interval that the settings want, 0 if that is the same.
    """

    planned_ns: int
    began_ns: int
    late_seconds: float
    missed: int
    interval_ns: int = SECOND_NS
    configured_ns: int = 0

    @property
    def missed_configured(self) -> int:
        """Return the points of the configured grid since the previous run that had no run."""
        return max((self.missed + 1) * self.interval_ns // (self.configured_ns or self.interval_ns) - 1, 0)


@dataclass(frozen=True, slots=True)
class Grid:
    """The due times of a job: `anchor_ns` + n * `interval_ns`, in ns of CLOCK_BOOTTIME."""

    anchor_ns: int
    interval_ns: int

    def index_at(self, boottime_ns: int) -> int:
        """Return the number of the last point at or before `boottime_ns`."""
        return (boottime_ns - self.anchor_ns) // self.interval_ns

    def time_ns_of(self, index: int) -> int:
        """Return the time of point `index`."""
        return self.anchor_ns + index * self.interval_ns


class Job:
    """Calls a function for points of a grid, at most once per point. One thread at a time may be in `run`."""

    def __init__(
        self, name: str, function: Callable[[ScheduledTick], None], grid: Grid, clock: Clock, log: logging.Logger
    ) -> None:
        """Call `function`; log failures and recoveries to `log`."""
        self._name = name
        self._function = function
        self._grid = grid
        self._clock = clock
        self._log = log
        self._lock = threading.Lock()
        self._last: int | None = None  # index of the newest grid point that had a run
        self._failed_in_a_row = 0

    @property
    def interval_ns(self) -> int:
        """Return the time between two grid points."""
        return self._grid.interval_ns

    def set_grid(self, grid: Grid) -> None:
        """Use `grid` from now on; its point 0 counts as run."""
        with self._lock:
            self._grid, self._last = grid, 0

    def run(self) -> None:
        """Call the function for the present grid point, unless that point had its run already."""
        tick = self._begin(self._clock.boottime_ns())
        if tick is None:
            return
        try:
            self._function(tick)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the edge: the next tick must come after any failure
            self._log_failure(error)
        else:
            self._log_recovery()

    def _begin(self, began_ns: int) -> ScheduledTick | None:
        # None if this grid point had its run: the alarm was early, after a forward step of the wall clock.
        with self._lock:
            index = self._grid.index_at(began_ns)
            if self._last is not None and index <= self._last:
                return None
            missed = 0 if self._last is None else index - self._last - 1
            self._last = index
            planned_ns = self._grid.time_ns_of(index)
            interval_ns = self._grid.interval_ns
        return ScheduledTick(planned_ns, began_ns, (began_ns - planned_ns) / SECOND_NS, missed, interval_ns)

    def _log_failure(self, error: BaseException) -> None:
        # A job that fails each second must not fill the log: only the 1st, 2nd, 4th, 8th, … failure in a row is logged.
        self._failed_in_a_row += 1
        if self._failed_in_a_row & (self._failed_in_a_row - 1) == 0:
            self._log.error("job failed: job=%s in_a_row=%d", self._name, self._failed_in_a_row, exc_info=error)

    def _log_recovery(self) -> None:
        if self._failed_in_a_row:
            self._log.warning("job works again: job=%s failures=%d", self._name, self._failed_in_a_row)
            self._failed_in_a_row = 0
