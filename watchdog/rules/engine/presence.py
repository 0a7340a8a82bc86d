"""Existence and presence of the groups of one rule.

A group exists for a rule from its first row that meets `where` on. While it has no such row, it is judged by its value
without rows for a time: two windows, or `absent_for` if that is shorter. From then on it does not exist, except as an
active instance: the alert decides its end.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from watchdog.measure.slot_table import NEVER_NS, Slots
from watchdog.rules.engine.missing import MissingSum
from watchdog.rules.engine.selection import Mask
from watchdog.rules.engine.view import View
from watchdog.rules.language.rule import Absent, Rule


class Presence(enum.Enum):
    """Rows of a group."""

    SELECTED = "selected"  # a row of the newest tick meets `where`
    UNSELECTED = "unselected"  # it has rows in the last window; none of the newest tick meets `where`
    GONE = "gone"  # it has no row in the last window
    UNKNOWN = "unknown"  # none is known, but rows of the last window are lost


@dataclass(frozen=True, slots=True)
class GroupPresence:
    """Presence of one group; `selected_ns`: time of its newest row that met `where`, None if unknown."""

    presence: Presence
    selected_ns: int | None = None


SELECTED = GroupPresence(Presence.SELECTED)


class PresenceTracker:
    """Answers which groups exist for one rule. A rule without `by` has one group, the host, which always exists."""

    def __init__(self, rule: Rule, view: View, missing_rows: MissingSum) -> None:
        """Read `view`, the view of `rule`; `missing_rows`: ticks of the window in which rows of a group can be lost."""
        self._rule = rule
        self._missing_rows = missing_rows
        self._view = view
        self._fires_without_rows = rule.fires_without_rows

    @property
    def needs_selected(self) -> bool:
        """Return whether the rule can fire for a group without rows: the view must note the selected groups always."""
        return bool(self._rule.by) and (self._fires_without_rows or self._rule.absent is Absent.FIRE)

    def existing(self, slots: Slots, at_ns: int) -> Slots:
        """Return those of `slots`, slots with values that fire, that exist for the rule."""
        rule, since_ns = self._rule, at_ns - 2 * self._rule.window_ns
        if not self.needs_selected:
            return slots[self._view.groups.seen_since(slots, since_ns)]
        if rule.absent is Absent.KEEP:
            since_ns = at_ns - 1
        elif rule.absent is Absent.RESOLVE:
            since_ns = max(since_ns, at_ns - rule.absent_for_ns)
        return slots[self._view.selected_ns(slots) > since_ns]

    def vanished(self, at_ns: int) -> Slots:
        """Return the slots that a rule with `absent = "fire"` reports although their values may not fire."""
        rule = self._rule
        if rule.absent is not Absent.FIRE or not rule.by:
            return np.zeros(0, dtype=np.int32)
        slots = np.arange(self._view.groups.size, dtype=np.int32)
        selected_ns = self._view.selected_ns(slots)
        absent_ns = min(rule.absent_for_ns, rule.window_ns)
        absent: Mask = (selected_ns > at_ns - 2 * rule.window_ns) & (selected_ns <= at_ns - absent_ns)
        absent &= self._missing_rows.amounts(slots) == 0
        return slots[absent]

    def seen(self, slots: Slots, at_ns: int) -> Mask:
        """Return a mask of the slots with a row, selected or not, in the last window."""
        return self._view.groups.seen_since(slots, at_ns - self._rule.window_ns)

    def of(self, slots: Slots, at_ns: int) -> Iterator[GroupPresence]:
        """Yield the presence of each of `slots`."""
        if not self._rule.by or not self._view.notes_selected:
            return iter([SELECTED] * len(slots))
        selected_ns, missing = self._view.selected_ns(slots), self._missing_rows.amounts(slots) > 0
        return _presences(selected_ns.tolist(), self.seen(slots, at_ns).tolist(), missing.tolist(), at_ns)


def _presences(
    selected_ns: Iterable[int], seen: Iterable[bool], missing: Iterable[bool], at_ns: int
) -> Iterator[GroupPresence]:
    for newest_ns, has_rows, may_miss in zip(selected_ns, seen, missing, strict=True):
        if newest_ns >= at_ns:
            yield SELECTED
        else:
            known = Presence.UNSELECTED if has_rows else Presence.GONE
            presence = Presence.UNKNOWN if may_miss else known
            yield GroupPresence(presence, None if newest_ns == NEVER_NS else newest_ns)
