"""Moving many wide rows fast: numpy copies a structured row field by field, and reads of a field a cache line per row.

Rows are copied as opaque bytes, and all fields that are needed are laid out one after the other in one go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1024  # rows that stay in a core's cache while each of their fields is copied: 208 kB


def concatenate_rows(parts: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    """Return the rows of all parts, which have one type, as an array of its own."""
    rows = np.empty(sum(len(part) for part in parts), parts[0].dtype)
    at = 0
    for part in parts:
        _opaque(rows)[at : at + len(part)] = _opaque(part)
        at += len(part)
    return rows


def select_rows(rows: NDArray[np.void], selection: NDArray[np.intp] | NDArray[np.bool_]) -> NDArray[np.void]:
    """Return the rows that `which`, numbers or a mask, selects."""
    chosen: NDArray[np.void] = _opaque(rows)[selection].view(rows.dtype)
    return chosen


def assign_rows(rows: NDArray[np.void], which: NDArray[np.bool_], values: NDArray[np.void]) -> None:
    """Set the rows that `which` selects."""
    _opaque(rows)[which] = _opaque(values)


def extract_fields(rows: NDArray[np.void], names: Iterable[str]) -> dict[str, Any]:
    """Return fields of `rows` as contiguous arrays."""
    found = {name: np.empty(len(rows), rows.dtype[name]) for name in names}
    for at in range(0, len(rows), _BLOCK):
        block = rows[at : at + _BLOCK]
        for name, values in found.items():
            values[at : at + _BLOCK] = block[name]
    return found


def _opaque(rows: NDArray[np.void]) -> NDArray[np.void]:
    return rows.view(f"V{rows.dtype.itemsize}")
