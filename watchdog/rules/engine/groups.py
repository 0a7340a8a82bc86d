"""Groups: the distinct values of a rule's `by`, each with a slot in the arrays that hold its numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from watchdog.measure.catalogue import ABSENT_CODE, DIMENSIONS, OTHER_CODE, UNKNOWN_CODE, DimensionKind
from watchdog.measure.interning import OTHER_NAME
from watchdog.measure.slot_table import NEVER_NS, NO_SLOT, Slots, SlotTable
from watchdog.measure.snapshot import Codes, Snapshot
from watchdog.rules.engine.selection import Mask
from watchdog.rules.language.rule import Condition, Labels

NO_GROUP_SLOT = 0  # the slot of no group: never has rows, so that it shows the value without rows
HOST_SLOT = 1  # the slot of the only group of a rule without `by`
UNGROUPED_SLOT = 2  # the slot of rows without a group: counts as never seen, so that no rule reports it
OTHER_SLOT = 3  # the slot of the group of all groups without room, `(other)`, which rules judge like any other

_NUMBER = re.compile(r"\d{1,10}", re.ASCII)
_MAX_GROUPS = 1 << 19
_MAX_LABELS = 4096  # kept as text at a time, of active and firing groups


@dataclass(frozen=True, slots=True)
class GroupScope:
    """The rows that can make groups: those that meet `where` and, with a `metric`, have something of it.

    Groups by the ports or peers of all connections would be far more than a rule about a few of them needs.
    """

    where: tuple[Condition, ...]
    metric: str | None = None


class GroupSlots:
    """The slots of one `by`: `capacity` slots exist, those below `size` have been used."""

    def __init__(self, by: Sequence[str], max_groups: int = _MAX_GROUPS, scope: GroupScope | None = None) -> None:
        """Start without groups; without dimensions there is exactly one, the host. At most `max_groups`.

        `scope`: the rows that can make groups, None for all.
        """
        self.by = tuple(by)
        self.scope = scope
        self.lost_rows = np.zeros(0, np.intp)
        """Indices of the newest rows without a known group: every group may miss them."""
        self._table = SlotTable([np.uint32 for _ in by] or [np.uint32], reserved=OTHER_SLOT + 1, max_slots=max_groups)
        self._idle_since_ns = NEVER_NS
        self._labels: dict[int, Labels] = {}
        self._bound: dict[Labels, int] = {}

    @property
    def capacity(self) -> int:
        """Return the number of slots."""
        return self._table.capacity

    @property
    def size(self) -> int:
        """Return the number below which all used slots are."""
        return self._table.size

    def assign(self, snapshot: Snapshot, retention_ns: int, inside: Mask | None = None) -> Slots:
        """Return the slot of every row, (n,) int32, new groups included. `inside`: the rows in `scope`, None for all.

        Slots of groups without a row for `retention_ns` may be given to new groups, like their dimensions' codes.
        """
        self.lost_rows = np.zeros(0, np.intp)
        if not self.by:
            self._table.seen_ns[HOST_SLOT] = snapshot.at_ns
            return np.full(len(snapshot), HOST_SLOT, dtype=np.int32)
        # An expired group stays expired when a reload raises `retention_ns`: its names may be forgotten by then.
        self._idle_since_ns = max(self._idle_since_ns, snapshot.at_ns - retention_ns)
        self._unbind()
        columns = [snapshot.dimensions[dimension] for dimension in self.by]
        ungrouped = _any_from(columns, ABSENT_CODE)
        if inside is not None:
            ungrouped |= ~inside
        if not ungrouped.any():
            slots = self._table.assign(columns, snapshot.at_ns, self._idle_since_ns)
        else:
            slots = np.full(len(snapshot), UNGROUPED_SLOT, dtype=np.int32)
            there = np.flatnonzero(~ungrouped)
            keys = [column[there] for column in columns]
            slots[there] = self._table.assign(keys, snapshot.at_ns, self._idle_since_ns)
            lost = _any_from(columns, UNKNOWN_CODE) & ~_any_equal(columns, ABSENT_CODE)
            self.lost_rows = np.flatnonzero(lost if inside is None else lost & inside)
        # All that are not in the table are groups without room: those in the table miss nothing.
        other = (slots == NO_SLOT) | (_all_equal(columns, OTHER_CODE) & (slots != UNGROUPED_SLOT))
        if other.any():
            slots[other] = OTHER_SLOT
            self._table.seen_ns[OTHER_SLOT] = snapshot.at_ns
        return slots

    def find(self, snapshot: Snapshot, rows: NDArray[np.intp]) -> Slots:
        """Return the slot of the group of each of `rows` of the newest snapshot, `NO_SLOT` for rows without one."""
        if not self.by:
            return np.full(len(rows), HOST_SLOT, np.int32)
        columns = [snapshot.dimensions[dimension][rows] for dimension in self.by]
        slots = self._table.find(columns)
        other = (slots == NO_SLOT) & ~_any_from(columns, ABSENT_CODE)
        slots[other | _all_equal(columns, OTHER_CODE)] = OTHER_SLOT
        return slots

    def labels(self, slot: int, snapshot: Snapshot) -> Labels:
        """Return the labels of the group of `slot`, as text."""
        if slot == HOST_SLOT:
            return ()
        if slot not in self._labels:
            self._bind(slot, self.read_labels(slot, snapshot))
        return self._labels[slot]

    def read_labels(self, slot: int, snapshot: Snapshot) -> Labels:
        """Return the labels of the group of `slot` as `labels`, without a place among those that are kept."""
        return tuple(zip(self.by, self.texts(slot, snapshot), strict=True))

    def texts(self, slot: int, snapshot: Snapshot) -> tuple[str, ...]:
        """Return the values of the group of `slot`, in the order of `by`."""
        if slot == OTHER_SLOT:
            return (OTHER_NAME,) * len(self.by)
        columns = zip(self.by, self._table.keys, strict=False)  # without `by`, the table has one column all the same
        return tuple(snapshot.names.text(name, int(column[slot])) for name, column in columns)

    def codes(self, slots: Slots) -> list[NDArray[np.unsignedinteger]]:
        """Return the codes of the groups of `slots`, one array for each dimension of `by`."""
        return [column[slots] for column in self._table.keys[: len(self.by)]]

    def slot(self, labels: Labels, snapshot: Snapshot) -> int:
        """Return the slot of the group with `labels`, in any order; `NO_GROUP_SLOT` while there is no such group."""
        given = dict(labels)
        if given.keys() != set(self.by):
            return NO_GROUP_SLOT
        own = tuple((name, given[name]) for name in self.by)
        if not own:
            return HOST_SLOT
        if all(text == OTHER_NAME for _, text in own):
            is_there = self._table.seen_ns[OTHER_SLOT] > self._idle_since_ns
            return OTHER_SLOT if is_there else NO_GROUP_SLOT
        if own not in self._bound:
            codes = [code for name, text in own if (code := code_of(name, text, snapshot)) is not None]
            if len(codes) < len(own):
                return NO_GROUP_SLOT
            found = int(self._table.find([np.array([code], dtype=np.uint32) for code in codes])[0])
            if found == NO_SLOT or self._table.seen_ns[found] <= self._idle_since_ns:
                return NO_GROUP_SLOT
            self._bind(found, own)
        return self._bound[own]

    def find_slots(self, labels: Labels, snapshot: Snapshot) -> Slots:
        """Return the slots of all groups with `labels`, some of their labels; those of groups without rows included."""
        slots = np.arange(UNGROUPED_SLOT + 1 if self.by else HOST_SLOT, self.size if self.by else HOST_SLOT + 1)
        for name, text in labels:
            code = code_of(name, text, snapshot)
            if code is None or name not in self.by:
                return np.zeros(0, dtype=np.int32)
            slots = slots[self._table.keys[self.by.index(name)][slots] == code]
        return slots.astype(np.int32)

    def seen_since(self, slots: Slots, since_ns: int) -> NDArray[np.bool_]:
        """Return a mask of the slots with a row after `since_ns`."""
        return self._table.seen_ns[slots] > max(since_ns, self._idle_since_ns)

    def are_seen_since(self, since_ns: int) -> NDArray[np.bool_]:
        """Return a mask of all groups, (size,), as `seen_since`; the slots of no group are never seen."""
        seen: NDArray[np.bool_] = self._table.seen_ns[: self.size] > max(since_ns, self._idle_since_ns)
        seen[: UNGROUPED_SLOT + 1] = False
        return seen

    def seen_ns(self, slots: Slots) -> NDArray[np.int64]:
        """Return the time of the newest row of each slot, `NEVER_NS` for slots that may belong to another group."""
        seen_ns = self._table.seen_ns[slots]
        return np.where(seen_ns > self._idle_since_ns, seen_ns, NEVER_NS)

    @property
    def new_slots(self) -> Slots:
        """Return the slots that new groups got in the newest tick."""
        return self._table.new_slots

    def _bind(self, slot: int, labels: Labels) -> None:
        if len(self._labels) >= _MAX_LABELS:
            self._labels.clear()
            self._bound.clear()
        self._labels[slot] = labels
        self._bound[labels] = slot

    def _unbind(self) -> None:
        """Forget the labels of slots that may belong to another group at their next row."""
        bound = np.fromiter(self._labels, np.int32, len(self._labels))
        for slot in bound[self._table.seen_ns[bound] <= self._idle_since_ns].tolist():
            labels = self._labels.pop(slot)
            if self._bound.get(labels) == slot:
                del self._bound[labels]


def _any_from(columns: Sequence[Codes], minimum: int) -> NDArray[np.bool_]:
    """Return for each row whether any of its codes is at least `minimum`."""
    found: NDArray[np.bool_] = columns[0] >= minimum
    for column in columns[1:]:
        found |= column >= minimum
    return found


def _all_equal(columns: Sequence[Codes], code: int) -> NDArray[np.bool_]:
    """Return for each row whether all of its codes are `code`."""
    found: NDArray[np.bool_] = columns[0] == code
    for column in columns[1:]:
        found = found & (column == code) if found.any() else found
    return found


def _any_equal(columns: Sequence[Codes], code: int) -> NDArray[np.bool_]:
    """Return for each row whether any of its codes is `code`."""
    found: NDArray[np.bool_] = columns[0] == code
    for column in columns[1:]:
        found |= column == code
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
