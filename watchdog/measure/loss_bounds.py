"""Bounds of the counts that a snapshot misses: no loss can take more from a metric than these."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from watchdog.kernel.quality import Quality
from watchdog.measure.catalogue import HOST_METRICS, METRICS, OWN_METRICS, TRAFFIC_METRICS, MetricKind, Unit

_ONCE = frozenset(("connects", "established", "accepts", "closes", "connect_failures", "open"))  # per connection
_MAX_DATAGRAM_BYTES = 65_535  # the length field of UDP has 16 bits (RFC 768)

DERIVED_FROM_COUNTERS = frozenset(
    (*TRAFFIC_METRICS, "resets_sent", "resets_received", "listen_drops", "late_bytes", "rtt")
)
"""Metrics that are changes of a connection's counters, or exist only with such a change."""
UNKNOWN_OF_LOST_CONNECTIONS = DERIVED_FROM_COUNTERS | {"open", "send_queue", "receive_queue"}
"""Metrics without a bound where a process has a connection that could not be followed."""


@dataclass(frozen=True, slots=True)
class Undercounted:
    """Rows whose values of `metrics` can be too low by any amount. `rows`: (m,), index into the snapshot's rows."""

    rows: NDArray[np.intp]
    metrics: frozenset[str]


def missing_amount(quality: Quality, metric: str) -> float:
    """Return the most that connections and events of unknown owners, in no row, can add to `metric` in one tick.

    Distributions: the number of values. Infinite where there is no bound.
    """
    if metric in OWN_METRICS:
        return 0
    if quality.lost_samples:
        in_samples = quality.lost_amounts.get(metric, math.inf)
        return in_samples + missing_amount(replace(quality, lost_samples=0), metric)
    if metric.startswith("udp_"):
        each = _MAX_DATAGRAM_BYTES if METRICS[metric].unit is Unit.BYTES else 1
        return quality.datagrams_lost * each
    if metric in HOST_METRICS:
        return 0
    if metric in ("half_open", "accept_queue", "listeners", "listen_drops"):  # of listeners, which end in no record
        return math.inf if quality.storage_failed else 0
    lost = quality.sums_full + quality.storage_failed + quality.missed_events
    if metric in _ONCE or (METRICS[metric].kind is MetricKind.DISTRIBUTION and metric != "response_latency"):
        return lost
    return math.inf if lost else 0
