"""A bounded table of keys, each with a slot, so that what is known of them fits into plain arrays.

Slots are found by a hash table held in numpy arrays and probed for all rows at once: a tick costs what it carries,
without sorting. A key that was not seen for long gives its slot to the next new one; how many there may be is bounded,
for keys come from processes and their peers, which are free to make up ever new ones.
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
_WORTH_RECLAIMING = 4  # grow unless a quarter of the slots comes free
_FULL_FOR_NS = 5 * SECOND_NS  # a full table is searched for silent keys so seldom: that costs much more than a tick


class SlotTable:
    """Keys of one or more columns of unsigned numbers.

    `capacity` slots exist, those below `size` were ever used. `keys`: by column, (capacity,); `seen_ns`: (capacity,),
    when a key came last, which the caller may set too. `founded`: the slots that the newest `assign` gave to new keys.
    """

    def __init__(self, key_types: Sequence[DTypeLike], *, reserved: int, max_slots: int) -> None:
        """Start empty. The first `reserved` slots are the caller's own; there are never more than `most` slots."""
        self.capacity = _FIRST_CAPACITY
        self.size = self._reserved = reserved
        self.keys: list[NDArray[np.unsignedinteger]] = [np.zeros(self.capacity, kind) for kind in key_types]
        self.seen_ns = np.full(self.capacity, NEVER_NS)
        self.new_slots: Slots = np.zeros(0, np.int32)
        self._most = max_slots
        self._free: Slots = np.zeros(0, np.int32)
        self._cells = np.full(self.capacity * _CELLS_PER_SLOT, NO_SLOT)
        # Odd and at random in each process: nobody outside can know which keys collide.
        self._multipliers = [np.uint64(secrets.randbits(64) | 1 << 63 | 1) for _ in key_types]
        self._full_until_ns = NEVER_NS

    def assign(self, columns: KeyColumns, now_ns: int, idle_since_ns: int) -> Slots:
        """Return the slot of every key, (n,), new ones included; `NO_SLOT` for those that found no room.

        Slots of keys that were seen at or before `silent_since_ns` for the last time may be given to new ones.
        """
        self.new_slots = np.zeros(0, np.int32)
        slots = self.find(columns)
        missing = np.flatnonzero(slots == NO_SLOT)
        # Seen before any slot is reclaimed: the keys of this very tick are to be spared.
        self.seen_ns[slots if not len(missing) else slots[slots != NO_SLOT]] = now_ns
        if len(missing):
            slots[missing] = self._insert([column[missing] for column in columns], now_ns, idle_since_ns)
        return slots

    def find(self, columns: KeyColumns) -> Slots:
        """Return the slot of each key, `NO_SLOT` for those that have none."""
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
        mixed ^= mixed >> np.uint64(32)  # a multiplier near a simple fraction of 2^64 would leave counted keys in heaps
        mixed *= _GOLDEN
        bits = len(self._cells).bit_length() - 1
        return (mixed >> np.uint64(64 - bits)).astype(np.int64)

    def _differs(self, slots: Slots, columns: KeyColumns) -> NDArray[np.bool_]:
        """Tell which keys met a cell that another key holds."""
        differs = np.zeros(len(slots), dtype=np.bool_)
        for column, keys in zip(columns, self.keys, strict=True):
            differs |= keys[slots] != column
        differs &= slots != NO_SLOT
        return differs

    def _insert(self, columns: KeyColumns, now_ns: int, silent_since_ns: int) -> Slots:
        """Give a slot to each distinct key; none of them has one yet.

        All rows claim the first empty cell of their chain at once; the one whose claim stands founds the key's slot,
        the others look again: they find it founded, or go on along the chain.
        """
        slots = np.full(len(columns[0]), NO_SLOT)
        left = np.arange(len(slots), dtype=np.int32)
        while len(left):
            keys = [column[left] for column in columns]
            cells = self._first_empty(keys)
            self._cells[cells] = left
            founders = np.flatnonzero(self._cells[cells] == left)
            if len(founders) > self._room():
                self._cells[cells] = NO_SLOT
                if self._make_room(len(founders), now_ns, silent_since_ns):
                    continue
                founders = founders[: self._room()]
                if not len(founders):
                    break
            new = self._take(len(founders))
            for kept, key in zip(self.keys, keys, strict=True):
                kept[new] = key[founders]
            self.seen_ns[new] = now_ns
            self.new_slots = np.concatenate((self.new_slots, new))
            self._cells[cells[founders]] = new
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

    def _room(self) -> int:
        return self.capacity - self.size + len(self._free)

    def _take(self, count: int) -> Slots:
        """Return `count` slots to use: those given back first."""
        reused, self._free = self._free[:count], self._free[count:]
        fresh = np.arange(self.size, self.size + count - len(reused), dtype=np.int32)
        self.size += len(fresh)
        return np.concatenate((reused, fresh))

    def _make_room(self, count: int, now_ns: int, silent_since_ns: int) -> bool:
        """See to it that `count` slots can be taken: reclaim silent ones, grow when that gives too little.

        Return whether it was tried; if so, there may be less room all the same, and it is not tried again at once.
        """
        if now_ns < self._full_until_ns:
            return False
        silent = self.seen_ns[: self.size] <= silent_since_ns
        silent[: self._reserved] = False
        self._free = np.flatnonzero(silent).astype(np.int32)
        self.seen_ns[self._free] = NEVER_NS
        capacity = self.capacity
        while capacity - self.capacity + self._room() < max(count, capacity // _WORTH_RECLAIMING):
            if 2 * capacity > self._most:
                self._full_until_ns = now_ns + _FULL_FOR_NS
                break
            capacity *= 2
        grown = capacity - self.capacity
        self.keys = [np.concatenate((keys, np.zeros(grown, keys.dtype))) for keys in self.keys]
        self.seen_ns = np.concatenate((self.seen_ns, np.full(grown, NEVER_NS)))
        self.capacity = capacity
        self._rebuild()
        return True

    def _rebuild(self) -> None:
        """Make the hash table anew from the slots in use."""
        live = np.ones(self.size, dtype=np.bool_)
        live[self._free] = live[: self._reserved] = False
        left = np.flatnonzero(live).astype(np.int32)
        self._cells = np.full(self.capacity * _CELLS_PER_SLOT, NO_SLOT)
        while len(left):
            cells = self._first_empty([keys[left] for keys in self.keys])
            self._cells[cells] = left
            left = left[self._cells[cells] != left]
