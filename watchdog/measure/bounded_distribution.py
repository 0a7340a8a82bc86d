"""The values of a distribution in bounded memory: exact up to 1,000 values, beyond them in buckets of 1 %.

The buckets are those of DDSketch (Masson, Rim, Lee: "DDSketch", VLDB 2019): each is 2 % wide, so a percentile is within
1 % of a measured value. Number, minimum and maximum are always exact.
"""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np

from watchdog.measure.snapshot import Numbers

MAX_EXACT_VALUES = 1000
_ERROR = 0.01
_LOG_WIDTH = math.log((1 + _ERROR) / (1 - _ERROR))
_LEAST = 1e-9  # one bucket for all values up to 1 ns; then 2,072 buckets up to 30 years
_MAXIMUM = 1e9
_BUCKET_BYTES = 120  # of one entry in the dictionary


class BoundedDistribution:
    """Values of one distribution; the parts of a distribution can be added up."""

    def __init__(self) -> None:
        """Start empty."""
        self._exact = array("d")
        self._buckets: dict[int, int] = {}
        self._count = 0
        self._least, self._largest = math.inf, -math.inf

    def add(self, values: Numbers) -> None:
        """Add `values`, (n,)."""
        if not len(values):
            return
        self._least = min(self._least, float(values.min()))
        self._largest = max(self._largest, float(values.max()))
        self._count += len(values)
        if not self._buckets and self._count <= MAX_EXACT_VALUES:
            self._exact.extend(values.tolist())
            return
        self._put_into_buckets(np.concatenate([np.array(self._exact), values]))
        self._exact = array("d")

    def add_part(self, part: Any) -> None:
        """Add the distribution that `as_part` returned."""
        exact, buckets, count, least, largest = part
        if not buckets:
            self.add(np.array(exact, np.float64))
            return
        self._least, self._largest = min(self._least, least), max(self._largest, largest)
        self._count += count
        self._put_into_buckets(np.array(self._exact))
        self._exact = array("d")
        for bucket, values in buckets:
            self._buckets[bucket] = self._buckets.get(bucket, 0) + values

    def as_part(self) -> object:
        """Return the distribution as lists and numbers, for JSON."""
        return [self._exact.tolist(), list(self._buckets.items()), self._count, self._least, self._largest]

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        return 8 * len(self._exact) + _BUCKET_BYTES * len(self._buckets)

    def summary(self) -> dict[str, float | int] | None:
        """Return number, minimum, percentiles and maximum; None without a value."""
        if not self._count:
            return None
        if not self._buckets:
            ordered = sorted(self._exact)
            p50, p99 = (_interpolate(ordered, share) for share in (0.5, 0.99))
        else:
            p50, p99 = (self._percentile(share) for share in (0.5, 0.99))
        return {"count": self._count, "min": self._least, "p50": p50, "p99": p99, "max": self._largest}

    def _put_into_buckets(self, values: Numbers) -> None:
        logarithms = np.log(np.clip(values, _LEAST, _MAXIMUM) / _LEAST)
        found, counts = np.unique(np.ceil(logarithms / _LOG_WIDTH).astype(np.int64), return_counts=True)
        for bucket, count in zip(found.tolist(), counts.tolist(), strict=True):
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count

    def _percentile(self, share: float) -> float:
        rank, seen = math.ceil(share * self._count), 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                break
        middle = _LEAST * math.exp(bucket * _LOG_WIDTH) * (1 - _ERROR) if bucket else 0.0
        return min(max(middle, self._least), self._largest)


def _interpolate(ordered: list[float], share: float) -> float:
    # As numpy.percentile, which takes 100 µs for a few values.
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
