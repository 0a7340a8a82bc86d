"""Views: a snapshot's rows as one `by` groups and one `where` selects them, shared by all rules that agree in both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from watchdog.measure.catalogue import METRICS, Kind
from watchdog.measure.snapshot import Numbers, Snapshot
from watchdog.rules.groups import Groups, Slots
from watchdog.rules.schema import Condition
from watchdog.rules.select import Mask, Selection
from watchdog.rules.window import milliseconds


@dataclass(frozen=True, slots=True)
class Frame:
    """One snapshot seen through one `by`: for each row the index into `present`, the distinct slots in rising order."""

    snapshot: Snapshot
    present: Slots
    local: Slots


def frame(groups: Groups, snapshot: Snapshot, silent_ns: int) -> Frame:
    """Give every row its group. A snapshot without measured time is a baseline: its rows measure nothing."""
    if not snapshot.elapsed_ns:
        nothing = np.zeros(0, dtype=np.int32)
        return Frame(snapshot, nothing, nothing)
    slots = groups.assign(snapshot, silent_ns)
    seen = np.zeros(groups.size, dtype=np.bool_)
    seen[slots] = True
    present = np.flatnonzero(seen).astype(np.int32)
    position = np.zeros(groups.size, dtype=np.int32)
    position[present] = np.arange(len(present), dtype=np.int32)
    return Frame(snapshot, present, position[slots])


class View:
    """The rows of the newest snapshot under one `by` and one `where`."""

    def __init__(self, groups: Groups, where: tuple[Condition, ...]) -> None:
        """Start without a snapshot."""
        self.groups = groups
        self.where = where
        self._frame: Frame | None = None
        self._mask: Mask | None = None

    def load(self, current: Frame, selection: Selection) -> None:
        """Take up the newest snapshot, already grouped."""
        self._frame = current
        self._mask = selection.mask(current.snapshot, self.where) if len(current.local) else None

    def release(self) -> None:
        """Forget the snapshot, so that its memory can go."""
        self._frame = self._mask = None

    @property
    def frame(self) -> Frame:
        """Return the newest snapshot, grouped; between `load` and `release` only."""
        if self._frame is None:
            msg = "no snapshot is loaded"
            raise RuntimeError(msg)
        return self._frame

    def sums(self, metric: str) -> Numbers:
        """Return one whole number for each group present.

        Counters: the sum of changes; gauges: the sum of values times the tick's weight; distributions: the sum in ns.
        """
        frame = self.frame
        if not len(frame.local):
            return np.zeros(0)
        column = frame.snapshot.metrics[metric]
        match METRICS[metric].kind:
            case Kind.DISTRIBUTION:
                column = np.rint(np.nan_to_num(column) * 1e9)
            case Kind.GAUGE:
                column = column * milliseconds(frame.snapshot.elapsed_ns)
            case Kind.COUNTER:
                pass
        if self._mask is not None:
            column = column * self._mask
        return np.asarray(np.bincount(frame.local, weights=column, minlength=len(frame.present)), dtype=np.float64)

    def counts(self, metric: str) -> Numbers:
        """Return how many values of the distribution `metric` each group present has."""
        rows = self._measuring(metric)
        return np.bincount(self.frame.local[rows], minlength=len(self.frame.present)).astype(np.float64)

    def samples(self, metric: str) -> tuple[Slots, Numbers]:
        """Return slot and value of each value of the distribution `metric`."""
        frame, rows = self.frame, self._measuring(metric)
        return frame.present[frame.local[rows]], frame.snapshot.metrics[metric][rows]

    def _measuring(self, metric: str) -> NDArray[np.intp]:
        """Return the rows that have a value of the distribution `metric`."""
        if not len(self.frame.local):
            return np.zeros(0, dtype=np.intp)
        wanted = ~np.isnan(self.frame.snapshot.metrics[metric])
        return np.flatnonzero(wanted if self._mask is None else wanted & self._mask)

    def level(self, metric: str) -> Numbers:
        """Return the value of this tick alone for each group present: counters per second, gauges as they are."""
        sums = self.sums(metric)
        if METRICS[metric].kind is Kind.GAUGE:
            return sums / max(milliseconds(self.frame.snapshot.elapsed_ns), 1)
        return sums / (max(self.frame.snapshot.elapsed_ns, 1) / 1e9)
