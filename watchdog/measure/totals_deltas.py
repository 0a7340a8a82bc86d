"""Changes of totals per process since the previous tick."""

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
        self._known: dict[bytes, NDArray[np.uint64]] = {}

    def advance(self, totals: Totals) -> Totals:
        """Return the changed entries, with the change in their counters."""
        changed: list[int] = []
        differences: list[NDArray[np.uint64]] = []
        known = {}
        for number, key in enumerate(totals.keys):
            name = key.tobytes()
            total = np.array([totals.values[counter][number] for counter in self._counters], np.uint64)
            before = self._known.get(name)
            if before is None or (total < before).any():
                before = np.zeros_like(total)
            if (total != before).any():
                changed.append(number)
                differences.append(total - before)
            known[name] = total
        self._known = known
        values = totals.values[changed]
        for row, difference in enumerate(differences):
            for counter, value in zip(self._counters, difference.tolist(), strict=True):
                values[counter][row] = value
        return Totals(totals.keys[changed], values)
