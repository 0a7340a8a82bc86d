"""Flapping: counts how often an alert fired within the last hour, and adds the count to its reason."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from watchdog.alerts.alert import Alert
from watchdog.clock import SECOND_NS

HOUR_NS = 3600 * SECOND_NS
MIN_FIRINGS = 3  # firings within an hour
_MAX_COUNT = 100
_MAX_ALERTS = 1_000


class FlappingDetector:
    """The times at which alerts began to fire. A restart loses them: the count is for display only."""

    def __init__(self) -> None:
        """Start without times."""
        self._starts: dict[str, deque[int]] = {}

    def record_firing(self, alert: Alert, at_ns: int) -> None:
        """Record that `alert` has begun to fire."""
        starts = self._starts.setdefault(alert.fingerprint, deque(maxlen=_MAX_COUNT))
        starts.append(at_ns)
        if len(self._starts) > _MAX_ALERTS:
            expired = [key for key, times in self._starts.items() if times[-1] <= at_ns - HOUR_NS]
            for key in expired or [next(iter(self._starts))]:
                del self._starts[key]

    def mark_flapping(self, alert: Alert, at_ns: int) -> Alert:
        """Return `alert`, with the count in its reason if it fired at least `MIN_FIRINGS` times within an hour."""
        starts = self._starts.get(alert.fingerprint, deque[int]())
        while starts and starts[0] <= at_ns - HOUR_NS:
            starts.popleft()
        if len(starts) < MIN_FIRINGS:
            return alert
        count = f"{len(starts)} times" if len(starts) < _MAX_COUNT else f"{_MAX_COUNT} times or more"
        return replace(alert, reason=f"{alert.reason}; flapping: fired {count} within an hour")
