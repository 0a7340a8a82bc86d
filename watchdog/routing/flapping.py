"""Alerts that come and go: how often one has fired within the last hour, told as part of its reason."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from watchdog.alerts.alert import Alert
from watchdog.clock import SECOND_NS

HOUR_NS = 3600 * SECOND_NS
MIN_FIRINGS = 3  # firings within an hour
_MOST_TIMES = 100
_MOST_ALERTS = 1_000


class FlappingDetector:
    """When alerts began to fire; a restart forgets it, for it decides nothing."""

    def __init__(self) -> None:
        """Start knowing nothing."""
        self._starts: dict[str, deque[int]] = {}

    def record_firing(self, alert: Alert, at_ns: int) -> None:
        """Take in that `alert` has begun to fire."""
        starts = self._starts.setdefault(alert.fingerprint, deque(maxlen=_MOST_TIMES))
        starts.append(at_ns)
        if len(self._starts) > _MOST_ALERTS:
            old = [key for key, times in self._starts.items() if times[-1] <= at_ns - HOUR_NS]
            for key in old or [next(iter(self._starts))]:
                del self._starts[key]

    def mark_flapping(self, alert: Alert, at_ns: int) -> Alert:
        """Return `alert`, with a mark in its reason if it flaps."""
        starts = self._starts.get(alert.fingerprint, deque[int]())
        while starts and starts[0] <= at_ns - HOUR_NS:
            starts.popleft()
        if len(starts) < MIN_FIRINGS:
            return alert
        often = f"{len(starts)} times" if len(starts) < _MOST_TIMES else f"{_MOST_TIMES} times or more"
        return replace(alert, reason=f"{alert.reason}; flapping: fired {often} within an hour")
