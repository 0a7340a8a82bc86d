"""Samples that were read and not judged, because their tick failed: their number, and the amounts in them."""

from __future__ import annotations

import numpy as np

from watchdog.measure.catalogue import METRICS, MetricKind
from watchdog.measure.snapshot import Snapshot


class LostSamples:
    """The samples since the newest one that was judged."""

    def __init__(self) -> None:
        """Start without samples."""
        self.count = 0
        self.amounts: dict[str, float] = {}
        """The amount of each metric in these samples, of distributions the number of values; without: unknown."""

    def add(self, snapshot: Snapshot | None) -> None:
        """Add a sample; None: it was read, and no snapshot made of it."""
        before = dict.fromkeys(METRICS, 0.0) if not self.count else self.amounts
        self.count += 1
        self.amounts = {} if snapshot is None else {name: before[name] + _amount(snapshot, name) for name in before}

    def clear(self) -> None:
        """Forget the samples: one was judged with their amounts as losses."""
        self.count, self.amounts = 0, {}


def _amount(snapshot: Snapshot, metric: str) -> float:
    values = snapshot.metrics[metric]
    if METRICS[metric].kind is MetricKind.DISTRIBUTION:
        return float(np.count_nonzero(~np.isnan(values)))
    return float(np.maximum(values, 0).sum())
