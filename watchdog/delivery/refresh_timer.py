"""The times at which a receiver gets its firing alerts again.

An event that fires on all hosts of a fleet begins everywhere in the same second. Each host therefore begins to refresh
after a random part of the interval, and keeps that phase: the receiver gets the same load in every second.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from watchdog.clock import SECOND_NS

_RETRY_SHARES = (1 / 12, 1 / 4)  # of the interval: the wait after a failed refresh lies between these


class RefreshTimer:
    """Due times of one receiver; all times are CLOCK_BOOTTIME in ns."""

    def __init__(self, draw: Callable[[float, float], float] = random.uniform) -> None:
        """Be due at once: alerts that fire at a start are refreshed at once. `draw`: a random number between two."""
        self._draw = draw
        self._due_ns: int | None = 0
        self._has_phase = False

    def stop(self) -> None:
        """Forget the phase: nothing fires any more."""
        self._due_ns = None

    def due_ns(self, now_ns: int, interval_seconds: float) -> int:
        """Return the time of the next refresh, at most `interval_seconds` from now."""
        if self._due_ns is None:
            self._due_ns = now_ns + round(self._draw(0.0, interval_seconds) * SECOND_NS)
            self._has_phase = True
        return self._due_ns

    def refreshed(self, now_ns: int, interval_seconds: float, *, succeeded: bool) -> None:
        """Take `now_ns` as the end of the refresh that was due.

        After a failed one the next is soon, so that the receiver gets the alerts before it ends them itself. The first
        one that succeeds begins a new phase: all hosts of a fleet see the end of an outage at the same moment.
        """
        if not succeeded:
            wait_seconds = self._draw(*(interval_seconds * share for share in _RETRY_SHARES))
        elif self._has_phase:
            wait_seconds = interval_seconds
        else:
            wait_seconds = self._draw(0.0, interval_seconds)
        self._has_phase = succeeded
        self._due_ns = now_ns + round(wait_seconds * SECOND_NS)
