"""The combinations of `by` that a rule with novelty has seen, with the time when each was last seen.

A combination is a key of 64 bits. Times are seconds of observed time, which runs while the daemon measures: no
clock can set it. Names from the host can make new combinations without end, so that at most `MAX_COMBINATIONS` of a
rule are kept: those that were seen least recently are dropped first, and counted.

The saved time of a combination in use is older than the true one, which saves writes. After a restart, a combination
that is not seen again is kept longer by this difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from watchdog.rules.engine.selection import Mask

MAX_COMBINATIONS: Final = 65_536
CHUNKS: Final = 16  # in which they are saved, by the highest bits of the key: a new one costs the write of one chunk
_CHUNK_SHIFT = np.uint64(60)
_DROPPED_SHARE = 64  # of the room, at a time, beyond the excess
_MIN_SAVED_SECONDS, _MAX_SAVED_SECONDS = 120, 86_400
_UPDATE_SECONDS = 60  # after which times follow the connections, at the latest
_SAVED_SHARE = 24  # of the time after which a combination is forgotten

Keys = NDArray[np.uint64]
SAVED = np.dtype([("key", "<u8"), ("second", "<u4")])


def combination_key(values: Iterable[str]) -> int:
    """Return the key of a combination of label values, in the order of `by`."""
    digest = hashlib.blake2b(digest_size=8)
    for value in values:
        digest.update(value.encode("utf-8", "surrogateescape") + b"\xff")  # UTF-8 never contains 0xff
    return int.from_bytes(digest.digest(), "little")


class SeenCombinations:
    """Keys in rising order, and the second at which each was last seen; `dropped`: number of those without room.

    `saved_seconds`: a newer time of a known combination is saved after so many seconds.
    """

    def __init__(self, max_combinations: int = MAX_COMBINATIONS) -> None:
        """Start empty."""
        self.dropped = 0
        self.max_combinations = max_combinations
        self.saved_seconds = _MAX_SAVED_SECONDS
        self._keys: Keys = np.zeros(0, np.uint64)
        self._seconds = np.zeros(0, np.uint32)
        self._saved_seconds = np.zeros(0, np.uint32)
        self._is_restored: Mask = np.zeros(0, np.bool_)  # not seen since a restart
        self._changed = np.zeros(CHUNKS, np.bool_)

    def __len__(self) -> int:
        """Return the number of combinations."""
        return len(self._keys)

    def contain(self, keys: Keys) -> Mask:
        """Return a mask of `keys`: those that are kept."""
        if not len(self._keys):
            return np.zeros(len(keys), np.bool_)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.asarray(self._keys[at] == keys)

    def mark_seen(self, keys: Keys, seconds: NDArray[np.uint32]) -> None:
        """Set the seconds at which kept `keys` were seen; others are ignored."""
        known = self.contain(keys)
        at = np.searchsorted(self._keys, keys[known])
        np.maximum.at(self._seconds, at, seconds[known])
        self._is_restored[at] = False
        stale = self._seconds[at] >= self._saved_seconds[at] + self.saved_seconds
        self._mark_changed(keys[known][stale])

    def add(self, keys: Keys, second: int) -> None:
        """Add distinct `keys` that are not kept yet; drop those that were seen least recently where room is short."""
        excess = len(self._keys) + len(keys) - self.max_combinations
        if excess > 0:
            self._drop_oldest(excess + self.max_combinations // _DROPPED_SHARE)
        if len(keys) > self.max_combinations:
            self.dropped += len(keys) - self.max_combinations
            keys = keys[: self.max_combinations]
        order = np.argsort(keys)
        where = np.searchsorted(self._keys, keys[order])
        self._keys = np.insert(self._keys, where, keys[order])
        self._seconds = np.insert(self._seconds, where, np.uint32(second))
        self._saved_seconds = np.insert(self._saved_seconds, where, np.uint32(second))
        self._is_restored = np.insert(self._is_restored, where, False)
        self._mark_changed(keys)

    def set_forget(self, seconds: int) -> None:
        """Set the time after which combinations are forgotten: saved times are exact to a part of it."""
        self.saved_seconds = min(_MAX_SAVED_SECONDS, max(seconds // _SAVED_SHARE, _MIN_SAVED_SECONDS))

    def forget_before(self, second: int) -> None:
        """Forget the combinations that were last seen before `second`."""
        newest = self._seconds + self._is_restored * np.int64(self.saved_seconds + _UPDATE_SECONDS)
        self._keep(newest >= second)

    def _drop_oldest(self, count: int) -> None:
        count = min(count, len(self._keys))
        oldest = np.argsort(self._seconds, kind="stable")[:count]
        kept = np.ones(len(self._keys), np.bool_)
        kept[oldest] = False
        self.dropped += count
        self._keep(kept)

    def _keep(self, kept: Mask) -> None:
        if kept.all():
            return
        self._mark_changed(self._keys[~kept])
        for name in ("_keys", "_seconds", "_saved_seconds", "_is_restored"):
            setattr(self, name, getattr(self, name)[kept])

    def _mark_changed(self, keys: Keys) -> None:
        self._changed[(keys >> _CHUNK_SHIFT).astype(np.intp)] = True

    def mark_all_changed(self) -> None:
        """Mark everything as changed: the saved parts may be gone."""
        self._changed[:] = True

    def take_changes(self) -> dict[int, bytes | None]:
        """Return the content of each chunk that changed since the last call, by number; None for an empty one."""
        changes: dict[int, bytes | None] = {}
        for chunk in np.flatnonzero(self._changed).tolist():
            inside = self._keys >> _CHUNK_SHIFT == np.uint64(chunk)
            saved = np.empty(int(inside.sum()), SAVED)
            saved["key"], saved["second"] = self._keys[inside], self._seconds[inside]
            self._saved_seconds[inside] = self._seconds[inside]
            changes[chunk] = saved.tobytes() if len(saved) else None
        self._changed[:] = False
        return changes

    @classmethod
    def restore(cls, chunks: Iterable[bytes]) -> Self:
        """Return the combinations of the chunks that `take_changes` returned.

        Raises:
            ValueError: a chunk has no whole number of combinations.
        """
        seen = cls()
        saved = np.concatenate([np.empty(0, SAVED), *(np.frombuffer(chunk, SAVED) for chunk in chunks)])
        saved = saved[np.unique(saved["key"], return_index=True)[1]][:MAX_COMBINATIONS]
        seen._keys, seen._seconds = saved["key"].copy(), saved["second"].copy()
        seen._saved_seconds = seen._seconds.copy()
        seen._is_restored = np.ones(len(saved), np.bool_)
        return seen
