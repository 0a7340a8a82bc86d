"""The groups of one rule that something of a metric was measured for since they were last asked for."""

from __future__ import annotations

import numpy as np

from watchdog.measure.slot_table import Slots
from watchdog.rules.engine.groups import UNGROUPED_SLOT
from watchdog.rules.engine.view import View

_NONE: Slots = np.zeros(0, np.int32)


class CountedSlots:
    """Collects slots over the ticks in which the rule is not judged too."""

    def __init__(self, view: View, metric: str) -> None:
        """Start without slots."""
        self._view = view
        self._metric = metric
        self._slots, self._new_slots = _NONE, _NONE

    def add_newest_tick(self) -> None:
        """Add the newest tick."""
        grouped = self._view.grouped
        slots = grouped.present_slots[grouped.group_index[self._view.counted_rows(self._metric)]]
        self._slots = np.union1d(self._slots, slots[slots > UNGROUPED_SLOT])
        self._new_slots = np.union1d(self._new_slots, self._view.groups.new_slots)

    def take(self) -> tuple[Slots, Slots]:
        """Return the slots with something of the metric, and those that new groups got, since the last call."""
        taken = self._slots, self._new_slots
        self._slots, self._new_slots = _NONE, _NONE
        return taken
