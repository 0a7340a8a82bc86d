"""The daemon's own health, as plain values for the metrics."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

TICK_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Upper bounds of the buckets of tick durations, seconds."""


@dataclass(frozen=True, slots=True)
class ReceiverMetrics:
    """One receiver. `state`: as in `status`. `failed`: notifications by cause; `failed_attempts`: by reason."""

    name: str
    state: str
    pending: int
    oldest_seconds: float
    delivered: int
    failed: Mapping[str, int]
    failed_attempts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class OwnHealth:
    """Health of the daemon now.

    `losses`: data lost since the start, by cause. `sockmap_connections`: as of the newest tick, their bytes are not
    known. `rules`: number by state. `alerts`: number by state and severity.
    `oldest_firing_seconds`: age of the oldest firing alert by severity, without silenced and acknowledged ones.
    `withheld`: notifications withheld since the start, by cause. `reload_at`: wall-clock seconds of the newest reload.
    `program_runs`: of each BPF program its runs and their seconds, none unless they are counted.
    """

    version: str
    kernel: str
    configured_seconds: float
    interval_seconds: float
    age_seconds: float | None
    losses: Mapping[str, int]
    sockmap_connections: int
    rules: Mapping[str, int]
    alerts: Mapping[tuple[str, str], int]
    oldest_firing_seconds: Mapping[str, float]
    suppressed_alerts: int
    withheld: Mapping[str, int]
    receivers: tuple[ReceiverMetrics, ...]
    reload_succeeded: bool
    reload_at: float | None
    program_runs: Mapping[str, tuple[int, float]] = field(default_factory=dict)


class TickDurations:
    """Counts durations of ticks by bucket."""

    def __init__(self) -> None:
        """Start without ticks."""
        self._lock = threading.Lock()
        self._counts = [0] * (len(TICK_BOUNDS) + 1)
        self._sum_seconds = 0.0

    def add(self, seconds: float) -> None:
        """Add a tick."""
        with self._lock:
            self._counts[bisect.bisect_left(TICK_BOUNDS, seconds)] += 1
            self._sum_seconds += seconds

    def view(self) -> tuple[list[int], float]:
        """Return the number of ticks by bucket, not cumulative, and the sum of their seconds."""
        with self._lock:
            return list(self._counts), self._sum_seconds
