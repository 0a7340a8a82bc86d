"""The table of live connections: one row each, whose columns stay from tick to tick.

A tick writes the rows that changed only. The rows are in no order, without gaps: the last rows replace removed ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from watchdog.measure.connection_metrics import ConnectionIds

Positions = NDArray[np.intp]

_FIRST_CAPACITY = 256


class ConnectionTable:
    """Rows by id of the connection."""

    def __init__(self, types: Mapping[str, DTypeLike]) -> None:
        """Start empty, with one column for each type; a type can have a shape."""
        self._types = {name: np.dtype(column_type) for name, column_type in types.items()}
        self._size = 0
        self._columns = {name: np.zeros(_FIRST_CAPACITY, column_type) for name, column_type in self._types.items()}
        self._row_ids = np.zeros(_FIRST_CAPACITY, np.uint64)
        self._ids = np.zeros(0, np.uint64)  # sorted
        self._at: Positions = np.zeros(0, np.intp)  # position of the row of each of `_ids`

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._size

    def column(self, name: str) -> NDArray[Any]:
        """Return a column, (n,) and the shape of its type; the caller can write to it. Valid until the next change."""
        return self._columns[name][: self._size]

    def ids(self) -> ConnectionIds:
        """Return the id of each row, (n,). Valid until the next change."""
        return self._row_ids[: self._size]

    def find(self, ids: ConnectionIds) -> Positions:
        """Return the position of each of `ids`, -1 where there is none."""
        if not self._size:
            return np.full(len(ids), -1, np.intp)
        found = np.minimum(np.searchsorted(self._ids, ids), self._size - 1)
        return np.where(self._ids[found] == ids, self._at[found], -1)

    def add(self, ids: ConnectionIds) -> Positions:
        """Add a row of zeros for each of `ids`, which are distinct and new; return their positions."""
        positions: Positions = np.arange(self._size, self._size + len(ids))
        if not len(ids):
            return positions
        self._reserve(self._size + len(ids))
        for column in self._columns.values():
            column[self._size : self._size + len(ids)] = 0
        self._row_ids[positions] = ids
        self._size += len(ids)
        order = np.argsort(ids)
        where = np.searchsorted(self._ids, ids[order])
        self._ids = np.insert(self._ids, where, ids[order])
        self._at = np.insert(self._at, where, positions[order])
        return positions

    def remove(self, positions: Positions) -> None:
        """Remove the rows at the distinct `positions`; the last rows move there."""
        if not len(positions):
            return
        self._drop_from_index(self._row_ids[positions])
        size = self._size - len(positions)
        removed = np.zeros(len(positions), np.bool_)  # of the last rows: whether they are removed themselves
        removed[positions[positions >= size] - size] = True
        sources, targets = size + np.flatnonzero(~removed), positions[positions < size]
        for column in (self._row_ids, *self._columns.values()):
            column[targets] = column[sources]
        self._at[np.searchsorted(self._ids, self._row_ids[targets])] = targets
        self._size = size

    def _drop_from_index(self, ids: ConnectionIds) -> None:
        kept = np.ones(self._size, np.bool_)
        kept[np.searchsorted(self._ids, ids)] = False
        self._ids, self._at = self._ids[kept], self._at[kept]

    def _reserve(self, size: int) -> None:
        capacity = len(self._row_ids)
        if size <= capacity:
            return
        added = max(size, 2 * capacity) - capacity
        self._row_ids = np.concatenate([self._row_ids, np.zeros(added, np.uint64)])
        for name, column in self._columns.items():
            self._columns[name] = np.concatenate([column, np.zeros((added, *column.shape[1:]), column.dtype)])
