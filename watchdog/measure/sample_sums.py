"""Sums of a period, for `sample`: their counters and totals, the rank of a row, and losses.

`sample_connections.py` adds ticks up by connection, `sample_groups.py` by dimensions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from watchdog.kernel.quality import LOSS_WORDS, Quality
from watchdog.measure.catalogue import DIMENSIONS, METRICS, OWN_METRICS, DimensionKind, MetricKind
from watchdog.measure.ranked_rows import Rank, SampleRow, row_value, value_rank

Sums = NDArray[np.int64]
"""Sums by counter, in the order of `COUNTERS`."""

COUNTERS = tuple(
    name for name, metric in METRICS.items() if metric.kind is MetricKind.COUNTER and name not in OWN_METRICS
)
GAUGES = tuple(name for name, metric in METRICS.items() if metric.kind is MetricKind.GAUGE)
DISTRIBUTIONS = tuple(name for name, metric in METRICS.items() if metric.kind is MetricKind.DISTRIBUTION)
_LOSSES = (
    "ledger_full",
    "sums_full",
    "storage_failed",
    "not_followed",
    "missed_events",
    "impossible_changes",
    "names_full",
    "responses_lost",
    "responses_unassigned",
    "datagrams_lost",
)
_SENT, _RECEIVED, _ESTABLISHED = (COUNTERS.index(name) for name in ("bytes_sent", "bytes_received", "established"))


def no_sums() -> Sums:
    """Return new sums, all 0."""
    return np.zeros(len(COUNTERS), np.int64)


def rank_of(sums: Sums) -> Rank:
    """Return the rank of a row with these sums."""
    return int(sums[_SENT] + sums[_RECEIVED]), int(sums[_ESTABLISHED])


class RowOrder:
    """The order of rows: by one value of theirs, then by bytes."""

    def __init__(self, name: str = "") -> None:
        """Order by the value at `name`, as `row_value` reads it; "": by bytes alone."""
        self._name = name
        self._counter = COUNTERS.index(name) if name in COUNTERS else None

    def rank(self, sums: Sums, make_row: Callable[[], SampleRow]) -> Rank:
        """Return the rank of the row of `make_row` with these sums."""
        if not self._name:
            return rank_of(sums)
        value = row_value(make_row(), self._name) if self._counter is None else int(sums[self._counter])
        return (*value_rank(value), *rank_of(sums))


def json_value(dimension: str, text: str) -> str | int:
    """Return a dimension's value for JSON: numbers as numbers."""
    return int(text) if DIMENSIONS[dimension].kind is DimensionKind.NUMBER else text


def totals_by_counter(sums: Sums) -> dict[str, int]:
    """Return the sums by the name of the counter."""
    return dict(zip(COUNTERS, sums.tolist(), strict=True))


class SampleLosses:
    """Losses of a period."""

    def __init__(self) -> None:
        """Start without losses."""
        self._counts = dict.fromkeys(_LOSSES, 0)
        self._sockmap_connections = 0  # the maximum of a tick

    def add(self, quality: Quality) -> None:
        """Add the losses of one tick."""
        for name in self._counts:
            self._counts[name] += getattr(quality, name)
        self._sockmap_connections = max(self._sockmap_connections, quality.sockmap_connections)

    def counts_by_cause(self) -> dict[str, int]:
        """Return the number of losses by description of their cause."""
        counts = {LOSS_WORDS[name]: count for name, count in self._counts.items()}
        return counts | {LOSS_WORDS["sockmap_connections"]: self._sockmap_connections}
