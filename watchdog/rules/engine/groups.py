"""Groups: the distinct values of a rule's `by`, each with a slot in plain arrays of what is known of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from watchdog.measure.catalogue import ABSENT_CODE, DIMENSIONS, UNKNOWN_CODE, DimensionKind
from watchdog.measure.slot_table import NEVER_NS, NO_SLOT, Slots, SlotTable
from watchdog.measure.snapshot import Codes, Snapshot
from watchdog.rules.language.rule import Labels

NO_GROUP_SLOT = 0  # the slot of no group at all: never has rows, so that it shows what a rule measures of nothing
HOST_SLOT = 1  # the slot of the one group that there is without dimensions
UNGROUPED_SLOT = 2  # the slot of rows that belong to no one group: counts as never seen, so that no rule speaks of it

_NUMBER = re.compile(r"\d{1,10}", re.ASCII)
_MOST = 1 << 19
_MOST_LABELS = 4096  # as text at a time: of what fires or is watched


class GroupSlots:
    """The slots of one `by`. `capacity` slots exist, those below `size` were ever used."""

    def __init__(self, by: Sequence[str], max_groups: int = _MOST) -> None:
        """Start without groups; without dimensions there is exactly one, the host. There are at most `most`."""
        self.by = tuple(by)
        self.last_ungrouped_ns = NEVER_NS
        """When a row came last whose group is not known, or had no room: it is missing from all of them."""
        self._table = SlotTable(
            [np.uint32 for _ in by] or [np.uint32], reserved=UNGROUPED_SLOT + 1, max_slots=max_groups
        )
        self._silent_since_ns = NEVER_NS
        self._labels: dict[int, Labels] = {}
        self._bound: dict[Labels, int] = {}

    @property
    def capacity(self) -> int:
        """Return how many slots exist."""
        return self._table.capacity

    @property
    def size(self) -> int:
        """Return below which number all slots in use are."""
        return self._table.size

    def assign(self, snapshot: Snapshot, retention_ns: int) -> Slots:
        """Return the slot of every row, (n,) int32, new groups included.

        Slots of groups that had no row for `retention_ns` may be given to new ones, and so may their dimensions' codes.
        """
        if not self.by:
            self._table.seen_ns[HOST_SLOT] = snapshot.at_ns
            return np.full(len(snapshot), HOST_SLOT, dtype=np.int32)
        # What was dead stays dead when a reload makes `retention_ns` greater: names may have been forgotten by then.
        self._silent_since_ns = max(self._silent_since_ns, snapshot.at_ns - retention_ns)
        self._unbind()
        columns = [snapshot.dimensions[dimension] for dimension in self.by]
        apart = _any_from(columns, ABSENT_CODE)
        if not apart.any():
            slots = self._table.assign(columns, snapshot.at_ns, self._silent_since_ns)
        else:
            slots = np.full(len(snapshot), UNGROUPED_SLOT, dtype=np.int32)
            there = np.flatnonzero(~apart)
            keys = [column[there] for column in columns]
            slots[there] = self._table.assign(keys, snapshot.at_ns, self._silent_since_ns)
            if _any_from([column[apart] for column in columns], UNKNOWN_CODE).any():
                self.last_ungrouped_ns = snapshot.at_ns
        homeless = slots == NO_SLOT
        if homeless.any():
            slots[homeless] = UNGROUPED_SLOT
            self.last_ungrouped_ns = snapshot.at_ns
        return slots

    def labels(self, slot: int, snapshot: Snapshot) -> Labels:
        """Return what tells the group of `slot` from others, as text."""
        if slot == HOST_SLOT:
            return ()
        if slot not in self._labels:
            codes = zip(self.by, self._table.keys, strict=True)
            self._bind(slot, tuple((name, snapshot.names.text(name, int(column[slot]))) for name, column in codes))
        return self._labels[slot]

    def slot(self, labels: Labels, snapshot: Snapshot) -> int:
        """Return the slot of the group that has `labels`, in any order; `NOBODY` while there is no such group."""
        given = dict(labels)
        if given.keys() != set(self.by):
            return NO_GROUP_SLOT
        own = tuple((name, given[name]) for name in self.by)
        if not own:
            return HOST_SLOT
        if own not in self._bound:
            codes = [code for name, text in own if (code := code_of(name, text, snapshot)) is not None]
            if len(codes) < len(own):
                return NO_GROUP_SLOT
            found = int(self._table.find([np.array([code], dtype=np.uint32) for code in codes])[0])
            if found == NO_SLOT or self._table.seen_ns[found] <= self._silent_since_ns:
                return NO_GROUP_SLOT
            self._bind(found, own)
        return self._bound[own]

    def seen_since(self, slots: Slots, since_ns: int) -> NDArray[np.bool_]:
        """Tell of which slots a row was seen after `since_ns`."""
        return self._table.seen_ns[slots] > max(since_ns, self._silent_since_ns)

    def _bind(self, slot: int, labels: Labels) -> None:
        if len(self._labels) >= _MOST_LABELS:
            self._labels.clear()
            self._bound.clear()
        self._labels[slot] = labels
        self._bound[labels] = slot

    def _unbind(self) -> None:
        """Forget the labels of slots that may be another's when they are next seen."""
        bound = np.fromiter(self._labels, np.int32, len(self._labels))
        for slot in bound[self._table.seen_ns[bound] <= self._silent_since_ns].tolist():
            labels = self._labels.pop(slot)
            if self._bound.get(labels) == slot:
                del self._bound[labels]


def _any_from(columns: Sequence[Codes], least: int) -> NDArray[np.bool_]:
    """Tell for each row whether any of its codes is `least` or greater."""
    found: NDArray[np.bool_] = columns[0] >= least
    for column in columns[1:]:
        found |= column >= least
    return found


def code_of(dimension: str, text: str, snapshot: Snapshot) -> int | None:
    """Return the code that `text` has in `dimension`, None if it has none now."""
    match DIMENSIONS[dimension].kind:
        case DimensionKind.NUMBER:
            return int(text) if _NUMBER.fullmatch(text) and int(text) < ABSENT_CODE else None
        case DimensionKind.CHOICE:
            choices = DIMENSIONS[dimension].choices
            return choices.index(text) if text in choices else None
        case DimensionKind.ADDRESS | DimensionKind.NAME:
            return snapshot.names.find_code(dimension, text)
