"""A bounded table of keys. Each key has a slot, the index of its data in plain arrays of the caller.

A hash table in numpy arrays finds the slots of all rows at once, without sorting: the cost of a tick depends on its
rows only. A new key reuses the slot of a key that was idle for long. The number of slots is bounded, because processes
and their peers, which supply the keys, can create new keys without end.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from watchdog.clock import SECOND_NS

Slots = NDArray[np.int32]
KeyColumns = Sequence[NDArray[np.unsignedinteger]]

NO_SLOT: Final = np.int32(-1)
NEVER_NS: Final = -(2**62)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Fibonacci hashing, Knuth TAOCP 3, 6.4
_FIRST_CAPACITY = 256
_CELLS_PER_SLOT = 4  # at most a quarter full: probe chains stay short
_RECLAIM_SHARE = 4  # grow unless a quarter of the slots is reclaimed
_FULL_RETRY_NS = 5 * SECOND_NS  # pause between two searches of a full table for idle keys: they cost more than a tick


class SlotTable:
    """Keys of one or more columns of unsigned numbers.

    `capacity`: number of slots; those below `size` were used at least once. `keys`: by column, (capacity,). `seen_ns`:
    (capacity,), time of the last `assign` of a key; the caller can set it too. `new_slots`: the slots that the last
    `assign` gave to new keys.
    """

    def __init__(self, key_types: Sequence[DTypeLike], *, reserved: int, max_slots: int) -> None:
        """Start empty. The first `reserved` slots belong to the caller; there are at most `max_slots` slots."""
        self.capacity = _FIRST_CAPACITY
        self.size = self._reserved = reserved
        self.keys: list[NDArray[np.unsignedinteger]] = [np.zeros(self.capacity, key_type) for key_type in key_types]
        self.seen_ns = np.full(self.capacity, NEVER_NS)
        self.new_slots: Slots = np.zeros(0, np.int32)
        self._max_slots = max_slots
        self._free: Slots = np.zeros(0, np.int32)
        self._cells = np.full(self.capacity * _CELLS_PER_SLOT, NO_SLOT)
        # Odd, and random in each process: an attacker cannot choose keys that collide.
        self._multipliers = [np.uint64(secrets.randbits(64) | 1 << 63 | 1) for _ in key_types]
        self._full_until_ns = NEVER_NS

    def assign(self, columns: KeyColumns, now_ns: int, idle_since_ns: int) -> Slots:
        """Return the slot of every key, (n,), also of new keys; `NO_SLOT` for new keys when the table is full.

        New keys can reuse the slots of keys whose `seen_ns` is `idle_since_ns` or earlier.
        """
        self.new_slots = np.zeros(0, np.int32)
        slots = self.find(columns)
        missing = np.flatnonzero(slots == NO_SLOT)
        # Before any slot is reclaimed: the keys of this tick must keep their slots.
        self.seen_ns[slots if not len(missing) else slots[slots != NO_SLOT]] = now_ns
        if len(missing):
            slots[missing] = self._insert([column[missing] for column in columns], now_ns, idle_since_ns)
        return slots

    def find(self, columns: KeyColumns) -> Slots:
        """Return the slot of each key, (n,), `NO_SLOT` for unknown keys."""
        cells = self._hash(columns)
        slots = self._cells[cells]
        other = np.flatnonzero(self._differs(slots, columns))
        while len(other):
            cells[other] = (cells[other] + 1) & (len(self._cells) - 1)
            slots[other] = self._cells[cells[other]]
            other = other[self._differs(slots[other], [column[other] for column in columns])]
        return slots

    def _hash(self, columns: KeyColumns) -> NDArray[np.int64]:
        mixed = columns[0] * self._multipliers[0]
        for column, multiplier in zip(columns[1:], self._multipliers[1:], strict=True):
            mixed += column * multiplier
        mixed ^= mixed >> np.uint64(32)  # a multiplier near a simple fraction of 2^64 would cluster consecutive keys
        mixed *= _GOLDEN
        bits = len(self._cells).bit_length() - 1
        return (mixed >> np.uint64(64 - bits)).astype(np.int64)

    def _differs(self, slots: Slots, columns: KeyColumns) -> NDArray[np.bool_]:
        """Return, (n,), whether the slot belongs to another key."""
        differs = np.zeros(len(slots), dtype=np.bool_)
        for column, keys in zip(columns, self.keys, strict=True):
            differs |= keys[slots] != column
        differs &= slots != NO_SLOT
        return differs

    def _insert(self, columns: KeyColumns, now_ns: int, idle_since_ns: int) -> Slots:
        """Assign a slot to each distinct key. No key has one yet.

        All rows write their number into the first empty cell of their chain at once. The row whose number remains in
        the cell creates the slot of its key; the other rows search again: they find that slot, or the next empty cell.
        """
        slots = np.full(len(columns[0]), NO_SLOT)
        left = np.arange(len(slots), dtype=np.int32)
        while len(left):
            keys = [column[left] for column in columns]
            cells = self._first_empty(keys)
            self._cells[cells] = left
            winners = np.flatnonzero(self._cells[cells] == left)
            if len(winners) > self._free_count():
                self._cells[cells] = NO_SLOT
                if self._make_room(len(winners), now_ns, idle_since_ns):
                    continue
                winners = winners[: self._free_count()]
                if not len(winners):
                    break
            new = self._allocate(len(winners))
            for kept, key in zip(self.keys, keys, strict=True):
                kept[new] = key[winners]
            self.seen_ns[new] = now_ns
            self.new_slots = np.concatenate((self.new_slots, new))
            self._cells[cells[winners]] = new
            slots[left] = self.find(keys)
            left = left[slots[left] == NO_SLOT]
        return slots

    def _first_empty(self, columns: KeyColumns) -> NDArray[np.int64]:
        cells = self._hash(columns)
        taken = np.flatnonzero(self._cells[cells] != NO_SLOT)
        while len(taken):
            cells[taken] = (cells[taken] + 1) & (len(self._cells) - 1)
            taken = taken[self._cells[cells[taken]] != NO_SLOT]
        return cells

    def _free_count(self) -> int:
        return self.capacity - self.size + len(self._free)

    def _allocate(self, count: int) -> Slots:
        """Return `count` slots for new keys: reclaimed slots first."""
        reused, self._free = self._free[:count], self._free[count:]
        fresh = np.arange(self.size, self.size + count - len(reused), dtype=np.int32)
        self.size += len(fresh)
        return np.concatenate((reused, fresh))

    def _make_room(self, count: int, now_ns: int, idle_since_ns: int) -> bool:
        """Provide `count` free slots: reclaim idle ones, and grow when they are not enough.

        Return False when a full table was searched recently. After True there can still be fewer free slots.
        """
        if now_ns < self._full_until_ns:
            return False
        idle = self.seen_ns[: self.size] <= idle_since_ns
        idle[: self._reserved] = False
        self._free = np.flatnonzero(idle).astype(np.int32)
        self.seen_ns[self._free] = NEVER_NS
        capacity = self.capacity
        while capacity - self.capacity + self._free_count() < max(count, capacity // _RECLAIM_SHARE):
            if 2 * capacity > self._max_slots:
                self._full_until_ns = now_ns + _FULL_RETRY_NS
                break
            capacity *= 2
        grown = capacity - self.capacity
        self.keys = [np.concatenate((keys, np.zeros(grown, keys.dtype))) for keys in self.keys]
        self.seen_ns = np.concatenate((self.seen_ns, np.full(grown, NEVER_NS)))
        self.capacity = capacity
        self._rebuild()
        return True

    def _rebuild(self) -> None:
        """Rebuild the hash table from the slots in use."""
        live = np.ones(self.size, dtype=np.bool_)
        live[self._free] = live[: self._reserved] = False
        left = np.flatnonzero(live).astype(np.int32)
        self._cells = np.full(self.capacity * _CELLS_PER_SLOT, NO_SLOT)
        while len(left):
            cells = self._first_empty([keys[left] for keys in self.keys])
            self._cells[cells] = left
            left = left[self._cells[cells] != left]
