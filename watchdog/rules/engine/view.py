"""Views: a snapshot's rows as one `by` groups and one `where` selects them, shared by all rules that agree in both."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from watchdog.measure.catalogue import METRICS, Kind
from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers, Snapshot
from watchdog.rules.engine.groups import Groups
from watchdog.rules.engine.selection import Mask, Selection
from watchdog.rules.engine.window import milliseconds
from watchdog.rules.language.rule import Condition


class Frame:
    """One snapshot seen through one `by`.

    `present`: the distinct slots in rising order; `local`: (n,) for each row the index into `present`.
    """

    def __init__(self, snapshot: Snapshot, present: Slots, local: Slots) -> None:
        """Keep all three."""
        self.snapshot = snapshot
        self.present = present
        self.local = local

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """Return the rows in rising order of their slots."""
        return np.argsort(self.local)

    @cached_property
    def ordered_slots(self) -> Slots:
        """Return the slots of the rows, in that order."""
        return self.present[self.local[self.order]]


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
        self.frame: Frame  # the newest snapshot, grouped; between `load` and `release` only
        self._mask: Mask | None = None

    def load(self, current: Frame, selection: Selection) -> None:
        """Take up the newest snapshot, already grouped."""
        self.frame = current
        self._mask = selection.mask(current.snapshot, self.where) if len(current.local) else None

    def release(self) -> None:
        """Forget the snapshot, so that its memory can go."""
        del self.frame
        self._mask = None

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
        frame = self.frame
        if not len(frame.local):
            return np.zeros(0)
        return np.bincount(frame.local[self._measuring(metric)], minlength=len(frame.present)).astype(np.float64)

    def samples(self, metric: str) -> tuple[Slots, Numbers]:
        """Return slot and value of each value of the distribution `metric`, in rising order of slots."""
        frame = self.frame
        if not len(frame.local):
            return np.zeros(0, dtype=np.int32), np.zeros(0)
        values = frame.snapshot.metrics[metric][frame.order]
        wanted = self._measuring(metric)[frame.order]
        if wanted.all():  # one array of slots for all metrics
            return frame.ordered_slots, values
        return frame.ordered_slots[wanted], values[wanted]

    def _measuring(self, metric: str) -> Mask:
        """Tell which rows have a value of the distribution `metric`."""
        wanted = ~np.isnan(self.frame.snapshot.metrics[metric])
        return wanted if self._mask is None else wanted & self._mask

    def level(self, metric: str) -> Numbers:
        """Return the value of this tick alone for each group present: counters per second, gauges as they are."""
        sums = self.sums(metric)
        if METRICS[metric].kind is Kind.GAUGE:
            return sums / max(milliseconds(self.frame.snapshot.elapsed_ns), 1)
        return sums / (max(self.frame.snapshot.elapsed_ns, 1) / 1e9)
