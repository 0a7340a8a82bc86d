"""The rows of a tick that conditions select, for `sample --where`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from watchdog.measure.deltas import Changes
from watchdog.measure.snapshot import Snapshot

_Column = TypeVar("_Column", bound=NDArray[np.generic])


class _SelectedColumns(Mapping[str, _Column]):
    """Columns of which some rows are selected when they are read: codes of addresses are made on demand."""

    def __init__(self, columns: Mapping[str, _Column], numbers: NDArray[np.intp]) -> None:
        self._columns = columns
        self._numbers = numbers

    def __getitem__(self, name: str) -> _Column:
        return cast("_Column", self._columns[name][self._numbers])

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def select_rows(changes: Changes, snapshot: Snapshot, mask: NDArray[np.bool_]) -> tuple[Changes, Snapshot]:
    """Return the rows of one tick in `mask` and the watchdog's own row, which is the last one of the changes.

    `mask`: of the rows of the snapshot; the first of these are the rows of the changes. The result is for the
    aggregates of `sample`: rows, metrics, responses, dimensions and addresses alone are selected.
    """
    mask = mask[: len(changes.rows)].copy()
    mask[-1:] = True
    numbers = np.flatnonzero(mask)
    positions = np.cumsum(mask) - 1
    responses = changes.responses
    kept = mask[responses.rows]
    return (
        replace(
            changes,
            rows=changes.rows[numbers],
            metrics=_SelectedColumns(changes.metrics, numbers),
            responses=replace(responses, rows=positions[responses.rows[kept]], seconds=responses.seconds[kept]),
        ),
        replace(
            snapshot,
            dimensions=_SelectedColumns(snapshot.dimensions, numbers),
            addresses=_SelectedColumns(snapshot.addresses, numbers),
        ),
    )
