"""Groups: the distinct values of a rule's `by`, each with a slot, so that what is known of them fits into plain arrays.

Slots are found by a hash table held in numpy arrays and probed for all rows at once: a tick costs what it carries,
without sorting. A group that was silent for longer than any window reads gives its slot to the next new one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from watchdog.measure.catalogue import DIMENSIONS, Values
from watchdog.measure.snapshot import Codes, Snapshot
from watchdog.rules.schema import Labels
from watchdog.rules.select import block

Slots = NDArray[np.int32]

NOBODY = 0  # the slot of no group at all: never has rows, so that it shows what a rule measures of nothing
HOST = 1  # the slot of the one group that there is without dimensions

_EMPTY = np.int32(-1)
_NEVER_NS = -(2**62)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Fibonacci hashing, Knuth TAOCP 3, 6.4
_FIRST_CAPACITY = 256
_CELLS_PER_SLOT = 4  # at most a quarter full: probe chains stay short
_WORTH_RECLAIMING = 4  # grow unless a quarter of the slots comes free


class Groups:
    """The slots of one `by`. `capacity` slots exist, those below `size` were ever used."""

    def __init__(self, by: Sequence[str]) -> None:
        """Start without groups; without dimensions there is exactly one, the host."""
        self.by = tuple(by)
        self.capacity = _FIRST_CAPACITY if by else HOST + 1
        self.size = NOBODY + 1 if by else HOST + 1
        self._codes = [np.zeros(self.capacity, dtype=np.uint32) for _ in by]
        self._seen_ns = np.full(self.capacity, _NEVER_NS)
        self._free = np.zeros(0, dtype=np.int32)
        self._table = np.full(self.capacity * _CELLS_PER_SLOT, _EMPTY)
        self._labels: dict[int, Labels] = {}
        self._bound: dict[Labels, int] = {}

    def assign(self, snapshot: Snapshot, silent_ns: int) -> Slots:
        """Return the slot of every row, (n,) int32, new groups included.

        Slots of groups that had no row for `silent_ns` may be given to new ones.
        """
        if not self.by:
            self._seen_ns[HOST] = snapshot.at_ns
            return np.full(len(snapshot), HOST, dtype=np.int32)
        columns = [snapshot.dimensions[dimension] for dimension in self.by]
        slots = self._find(columns)
        missing = np.flatnonzero(slots == _EMPTY)
        # Seen before any slot is reclaimed: the groups of this very tick are to be spared.
        self._seen_ns[slots if not len(missing) else slots[slots != _EMPTY]] = snapshot.at_ns
        if len(missing):
            keys = [column[missing] for column in columns]
            slots[missing] = self._insert(keys, snapshot.at_ns, snapshot.at_ns - silent_ns)
        return slots

    def labels(self, slot: int, snapshot: Snapshot) -> Labels:
        """Return what tells the group of `slot` from others, as text."""
        if slot not in self._labels:
            codes = zip(self.by, self._codes, strict=True)
            labels = tuple((name, snapshot.names.text(name, int(column[slot]))) for name, column in codes)
            self._labels[slot] = labels
            self._bound[labels] = slot
        return self._labels[slot]

    def slot(self, labels: Labels, snapshot: Snapshot) -> int:
        """Return the slot of the group that has `labels`, in any order; `NOBODY` while there is no such group."""
        given = dict(labels)
        if given.keys() != set(self.by):
            return NOBODY
        own = tuple((name, given[name]) for name in self.by)
        if not own:
            return HOST
        if own not in self._bound:
            codes = [code_of(name, text, snapshot) for name, text in own]
            columns = [np.array([code], dtype=np.uint32) for code in codes if code is not None]
            found = int(self._find(columns)[0]) if len(columns) == len(own) else int(_EMPTY)
            if found == _EMPTY:
                return NOBODY
            self._bound[own] = found
            self._labels[found] = own
        return self._bound[own]

    def seen_since(self, slots: Slots, since_ns: int) -> NDArray[np.bool_]:
        """Tell of which slots a row was seen after `since_ns`."""
        return self._seen_ns[slots] > since_ns

    def _hash(self, columns: Sequence[Codes]) -> NDArray[np.int64]:
        mixed = columns[0] * _GOLDEN
        for column in columns[1:]:
            mixed = (mixed ^ (mixed >> np.uint64(29)) ^ column) * _GOLDEN
        bits = len(self._table).bit_length() - 1
        return (mixed >> np.uint64(64 - bits)).astype(np.int64)

    def _find(self, columns: Sequence[Codes]) -> Slots:
        """Return the slot of each key, -1 for those that have none."""
        cells = self._hash(columns)
        slots = self._table[cells]
        other = np.flatnonzero(self._differs(slots, columns))
        while len(other):
            cells[other] = (cells[other] + 1) & (len(self._table) - 1)
            slots[other] = self._table[cells[other]]
            other = other[self._differs(slots[other], [column[other] for column in columns])]
        return slots

    def _differs(self, slots: Slots, columns: Sequence[Codes]) -> NDArray[np.bool_]:
        """Tell which keys met a cell that another group holds."""
        differs = np.zeros(len(slots), dtype=np.bool_)
        for column, codes in zip(columns, self._codes, strict=True):
            differs |= codes[slots] != column
        differs &= slots != _EMPTY
        return differs

    def _insert(self, columns: Sequence[Codes], now_ns: int, silent_since_ns: int) -> Slots:
        """Give a slot to each distinct key; none of them has one yet.

        All rows claim the first empty cell of their chain at once; the one whose claim stands founds the group, the
        others look again: they find it founded, or go on along the chain.
        """
        slots = np.full(len(columns[0]), _EMPTY)
        left = np.arange(len(slots), dtype=np.int32)
        while len(left):
            keys = [column[left] for column in columns]
            cells = self._first_empty(keys)
            self._table[cells] = left
            founders = np.flatnonzero(self._table[cells] == left)
            if len(founders) > self._room():
                self._table[cells] = _EMPTY
                self._make_room(len(founders), silent_since_ns)
                continue
            new = self._take(len(founders))
            for codes, key in zip(self._codes, keys, strict=True):
                codes[new] = key[founders]
            self._seen_ns[new] = now_ns
            self._table[cells[founders]] = new
            slots[left] = self._find(keys)
            left = left[slots[left] == _EMPTY]
        return slots

    def _first_empty(self, columns: Sequence[Codes]) -> NDArray[np.int64]:
        cells = self._hash(columns)
        taken = np.flatnonzero(self._table[cells] != _EMPTY)
        while len(taken):
            cells[taken] = (cells[taken] + 1) & (len(self._table) - 1)
            taken = taken[self._table[cells[taken]] != _EMPTY]
        return cells

    def _take(self, count: int) -> Slots:
        """Return `count` slots to use: those given back first."""
        reused, self._free = self._free[:count], self._free[count:]
        fresh = np.arange(self.size, self.size + count - len(reused), dtype=np.int32)
        self.size += len(fresh)
        return np.concatenate((reused, fresh))

    def _make_room(self, count: int, silent_since_ns: int) -> None:
        """See to it that `count` slots can be taken: reclaim silent ones, grow when that gives too little."""
        self._reclaim(silent_since_ns)
        capacity = self.capacity
        while capacity - self.capacity + self._room() < max(count, capacity // _WORTH_RECLAIMING):
            capacity *= 2
        grown = capacity - self.capacity
        self._codes = [np.concatenate((codes, np.zeros(grown, dtype=np.uint32))) for codes in self._codes]
        self._seen_ns = np.concatenate((self._seen_ns, np.full(grown, _NEVER_NS)))
        self.capacity = capacity
        self._rebuild()

    def _room(self) -> int:
        return self.capacity - self.size + len(self._free)

    def _reclaim(self, silent_since_ns: int) -> None:
        silent = self._seen_ns[: self.size] <= silent_since_ns
        silent[NOBODY] = False
        self._free = np.flatnonzero(silent).astype(np.int32)
        for slot in self._free.tolist():
            labels = self._labels.pop(slot, None)
            if labels is not None:
                del self._bound[labels]

    def _rebuild(self) -> None:
        """Make the hash table anew from the slots in use."""
        live = np.ones(self.size, dtype=np.bool_)
        live[self._free] = live[NOBODY] = False
        left = np.flatnonzero(live).astype(np.int32)
        self._table = np.full(self.capacity * _CELLS_PER_SLOT, _EMPTY)
        while len(left):
            cells = self._first_empty([codes[left] for codes in self._codes])
            self._table[cells] = left
            left = left[self._table[cells] != left]


def code_of(dimension: str, text: str, snapshot: Snapshot) -> int | None:
    """Return the code that `text` has in `dimension` of this snapshot, None if it has none there."""
    match DIMENSIONS[dimension].values:
        case Values.NUMBER:
            return int(text) if text.isascii() and text.isdigit() else None
        case Values.CHOICE:
            choices = DIMENSIONS[dimension].choices
            return choices.index(text) if text in choices else None
        case Values.ADDRESS:
            return _code_of_address(dimension, text, snapshot)
        case Values.NAME:
            return next((code for code, name in snapshot.names.all_texts(dimension).items() if name == text), None)


def _code_of_address(dimension: str, text: str, snapshot: Snapshot) -> int | None:
    try:
        address, _mask = block(text)
    except ValueError:
        return None
    rows = np.flatnonzero((snapshot.addresses[dimension] == np.array(address, dtype=np.uint64)).all(axis=1))
    return int(snapshot.dimensions[dimension][rows[0]]) if len(rows) else None
