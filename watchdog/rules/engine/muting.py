"""`unless_firing` of a rule: a wider rule is silent about traffic that narrower rules report already.

A process can choose its names, so a rule by name has a rule by user or of the host beside it. One cause makes one
alert: a group of the wider rule does not begin to fire while at least half of its amount belongs to groups that fire by
a narrower rule, in those ticks of its window in which it is beyond its limit. Nobody can silence the wider rule by a
decoy under another name: the rest counts, and the decoy itself is reported.

The sum of several groups passes the limit of the wider rule before each of them passes its own. So a group of the wider
rule is held, pending, while at least half of its amount in the newest tick belongs to groups that a narrower rule is
going to report: they wait for `for`, or their windows fill (`approach.py`). The time is limited by what these groups
need if they go on, and by `MAX_HOLD_NS`: names that change hide nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watchdog.measure.catalogue import METRICS, MetricKind
from watchdog.measure.slot_table import NO_SLOT, Slots
from watchdog.measure.snapshot import Numbers, Snapshot
from watchdog.rules.engine.groups import GroupSlots
from watchdog.rules.engine.selection import Mask, Selection
from watchdog.rules.language.expression import leading_metric
from watchdog.rules.language.rule import MAX_HOLD_NS, Rule

_MUTING_SHARE = 0.5
_NO_SLOTS: Slots = np.zeros(0, np.int32)


class FiringGroups:
    """The groups of one rule in the newest tick: `slots` of those that it reports, `pending` of those that wait.

    A group is reported that fires or has an instance. It waits while `for` or `hits` runs, or for a narrower rule.
    """

    def __init__(self, rule: Rule, groups: GroupSlots, time_to_limit: Callable[[int], Numbers]) -> None:
        """Start without any; `time_to_limit`: as of `approach.py`, for the length of the newest tick in ns."""
        self.slots: Slots = _NO_SLOTS
        self.pending: Slots = _NO_SLOTS
        self._rule = rule
        self._groups = groups
        self._time_to_limit = time_to_limit

    def clear(self) -> None:
        """Forget the groups of the tick before."""
        self.slots = self.pending = _NO_SLOTS

    def hold(self, slots: Slots) -> None:
        """Let `slots` wait: they fire, and are reported by no alert."""
        self.slots, self.pending = np.setdiff1d(self.slots, slots), np.union1d(self.pending, slots)

    def rows_among(self, rows: NDArray[np.intp], snapshot: Snapshot, selection: Selection) -> Mask:
        """Return a mask of `rows`: those that the rule counts for a group that it reports."""
        found = np.isin(self._groups.find(snapshot, rows), self.slots)
        return found & self._is_counted(rows, snapshot, selection)

    def waits(self, rows: NDArray[np.intp], snapshot: Snapshot, selection: Selection) -> Numbers:
        """Return for each of `rows` the time in ns within which its group is going to fire; 0 if it is not."""
        elapsed_ns, hits = snapshot.elapsed_ns, self._rule.hits
        delay_ns = self._rule.for_ns if hits is None else hits.ticks * elapsed_ns
        times = self._time_to_limit(elapsed_ns)
        times[times > 0] += delay_ns
        # The window of the narrower rule can lag behind by its length.
        times[self.pending] = delay_ns + self._rule.window_ns + 2 * elapsed_ns
        found = self._groups.find(snapshot, rows)
        return np.where((found != NO_SLOT) & self._is_counted(rows, snapshot, selection), times[found], 0)

    def _is_counted(self, rows: NDArray[np.intp], snapshot: Snapshot, selection: Selection) -> Mask:
        chosen = selection.counted(snapshot, self._rule.where, self._rule.exclusions)
        return np.ones(len(rows), np.bool_) if chosen is None else chosen[rows]


@dataclass(frozen=True, slots=True)
class Silenced:
    """Groups that do not begin to fire: `muted` because narrower rules report them, `held` because these will."""

    muted: Slots
    held: Slots


NOTHING_SILENCED: Final = Silenced(_NO_SLOTS, _NO_SLOTS)


class Muting:
    """Finds the groups of one rule that the rules in its `unless_firing` report, or are going to report."""

    def __init__(
        self, rule: Rule, groups: GroupSlots, narrower: Sequence[FiringGroups], selection: Selection, limit: float
    ) -> None:
        """Compare the groups of `rule`, whose slots are `groups`, with `narrower`. `limit`: the least severe one."""
        self._limit = limit
        self._rule = rule
        self._groups = groups
        self._narrower = narrower
        self._selection = selection
        self._metric = leading_metric(rule.metric)
        # Of the ticks since the groups fire: time, slots, their amounts, the reported part of these.
        self._shares: deque[tuple[int, Slots, Numbers, Numbers]] = deque()
        self._beyond = _NO_SLOTS  # of the newest tick, and since when each of them is beyond its limit
        self._since_ns = np.zeros(0, np.int64)

    def silence(self, slots: Slots, snapshot: Snapshot) -> Silenced:
        """Return those of `slots`, groups that fire and have no firing instance, that do not begin to fire.

        `slots` are in rising order.
        """
        self._note_beginning(slots, snapshot.at_ns)
        if not len(slots):
            self._shares.clear()
            return NOTHING_SILENCED
        try:
            rows, slot_of_row = self._rows(slots, snapshot)
            index, amounts = np.searchsorted(slots, slot_of_row), self._amounts(rows, snapshot)
            reported = np.zeros(len(rows), np.bool_)
            for one in self._narrower:
                if len(one.slots):
                    reported |= one.rows_among(rows, snapshot, self._selection)
            totals, parts = _sums(index, (amounts, amounts * reported), len(slots))
            held = parts < totals * _MUTING_SHARE
            if held.any():
                waits = self._waits(rows, snapshot) * (amounts > 0)
                held &= self._is_held(index, waits, snapshot.at_ns)
                held &= _sums(index, (amounts * (reported | (waits > 0)),), len(slots))[0] >= totals * _MUTING_SHARE
        finally:
            self._selection.release()
        muted = np.zeros(len(slots), np.bool_)
        if self._shares or any(len(one.slots) for one in self._narrower):
            self._note_shares(slots[~held], totals[~held], parts[~held], snapshot.at_ns)
            totals, parts = self._window_sums(slots)
            # Without an amount there is no share: the groups wait for a tick that has one.
            muted = (parts >= totals * _MUTING_SHARE) & ~held
        return Silenced(slots[muted], slots[held])

    def _note_beginning(self, slots: Slots, at_ns: int) -> None:
        since_ns = np.full(len(slots), at_ns)
        _, here, before = np.intersect1d(slots, self._beyond, assume_unique=True, return_indices=True)
        since_ns[here] = self._since_ns[before]
        self._beyond, self._since_ns = slots, since_ns

    def _waits(self, rows: NDArray[np.intp], snapshot: Snapshot) -> Numbers:
        each = [one.waits(rows, snapshot, self._selection) for one in self._narrower]
        return np.asarray(np.max(each, axis=0, initial=0))

    def _is_held(self, index: NDArray[np.intp], waits: Numbers, at_ns: int) -> Mask:
        """Return a mask of the groups beyond the limit for less than the longest of `waits` of their rows."""
        longest = np.zeros(len(self._beyond))
        np.maximum.at(longest, index, waits)
        return np.asarray(at_ns - self._since_ns < np.minimum(longest, MAX_HOLD_NS))

    def _note_shares(self, slots: Slots, totals: Numbers, parts: Numbers, at_ns: int) -> None:
        """Note the amounts of the newest tick by slot, and forget those that left the window of the rule."""
        self._shares.append((at_ns, slots, totals, parts))
        while self._shares[0][0] <= at_ns - self._rule.window_ns:
            self._shares.popleft()

    def _window_sums(self, slots: Slots) -> tuple[Numbers, Numbers]:
        """Return for each of `slots` the amounts noted within the window, and the reported part of them."""
        noted = np.concatenate([one[1] for one in self._shares])
        index = np.minimum(np.searchsorted(slots, noted), len(slots) - 1)
        same = slots[index] == noted
        columns = [np.concatenate([one[column] for one in self._shares])[same] for column in (2, 3)]
        totals, parts = _sums(index[same], columns, len(slots))
        return totals, parts

    def _rows(self, slots: Slots, snapshot: Snapshot) -> tuple[NDArray[np.intp], Slots]:
        """Return the rows that the rule counts for one of `slots`, and the slot of each."""
        chosen = self._selection.counted(snapshot, self._rule.where, self._rule.exclusions)
        rows = np.arange(len(snapshot)) if chosen is None else np.flatnonzero(chosen)
        found = self._groups.find(snapshot, rows)
        of_slots = np.isin(found, slots)
        return rows[of_slots], found[of_slots]

    def _amounts(self, rows: NDArray[np.intp], snapshot: Snapshot) -> Numbers:
        """Return the amount of each row; of distributions, 1 for each value beyond the limit."""
        if self._metric is None:
            return np.ones(len(rows))
        values = snapshot.metrics[self._metric][rows]
        if METRICS[self._metric].kind is not MetricKind.DISTRIBUTION:
            return values
        is_beyond = values > self._limit if self._rule.thresholds.above else values < self._limit
        return np.asarray(is_beyond, np.float64)


def _sums(index: NDArray[np.intp], columns: Iterable[Numbers], size: int) -> list[Numbers]:
    """Return for each of `columns` its sums by `index`, which is below `size`."""
    return [np.bincount(index, weights=column, minlength=size).astype(np.float64) for column in columns]
