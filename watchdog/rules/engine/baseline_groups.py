"""The groups of one baseline: rows that last for weeks, beside slots of the engine, which last for two windows.

A row has a key of 64 bits, made of the texts of its labels, so that it is found again after a restart. The keys are
keyed by a secret of this host: nobody can choose names that share a row.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Snapshot
from watchdog.rules.engine.groups import NO_GROUP_SLOT, GroupSlots
from watchdog.rules.language.rule import Labels

Keys = NDArray[np.uint64]
RowNumbers = NDArray[np.intp]

NO_ROW: Final = -1
FORGOTTEN_DAYS: Final = 28  # without a value, after which a group is dropped
_MAX_SEEN = 255
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio


class BaselineGroups:
    """Rows by key. `keys`, `slots` (`NO_GROUP_SLOT` without one), `seen_hours` (at most 255), `unseen_days`: (n,)."""

    SAVED: Final = ("keys", "seen_hours", "unseen_days")

    def __init__(self) -> None:
        """Start without rows."""
        self.keys: Keys = np.zeros(0, np.uint64)
        self.slots: Slots = np.zeros(0, np.int32)
        self.seen_hours = np.zeros(0, np.uint8)
        self.unseen_days = np.zeros(0, np.uint8)
        self._order = np.zeros(0, np.int32)  # rows in rising order of their keys

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.keys)

    def find(self, keys: Keys) -> RowNumbers:
        """Return the row of each key, `NO_ROW` for unknown ones."""
        if not len(self.keys):
            return np.full(len(keys), NO_ROW)
        found = self._order[np.minimum(self.keys.searchsorted(keys, sorter=self._order), len(self.keys) - 1)]
        return np.where(self.keys[found] == keys, found, NO_ROW)

    def add(self, keys: Keys, slots: Slots) -> None:
        """Add rows with distinct new keys behind the others."""
        rows = np.arange(len(self.keys), len(self.keys) + len(keys), dtype=np.int32)
        sorting = keys.argsort()
        places = self.keys.searchsorted(keys[sorting], sorter=self._order)
        self._order = np.insert(self._order, places, rows[sorting])
        self.keys = np.concatenate((self.keys, keys))
        self.slots = np.concatenate((self.slots, slots))
        self.seen_hours = np.concatenate((self.seen_hours, np.zeros(len(keys), np.uint8)))
        self.unseen_days = np.concatenate((self.unseen_days, np.zeros(len(keys), np.uint8)))

    def keep(self, rows: RowNumbers) -> None:
        """Keep `rows`, in this order, and drop all others."""
        for name in ("slots", *self.SAVED):
            setattr(self, name, getattr(self, name)[rows])
        self._order = self.keys.argsort().astype(np.int32)

    def detach(self, is_new: NDArray[np.bool_]) -> None:
        """Take the slots that belong to new groups now, a mask of all slots, from the rows that had them."""
        self.slots[is_new[self.slots]] = NO_GROUP_SLOT

    def note_hour(self, rows: slice, seen: NDArray[np.bool_], *, is_day_over: bool) -> None:
        """Count an hour; `seen`: the rows with a value in it."""
        self.seen_hours[rows] += seen & (self.seen_hours[rows] < _MAX_SEEN)
        days = self.unseen_days[rows]
        self.unseen_days[rows] = np.where(seen, 0, days + (is_day_over & (days <= FORGOTTEN_DAYS)))

    def best_known(self, max_rows: int) -> RowNumbers:
        """Return the rows to keep: seen within 28 days, and of these at most `max_rows`, the best known ones.

        Better known: seen in more hours, then longer known.
        """
        rows = np.flatnonzero(self.unseen_days <= FORGOTTEN_DAYS)
        if len(rows) > max_rows:
            ranks = np.lexsort((rows, self.unseen_days[rows], -self.seen_hours[rows].astype(np.int16)))
            rows = np.sort(rows[ranks[:max_rows]])
        return rows


def group_keys(groups: GroupSlots, slots: Slots, snapshot: Snapshot, secret: bytes) -> Keys:
    """Return the key of the group of each of `slots`."""
    keys = np.zeros(len(slots), np.uint64)
    for place, (name, codes) in enumerate(zip(groups.by, groups.codes(slots), strict=True)):
        distinct, index = np.unique(codes, return_inverse=True)
        texts = [snapshot.names.text(name, code) for code in distinct.tolist()]
        hashes = np.array([_text_hash(text, secret) for text in texts], np.uint64)
        keys += hashes[index] * np.uint64(_multiplier(place))
    return keys


def key_of_labels(labels: Labels, secret: bytes) -> int:
    """Return the key of the group with `labels`, in the order of the rule's `by`."""
    return sum(_text_hash(text, secret) * _multiplier(place) for place, (_, text) in enumerate(labels)) % 2**64


def _text_hash(text: str, secret: bytes) -> int:
    data = text.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, key=secret).digest(), "little")


def _multiplier(place: int) -> int:
    return pow(_GOLDEN, place, 2**64) | 1
