"""Native histograms of Prometheus: eight buckets for each doubling of the value (schema 3), beside the classic ones.

They are counted from the first scrape that asks for them. What was counted before is then in the bucket of the middle
of its classic bucket: Prometheus reads increases only, which begin with that scrape.

Source: prometheus.io/docs/specs, "Native histograms".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

SCHEMA: Final = 3
_PER_DOUBLING = 2**SCHEMA
_EXPONENTS: Final[Mapping[str, tuple[int, int]]] = {
    "accept_queue": (-17, 0),  # a share of at most 65,535 places
    "connect_latency": (-17, 8),  # 8 us to 4 minutes: the kernel gives up before
    "rtt": (-17, 8),
    "lifetime": (-13, 22),  # 0.1 ms to 48 days
    "response_latency": (-17, 17),
}
"""Of each distribution the powers of 2 between which values have buckets: those below are in the bucket of zeros, those
above in the greatest bucket."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class NativeHistogram:
    """One histogram. `spans`: (offset, length) of runs of buckets; `deltas`: of their counts, as in the protocol."""

    zero_threshold: float
    zero_count: int
    spans: Sequence[tuple[int, int]]
    deltas: Sequence[int]


class NativeBuckets:
    """Counts values of all distributions by place. Memory is used for places with values only, 9 kB each at most."""

    def __init__(self, place_count: int) -> None:
        """Start with zeros for `place_count` places."""
        self._counts = {
            name: np.zeros((place_count, 1 + (high - low) * _PER_DOUBLING), np.int64)
            for name, (low, high) in _EXPONENTS.items()
        }

    def add(self, name: str, places: NDArray[np.intp], values: NDArray[np.float64]) -> None:
        """Add values, (r,), at their places, (r,)."""
        self._add(name, places, values, np.ones(len(values), np.int64))

    def add_classic(self, name: str, bounds: Sequence[float], buckets: Counts) -> None:
        """Add classic buckets, (p, bounds + 1), not cumulative."""
        edges = np.array([bounds[0] / 4, *bounds, bounds[-1] * 4])
        places, bucket = np.nonzero(buckets)
        self._add(name, places, np.sqrt(edges[bucket] * edges[bucket + 1]), buckets[places, bucket])

    def copy(self, place_count: int) -> Mapping[str, Counts]:
        """Return the counts of the first places, by distribution: (p, buckets), those of zeros first."""
        return {name: counts[:place_count].copy() for name, counts in self._counts.items()}

    def _add(self, name: str, places: NDArray[np.intp], values: NDArray[np.float64], amounts: Counts) -> None:
        counts, low = self._counts[name], _EXPONENTS[name][0]
        with np.errstate(divide="ignore"):
            index = np.ceil(np.log2(values) * _PER_DOUBLING) - low * _PER_DOUBLING
        column = np.clip(index, 0, counts.shape[1] - 1).astype(np.intp)
        sums = np.bincount(places * counts.shape[1] + column, amounts)
        cells = np.flatnonzero(sums)  # the others use no memory yet
        counts.reshape(-1)[cells] += sums[cells].astype(np.int64)


def native_histogram(name: str, counts: Counts) -> NativeHistogram:
    """Return the histogram of a distribution at one place; `counts`: (buckets,), as of `NativeBuckets.copy`."""
    low = _EXPONENTS[name][0]
    used = np.flatnonzero(counts[1:])
    spans = []
    end = 0
    for run in np.split(used, np.flatnonzero(np.diff(used) > 1) + 1) if len(used) else ():
        first = int(run[0]) + low * _PER_DOUBLING + 1
        spans.append((first - end, len(run)))
        end = first + len(run)
    deltas = np.diff(counts[1:][used], prepend=0).tolist()
    return NativeHistogram(2.0**low, int(counts[0]), spans, deltas)
