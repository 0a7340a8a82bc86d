"""Flapping: counts how often an alert fired within the last hour, and adds the count to its reason."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from watchdog.alerts.alert import Alert
from watchdog.clock import SECOND_NS

HOUR_NS = 3600 * SECOND_NS
MIN_FIRINGS = 3  # firings within an hour
FAST_WINDOW_NS = 60 * SECOND_NS
MAX_FAST_CHANGES = 6  # firings and rises in severity within that time; with more, the alert flaps fast
_MAX_COUNT = 100
_MAX_ALERTS = 1_000


class FlappingDetector:
    """The times at which alerts began to fire. A restart loses them: the count is for display only."""

    def __init__(self) -> None:
        """Start without times."""
        self._starts: dict[str, deque[int]] = {}
        self._changes: dict[str, deque[int]] = {}  # starts, and rises in severity

    def record_firing(self, alert: Alert, at_ns: int) -> None:
        """Record that `alert` has begun to fire."""
        _record(self._starts, alert, at_ns, _MAX_COUNT)
        self.record_raised(alert, at_ns)

    def record_raised(self, alert: Alert, at_ns: int) -> None:
        """Record that the severity of `alert` has risen."""
        _record(self._changes, alert, at_ns, MAX_FAST_CHANGES + 1)

    def is_flapping_fast(self, alert: Alert, at_ns: int) -> bool:
        """Return whether `alert` fired or rose so often within a minute that a further change is no urgent news."""
        changes = self._changes.get(alert.fingerprint, ())
        return sum(change > at_ns - FAST_WINDOW_NS for change in changes) > MAX_FAST_CHANGES

    def mark_flapping(self, alert: Alert, at_ns: int) -> Alert:
        """Return `alert`, with the count in its reason if it fired at least `MIN_FIRINGS` times within an hour."""
        starts = self._starts.get(alert.fingerprint, deque[int]())
        while starts and starts[0] <= at_ns - HOUR_NS:
            starts.popleft()
        if len(starts) < MIN_FIRINGS:
            return alert
        count = f"{len(starts)} times" if len(starts) < _MAX_COUNT else f"{_MAX_COUNT} times or more"
        return replace(alert, reason=f"{alert.reason}; flapping: fired {count} within an hour")


def _record(times: dict[str, deque[int]], alert: Alert, at_ns: int, max_count: int) -> None:
    times.setdefault(alert.fingerprint, deque(maxlen=max_count)).append(at_ns)
    if len(times) > _MAX_ALERTS:
        expired = [key for key, known in times.items() if known[-1] <= at_ns - HOUR_NS]
        for key in expired or [next(iter(times))]:
            del times[key]
