"""Values of groups over windows above an hour, in coarse buckets of time.

A window has `LONG_WINDOW_BUCKETS` buckets. A value is made of the newest bucket and all that lie whole in the window:
it covers the newest part of the window, at most one bucket shorter than the window. So a sum never has more than its
window.

Time is an axis of its own, in ns: it runs with CLOCK_BOOTTIME, and over restarts and reboots. Groups are known by a key
of their label values, for names lose their codes within hours. Processes can make new names without end, so that at
most `MAX_GROUPS` are kept: those with the smallest values are dropped first, and counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from watchdog.clock import SECOND_NS
from watchdog.errors import DocumentError, document_errors
from watchdog.measure.snapshot import Numbers
from watchdog.rules.engine.seen_combinations import Keys, combination_key
from watchdog.rules.language.long_windows import LONG_WINDOW_BUCKETS
from watchdog.rules.language.rule import StatKind

MAX_GROUPS: Final = 2_048
_RING = LONG_WINDOW_BUCKETS + 1
_EMPTY = -1  # number of a place of the ring without a bucket
_DROPPED_SHARE = 16  # of the room, at a time
_SAVE_NS = 60 * SECOND_NS
_ROOM_NS = 60 * SECOND_NS  # between two times at which groups are dropped for new ones
_SAVED = np.dtype([("key", "<u8"), ("value", "<f8")])
_HEADER, _GROUPS = "window", "window:groups"
PART_NAMES: Final = (_HEADER, _GROUPS, *(f"window:{place}" for place in range(_RING)))
"""Names of the saved parts of a table."""

Rows = NDArray[np.intp]


class LongWindowTable:
    """One row for each group, one column for each bucket."""

    def __init__(
        self, definition: str, stat: StatKind, window_ns: int, max_groups: int = MAX_GROUPS, *, keeps_idle: bool = False
    ) -> None:
        """Start without groups.

        `stat`: the greatest or least value of a tick, else the sum of the ticks' values. `keeps_idle`: whether a group
        stays for another window after everything of it has left the window.
        """
        self.definition = definition
        self.window_ns = window_ns
        self.axis_ns = 0
        """Time on the axis of the newest tick; it begins with 0."""
        self.dropped = 0
        """Number of groups that were dropped for want of room."""
        self._stat = stat
        self._max_groups = max_groups
        self.keeps_idle = keeps_idle
        self._bucket_ns = -(-window_ns // LONG_WINDOW_BUCKETS)
        self._at_ns: int | None = None  # CLOCK_BOOTTIME of the newest tick
        self._lost_ns: int | None = None  # on the axis: the newest tick that missed something
        self._numbers = np.full(_RING, _EMPTY, np.int64)
        self._labels: list[tuple[str, ...]] = []
        self._keys: Keys = np.zeros(0, np.uint64)
        self._rows_by_key: dict[int, int] = {}
        self._buckets: Numbers = np.zeros((_RING, 0))
        self._values: Numbers = np.zeros(0)
        self._active = np.zeros(0, np.int64)  # number of the newest bucket in which the group had something
        self._changed = np.zeros(_RING, np.bool_)
        self._have_groups_changed = False
        self._saved_ns: int | None = None
        self._room_ns = 0  # on the axis: when room was made last
        self._moves: list[Rows] = []
        self.room_version = 0
        """Changes whenever there is room for groups that had none."""

    @property
    def _idle_buckets(self) -> int:
        return LONG_WINDOW_BUCKETS if self.keeps_idle else 0

    @property
    def is_filled(self) -> bool:
        """Return whether the table has seen a whole window."""
        return self.axis_ns >= self.window_ns

    @property
    def has_losses(self) -> bool:
        """Return whether a tick of the window missed something."""
        return self._lost_ns is not None and self._lost_ns > self.axis_ns - self.window_ns

    @property
    def covered_ns(self) -> int:
        """Return the time from the begin of the oldest bucket of the window until now."""
        return self.axis_ns - self._first_bucket * self._bucket_ns

    @property
    def _first_bucket(self) -> int:
        return (self.axis_ns - self.window_ns) // self._bucket_ns + 1

    def values(self) -> Numbers:
        """Return the value of each row over the window, (n,)."""
        return self._values

    def labels(self, row: int) -> tuple[str, ...]:
        """Return the label values of the group of `row`, in the order of `by`."""
        return self._labels[row]

    def row(self, labels: tuple[str, ...]) -> int | None:
        """Return the row of the group with these label values, None without one."""
        return self._rows_by_key.get(combination_key(labels))

    def find_or_add(self, groups: Sequence[tuple[str, ...]]) -> Rows:
        """Return the row of each of `groups`, by label values; -1 for new ones without room, which are counted."""
        keys = [combination_key(labels) for labels in groups]
        new = {key: labels for key, labels in zip(keys, groups, strict=True) if key not in self._rows_by_key}
        if new:
            room = self._max_groups - len(self._labels)
            self.dropped += max(len(new) - room, 0)
            self._append(dict(list(new.items())[:room]))
        return np.array([self._rows_by_key.get(key, -1) for key in keys], np.intp)

    def take_moves(self) -> list[Rows]:
        """Return for each removal of groups since the last call the new row of each row, -1 for those removed."""
        moves, self._moves = self._moves, []
        return moves

    def advance(self, at_ns: int, *, misses: bool) -> None:
        """Move on to the tick at `at_ns`; `misses`: something of it is lost."""
        self.axis_ns += 0 if self._at_ns is None else max(at_ns - self._at_ns, 0)
        self._at_ns = at_ns
        if misses:
            self._lost_ns = self.axis_ns
        if len(self._labels) >= self._max_groups and self.axis_ns - self._room_ns >= _ROOM_NS:
            self._room_ns = self.axis_ns
            self._drop_smallest(self._max_groups // _DROPPED_SHARE)
        number = self.axis_ns // self._bucket_ns
        if self._numbers[number % _RING] == number:
            return
        place = number % _RING
        self._numbers[place], self._changed[place] = number, True
        self._buckets[place] = self._neutral
        old = (self._numbers != _EMPTY) & (self._numbers < self._first_bucket)
        self._numbers[old], self._changed[old] = _EMPTY, True
        self._buckets[old] = self._neutral
        self._keep(self._active >= self._first_bucket - self._idle_buckets)
        self._recompute()

    def add(self, rows: Rows, values: Numbers) -> None:
        """Add the values of the newest tick to distinct `rows`; the other rows have 0 in it."""
        number = self.axis_ns // self._bucket_ns
        place = number % _RING
        bucket = self._buckets[place]
        self._active[rows] = number
        match self._stat:
            case StatKind.MAX:
                bucket[rows] = np.maximum(bucket[rows], values)
                self._values[rows] = np.maximum(self._values[rows], values)
            case StatKind.MIN:
                all_values = np.zeros(len(bucket))
                all_values[rows] = values
                np.minimum(bucket, all_values, out=bucket)
                np.minimum(self._values, all_values, out=self._values)
            case _:
                bucket[rows] += values
                self._values[rows] += values
        self._changed[place] |= self._stat is StatKind.MIN or bool(len(rows))

    @property
    def _neutral(self) -> float:
        return np.inf if self._stat is StatKind.MIN else 0.0

    def _append(self, groups: Mapping[int, tuple[str, ...]]) -> None:
        for key, labels in groups.items():
            self._rows_by_key[key] = len(self._labels)
            self._labels.append(labels)
        self._keys = np.concatenate([self._keys, np.array(list(groups), np.uint64)])
        # A group has 0 in the ticks before its first one.
        earlier = np.zeros((_RING, len(groups)))
        earlier[self._numbers == _EMPTY] = self._neutral
        self._buckets = np.concatenate([self._buckets, earlier], axis=1)
        self._values = np.concatenate([self._values, np.zeros(len(groups))])
        number = self.axis_ns // self._bucket_ns
        self._active = np.concatenate([self._active, np.full(len(groups), number, np.int64)])
        self._have_groups_changed = True

    def _drop_smallest(self, count: int) -> None:
        count = min(count, len(self._labels))
        kept = np.ones(len(self._labels), np.bool_)
        kept[np.argsort(self._values, kind="stable")[:count]] = False
        self.dropped += count
        self._keep(kept)

    def _keep(self, kept: NDArray[np.bool_]) -> None:
        """Keep the rows of the mask `kept`."""
        if kept.all():
            return
        self._moves.append(np.where(kept, np.cumsum(kept) - 1, -1))
        self.room_version += 1
        self._labels = [labels for labels, is_kept in zip(self._labels, kept.tolist(), strict=True) if is_kept]
        self._keys, self._buckets, self._values = self._keys[kept], self._buckets[:, kept], self._values[kept]
        self._active = self._active[kept]
        self._rows_by_key = {key: row for row, key in enumerate(self._keys.tolist())}
        self._have_groups_changed = True

    def _recompute(self) -> None:
        match self._stat:
            case StatKind.MAX:
                self._values = self._buckets.max(axis=0)
            case StatKind.MIN:
                least = self._buckets.min(axis=0)
                self._values = np.where(np.isfinite(least), least, 0.0)
            case _:
                self._values = self._buckets.sum(axis=0)

    # What is saved

    def mark_changed(self) -> None:
        """Mark everything as changed: the saved parts may be gone."""
        self._changed[:] = self._have_groups_changed = True
        self._saved_ns = None

    def take_changes(self, *, at_once: bool = False) -> dict[str, bytes | None]:
        """Return the changed parts, by name, once a minute; `at_once`: now."""
        if not at_once and self._saved_ns is not None and self.axis_ns - self._saved_ns < _SAVE_NS:
            return {}
        self._saved_ns = self.axis_ns
        names = ("definition", "axis_ns", "_at_ns", "_lost_ns", "dropped")
        header = {name.lstrip("_"): getattr(self, name) for name in names}
        changes: dict[str, bytes | None] = {_HEADER: json.dumps(header).encode()}
        if self._have_groups_changed:
            changes[_GROUPS] = json.dumps(self._labels).encode()
        for place in np.flatnonzero(self._changed).tolist():
            changes[f"window:{place}"] = self._saved_bucket(place)
        self._changed[:] = self._have_groups_changed = False
        return changes

    def _saved_bucket(self, place: int) -> bytes | None:
        bucket = self._buckets[place]
        rows = np.flatnonzero(bucket != self._neutral)
        if self._numbers[place] == _EMPTY:
            return None
        saved = np.empty(len(rows) + 1, _SAVED)
        saved["key"][0], saved["value"][0] = self._numbers[place], 0
        saved["key"][1:], saved["value"][1:] = self._keys[rows], bucket[rows]
        return saved.tobytes()

    def restore(self, parts: Mapping[str, bytes], boottime_shift_ns: int) -> bool:
        """Take the saved `parts` over; return False if there are none of this definition, or they are damaged.

        `boottime_shift_ns`: difference of CLOCK_BOOTTIME to that of the boot that saved them.
        """
        try:
            with document_errors():
                header: dict[str, Any] = json.loads(parts[_HEADER])
                if header["definition"] != self.definition:
                    return False
                labels = [tuple(map(str, values)) for values in json.loads(parts.get(_GROUPS, b"[]"))]
                buckets = {
                    place: np.frombuffer(parts[f"window:{place}"], _SAVED)
                    for place in range(_RING)
                    if f"window:{place}" in parts
                }
                axis_ns, at_ns = int(header["axis_ns"]), int(header["at_ns"]) + boottime_shift_ns
                lost_ns = None if header["lost_ns"] is None else int(header["lost_ns"])
                dropped = int(header["dropped"])
        except DocumentError:
            return False
        self.axis_ns, self._at_ns, self._lost_ns, self.dropped = axis_ns, at_ns, lost_ns, dropped
        self._append({combination_key(values): values for values in labels[: self._max_groups]})
        for place, saved in buckets.items():
            self._restore_bucket(place, saved)
        self._recompute()
        something = np.isfinite(self._buckets) & (self._buckets != 0)
        newest = np.where(something, self._numbers[:, np.newaxis], _EMPTY).max(axis=0, initial=_EMPTY)
        idle = self._first_bucket - 1 if self._idle_buckets else self._active
        self._active = np.where(newest == _EMPTY, idle, newest)
        self._have_groups_changed, self._saved_ns = False, self.axis_ns
        return True

    def _restore_bucket(self, place: int, saved: NDArray[np.void]) -> None:
        number = int(saved["key"][0]) if len(saved) else _EMPTY
        if not (self._first_bucket <= number <= self.axis_ns // self._bucket_ns and number % _RING == place):
            return
        rows = [self._rows_by_key.get(key, -1) for key in saved["key"][1:].tolist()]
        there = np.array(rows, np.intp) >= 0
        self._numbers[place] = number
        self._buckets[place] = self._neutral
        self._buckets[place, np.array(rows, np.intp)[there]] = saved["value"][1:][there]
