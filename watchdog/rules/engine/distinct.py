"""`distinct:<dimension>`: the number of different values of a dimension in a window, by group.

A value counts while a row with it was seen in the window: a row that meets `where` and has something of the metric
(not 0; of a distribution, a value). Pairs of group and value are kept with the time at which they were last seen, so
that the number is exact for every window. Processes and their peers can make new values without end: a group has at
most `MAX_DISTINCT`, all groups of one metric at most `MAX_PAIRS`. What exceeds them, and values that are lost, make the
number a lower bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from watchdog.measure.catalogue import ABSENT_CODE, METRICS, OTHER_CODE, Unit
from watchdog.measure.slot_table import NO_SLOT, Slots, SlotTable
from watchdog.measure.snapshot import Codes, Numbers
from watchdog.rules.engine.aggregations import MetricReading
from watchdog.rules.engine.arithmetic import Bounds
from watchdog.rules.engine.groups import UNGROUPED_SLOT
from watchdog.rules.engine.missing import NOTHING_MISSING, MissingAmounts, MissingSum
from watchdog.rules.engine.selection import Mask
from watchdog.rules.engine.view import View
from watchdog.rules.engine.window import RecentTicks, TickValues, WindowCoverage, has_begun, pack_tick_values
from watchdog.rules.language.rule import MAX_DISTINCT

MAX_PAIRS: Final = 1 << 18


class DistinctValues:
    """Pairs of group and value of one dimension, in the rows of a view that have something of one metric."""

    def __init__(
        self, view: View, metric: str, dimension: str, max_values: int = MAX_DISTINCT, max_pairs: int = MAX_PAIRS
    ) -> None:
        """Start without values."""
        self.view = view
        self.recent = RecentTicks()
        """The number of values of each of the newest ticks alone."""
        self.new: TickValues = pack_tick_values(0, np.zeros(0, np.int32), np.zeros(0))
        """Of these the number that the newest tick has added to the pairs, or would have with more room."""
        self.missing: MissingAmounts = NOTHING_MISSING
        """The number of values of the newest tick that are not among the pairs."""
        self.metric = metric
        self.dimension = dimension
        self._max_values = max_values
        self._pairs = SlotTable([np.uint32, np.uint32], reserved=0, max_slots=max_pairs)
        self._window_ns = 0
        self._at_ns = 0

    def keep_for(self, window_ns: int) -> None:
        """Keep each pair for at least `window_ns`."""
        self._window_ns = max(self._window_ns, window_ns)

    def add_newest_tick(self) -> None:
        """Add the newest tick."""
        view, grouped = self.view, self.view.grouped
        self._at_ns = grouped.snapshot.at_ns
        rows = view.counted_rows(self.metric)
        slots = grouped.present_slots[grouped.group_index[rows]]
        codes = grouped.snapshot.dimensions[self.dimension][rows]
        there = (slots != UNGROUPED_SLOT) & (codes != ABSENT_CODE)
        known = there & (codes < OTHER_CODE)
        pairs = np.unique(slots[known].astype(np.uint64) << np.uint64(32) | codes[known])
        owners, values = (pairs >> np.uint64(32)).astype(np.uint32), pairs.astype(np.uint32)
        left_out, is_new = self._mark_seen(owners, values)
        self.new = _numbers_by_owner(self._at_ns, owners[is_new])
        lost = there & ~known
        amounts = np.full(int(lost.sum()), np.inf)
        if METRICS[self.metric].unit is Unit.CONNECTIONS:
            amounts = grouped.snapshot.metrics[self.metric][rows[lost]]
        self.missing = _added_up(
            np.concatenate([owners[left_out].astype(np.int32), slots[lost]]),
            np.concatenate([np.ones(int(left_out.sum())), amounts]),
        )
        self.recent.push(_numbers_by_owner(self._at_ns, owners))

    def _mark_seen(self, owners: Codes, values: Codes) -> tuple[Mask, Mask]:
        """Mark the pairs, distinct and in rising order of owners, as seen; return masks of those without room, and new.

        The last have not been seen for the time that pairs are kept.
        """
        since_ns = self._at_ns - self._window_ns
        found = self._pairs.find([owners, values])
        is_new = found == NO_SLOT
        is_new[~is_new] = self._pairs.seen_ns[found[~is_new]] <= since_ns
        has_room = np.ones(len(owners), np.bool_)
        if is_new.any():
            counts = self.counts(self._window_ns)
            new = owners[is_new]
            rank = np.arange(len(new)) - np.searchsorted(new, new)
            has_room[is_new] = counts[new] + rank < self._max_values
        self._pairs.seen_ns[found[~is_new]] = self._at_ns
        adding = is_new & has_room
        added = self._pairs.assign([owners[adding], values[adding]], self._at_ns, since_ns)
        has_room[np.flatnonzero(adding)[added == NO_SLOT]] = False
        return ~has_room, is_new

    def counts(self, window_ns: int) -> Numbers:
        """Return the number of values of each slot in the newest `window_ns`."""
        pairs = self._pairs
        alive = pairs.seen_ns[: pairs.size] > self._at_ns - window_ns
        owners = pairs.keys[0][: pairs.size][alive].astype(np.int64)
        return np.bincount(owners, minlength=self.view.groups.size).astype(np.float64)


def _numbers_by_owner(at_ns: int, owners: Codes) -> TickValues:
    """Return the number of entries of each of `owners`, which are in rising order."""
    firsts = np.flatnonzero(np.diff(owners.astype(np.int64), prepend=-1))
    numbers = np.diff(firsts, append=len(owners)).astype(np.float64)
    return pack_tick_values(at_ns, owners[firsts].astype(np.int32), numbers)


def _added_up(slots: Slots, amounts: Numbers) -> MissingAmounts:
    if not len(slots):
        return NOTHING_MISSING
    distinct, index = np.unique(slots, return_inverse=True)
    return MissingAmounts(distinct, np.bincount(index, weights=amounts).astype(np.float64), 0.0)


class DistinctCount:
    """The stat `distinct:<dimension>` over one window."""

    def __init__(self, values: DistinctValues, coverage: WindowCoverage, missing: tuple[MissingSum, ...]) -> None:
        """Count `values` over the window of `coverage`; `missing`: sums of amounts, each at most one value more."""
        self.view = values.view
        self.coverage = coverage
        self._distinct = values
        self._missing = missing
        self._counts: Numbers | None = None

    def release(self) -> None:
        """Release the numbers of this tick."""
        self._counts = None

    def slots_beyond(self, threshold: float, *, above: bool, window_filled: bool) -> Slots:  # noqa: ARG002 - time without rows adds nothing
        """Return the slots with a number above (below) `threshold`."""
        counts = self._current()
        return np.flatnonzero(counts > threshold if above else counts < threshold).astype(np.int32)

    def values(self, slots: Slots, *, window_filled: bool) -> Numbers:  # noqa: ARG002 - as above
        """Return the numbers of `slots`."""
        return self._current()[slots]

    def volumes(self, slots: Slots) -> None:
        """Return None: the values are sizes themselves."""

    @property
    def is_exact(self) -> bool:
        """Return whether nothing is missing in the window."""
        return all(missing.is_empty for missing in self._missing)

    def bounds(self, slots: Slots, *, window_filled: bool) -> Bounds:  # noqa: ARG002 - as above
        """Return the least and the greatest numbers that `slots` can have."""
        low = self._current()[slots]
        return low, low + sum(missing.amounts(slots) for missing in self._missing)

    def slots_maybe_beyond(self, threshold: float, *, above: bool, window_filled: bool) -> Slots:
        """Return the slots with a number that may be above (below) `threshold`."""
        low, high = self.bounds(np.arange(self.view.groups.size, dtype=np.int32), window_filled=window_filled)
        return np.flatnonzero(high > threshold if above else low < threshold).astype(np.int32)

    def history(self, slot: int, elapsed_ns: Mapping[int, int]) -> Numbers:
        """Return the number of `slot` in each of the newest ticks alone, the oldest first."""
        return np.array([one.value_of(slot) for one in self._distinct.recent.entries if one.at_ns in elapsed_ns])

    def newest_alone(self, elapsed_ns: int) -> Numbers:
        """Return by slot the number if every tick of the window added as many new values as the newest one."""
        values = np.zeros(self.view.groups.size)
        self._distinct.new.apply(values, np.add)
        return values * self.coverage.window_ns / elapsed_ns

    def has_begun(self) -> Mask:
        """Return a mask by slot: groups with values in the newest tick, and none in the one before."""
        return has_begun([self._distinct.recent], self.view.groups.size)

    def readings(self, slot: int, tick: Mapping[int, int]) -> list[MetricReading]:
        """Return the number of values of `slot`, as `Aggregation.readings`."""
        newest = self.history(slot, tick)
        name, number = f"distinct {self._distinct.dimension}", float(self._current()[slot])
        return [MetricReading(self._distinct.metric, name, number, float(newest[-1]) if len(newest) else None)]

    def _current(self) -> Numbers:
        if self._counts is None:
            self._counts = self._distinct.counts(self.coverage.window_ns)
        return self._counts
