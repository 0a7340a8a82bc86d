"""Changes of totals per process, or per peer, since the previous tick."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from watchdog.kernel.totals_map import Totals


class TotalsDeltas:
    """Keeps the last totals of one map. An entry that was deleted and created again counts from zero."""

    def __init__(self, counters: Sequence[str]) -> None:
        """Compute differences of the fields `counters`."""
        self._counters = list(counters)
        self._known_keys: NDArray[np.void] = np.empty(0, "V1")  # sorted
        self._known = np.empty((0, len(self._counters)), np.uint64)

    def advance(self, totals: Totals) -> Totals:
        """Return the changed entries, with the change in their counters."""
        keys = np.ascontiguousarray(totals.keys).view(f"V{totals.keys.dtype.itemsize}")
        counts = np.stack([totals.values[name] for name in self._counters], axis=1)
        before = self._before(keys, counts)
        order = np.argsort(keys, kind="stable")
        self._known_keys, self._known = keys[order], counts[order]
        changed = np.flatnonzero((counts != before).any(axis=1))
        values = totals.values[changed]
        for name, change in zip(self._counters, (counts[changed] - before[changed]).T, strict=True):
            values[name] = change
        return Totals(totals.keys[changed], values)

    def _before(self, keys: NDArray[np.void], counts: NDArray[np.uint64]) -> NDArray[np.uint64]:
        before = np.zeros_like(counts)
        if not len(self._known_keys) or not len(keys):
            return before
        at = np.minimum(np.searchsorted(self._known_keys, keys), len(self._known_keys) - 1)
        known = self._known_keys[at] == keys
        before[known] = self._known[at[known]]
        before[(counts < before).any(axis=1)] = 0
        return before
