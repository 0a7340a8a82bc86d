"""`unless_firing` of a rule: a wider rule is silent about traffic that narrower rules report already.

A process can choose its names, so a rule by name has a rule by user or of the host beside it. One cause makes one
alert: a group of the wider rule does not begin to fire while at least half of its amount belongs to groups that fire by
a narrower rule, in those ticks of its window in which it is beyond its limit. Nobody can silence the wider rule by a
decoy under another name: the rest counts, and the decoy itself is reported.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from watchdog.measure.catalogue import METRICS, MetricKind
from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers, Snapshot
from watchdog.rules.engine.groups import GroupSlots
from watchdog.rules.engine.selection import Mask, Selection
from watchdog.rules.language.expression import leading_metric
from watchdog.rules.language.rule import Rule

_MUTING_SHARE = 0.5


class FiringGroups:
    """The groups of one rule that fire in the newest tick, or have an instance: `slots`."""

    def __init__(self, rule: Rule, groups: GroupSlots) -> None:
        """Start without any."""
        self.slots: Slots = np.zeros(0, np.int32)
        self._rule = rule
        self._groups = groups

    def rows_among(self, rows: NDArray[np.intp], snapshot: Snapshot, selection: Selection) -> Mask:
        """Return a mask of `rows`: those that the rule counts for one of these groups."""
        found = np.isin(self._groups.find(snapshot, rows), self.slots)
        chosen = selection.counted(snapshot, self._rule.where, self._rule.exclusions)
        return found if chosen is None else found & chosen[rows]


class Muting:
    """Removes the groups of one rule that the rules in its `unless_firing` report."""

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

    def remaining(self, slots: Slots, snapshot: Snapshot) -> Slots:
        """Return those of `slots`, groups that fire and have no instance, that no narrower rule reports."""
        narrower = [one for one in self._narrower if len(one.slots)]
        if not len(slots):
            self._shares.clear()
            return slots
        if not narrower and not self._shares:
            return slots
        try:
            rows, slot_of_row = self._rows(slots, snapshot)
            reported = np.zeros(len(rows), np.bool_)
            for one in narrower:
                reported |= one.rows_among(rows, snapshot, self._selection)
        finally:
            self._selection.release()
        self._note_shares(slots, slot_of_row, self._amounts(rows, snapshot), reported, snapshot.at_ns)
        totals, parts = self._window_sums(slots)
        # Without an amount there is no share: the groups wait for a tick that has one.
        return slots[parts < totals * _MUTING_SHARE]

    def _note_shares(self, slots: Slots, slot_of_row: Slots, amounts: Numbers, reported: Mask, at_ns: int) -> None:
        """Note the amounts of the newest tick by slot, and forget those that left the window of the rule."""
        index = np.searchsorted(slots, slot_of_row)  # slots are in rising order
        totals, parts = (
            np.bincount(index, weights=weights, minlength=len(slots)).astype(np.float64)
            for weights in (amounts, amounts * reported)
        )
        self._shares.append((at_ns, slots, totals, parts))
        while self._shares[0][0] <= at_ns - self._rule.window_ns:
            self._shares.popleft()

    def _window_sums(self, slots: Slots) -> tuple[Numbers, Numbers]:
        """Return for each of `slots` the amounts noted within the window, and the reported part of them."""
        noted = np.concatenate([one[1] for one in self._shares])
        index = np.minimum(np.searchsorted(slots, noted), len(slots) - 1)
        same = slots[index] == noted
        totals, parts = (
            np.bincount(index[same], weights=np.concatenate(columns)[same], minlength=len(slots)).astype(np.float64)
            for columns in ([one[2] for one in self._shares], [one[3] for one in self._shares])
        )
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
