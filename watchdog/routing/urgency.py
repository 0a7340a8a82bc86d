"""Urgent news of a group: worse than the receiver knows, so it does not wait for `group_interval`.

In Alertmanager severity is a label, and a critical alert is an alert of its own that waits for no earlier notification.
Here a rise in severity is due at once and a new alert within seconds. Many of them within a short time are a burst,
which is collected into one notification.
"""

from __future__ import annotations

from collections import deque

from watchdog.clock import SECOND_NS

MIN_GAP_NS = 3 * SECOND_NS // 4  # between two notifications of a group, unless the severity of the group rises
BURST_NEWS = 6  # so many urgent news …
BURST_WINDOW_NS = 10 * SECOND_NS  # … within this time are a burst, …
BURST_QUIET_NS = 5 * SECOND_NS  # … notified when none has come for this time, …
BURST_MAX_WAIT_NS = 15 * SECOND_NS  # … at the latest so long after the previous notification


class UrgentNews:
    """The urgent news of one group. A restart loses their times, so that a burst may make one more notification."""

    def __init__(self) -> None:
        """Start without news."""
        self._arrivals: deque[int] = deque(maxlen=BURST_NEWS)
        self._raised_ns: int | None = None

    def record_arrival(self, at_ns: int) -> None:
        """Record that an alert became urgent."""
        self._arrivals.append(at_ns)

    def record_raised(self, at_ns: int) -> None:
        """Record a notification that raised the severity of the group over that of its earlier notifications."""
        self._raised_ns = at_ns

    def due_ns(self, last_notification_ns: int, at_ns: int, *, raises_group: bool) -> int:
        """Return the CLOCK_BOOTTIME in ns at which the urgent news are due after `last_notification_ns`.

        `raises_group`: one of them is worse than everything that the receiver knows of the group. It waits for nothing,
        once in `BURST_MAX_WAIT_NS`.
        """
        if raises_group and (self._raised_ns is None or at_ns - self._raised_ns >= BURST_MAX_WAIT_NS):
            return at_ns
        due_ns = last_notification_ns + MIN_GAP_NS
        if not self._is_burst(at_ns):
            return due_ns
        quiet_ns = self._arrivals[-1] + BURST_QUIET_NS
        return max(due_ns, min(quiet_ns, last_notification_ns + BURST_MAX_WAIT_NS))

    def _is_burst(self, at_ns: int) -> bool:
        return len(self._arrivals) == BURST_NEWS and at_ns - self._arrivals[0] <= BURST_WINDOW_NS
