"""The rows of a snapshot: those of the changes, then the idle connections, then one row per response."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from watchdog.measure.catalogue import METRICS, MetricKind
from watchdog.measure.deltas import Changes
from watchdog.measure.live_rows import LiveRows
from watchdog.measure.snapshot import Numbers

_Value = TypeVar("_Value", bound=np.generic)


class LazyColumns(Mapping[str, "NDArray[_Value]"], Generic[_Value]):
    """Columns by name, each made when it is first used: most rules use few of them. Use them in their tick only."""

    def __init__(self, makers: Mapping[str, Callable[[], NDArray[_Value]]]) -> None:
        """Make the columns by `makers`."""
        self._makers = makers
        self._columns: dict[str, NDArray[_Value]] = {}

    def __getitem__(self, name: str) -> NDArray[_Value]:
        """Return a column, made now if it is the first use."""
        if name not in self._columns:
            self._columns[name] = self._makers[name]()
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._makers)

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self._makers)


class SnapshotRows:
    """Joins the three parts."""

    def __init__(self, changes: Changes, live: LiveRows) -> None:
        """Join the rows of `changes`, the watchdog's own row included, and the idle ones of `live`."""
        self._changes = changes
        self._live = live
        idle, responses = live.idle_positions(), changes.responses
        self.idle_start = len(changes.rows)
        """The index of the first idle connection."""
        self.response_start = self.idle_start + len(idle)
        """The index of the first response."""
        of_idle = self.idle_start + np.searchsorted(idle, responses.live)
        self.response_rows = np.concatenate([responses.rows, of_idle])
        """(r,), the row of the connection of each response."""

    def join(self, changed: NDArray[_Value], idle: NDArray[_Value]) -> NDArray[_Value]:
        """Return one column of all rows from its first two parts."""
        both = np.concatenate([changed, idle]) if len(idle) else changed
        return np.concatenate([both, both[self.response_rows]]) if len(self.response_rows) else both

    def metric(self, name: str) -> Numbers:
        """Return the values of a metric in all rows."""
        changed = self._changes.metrics[name]
        count = self.response_start + len(self.response_rows)
        if count == len(changed):
            return changed
        column = np.full(count, np.nan) if METRICS[name].kind is MetricKind.DISTRIBUTION else np.zeros(count)
        column[: self.idle_start] = changed
        idle = self._live.idle_metric(name)
        if idle is not None:
            column[self.idle_start : self.response_start] = idle
        if name == "response_latency":
            responses = self._changes.responses
            column[self.response_start :] = np.concatenate([responses.seconds, responses.live_seconds])
        return column
