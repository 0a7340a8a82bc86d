"""The times at which a receiver gets its firing alerts again.

An event that fires on all hosts of a fleet begins everywhere in the same second. Each host therefore begins to refresh
after a random part of the interval, and keeps that phase: the receiver gets the same load in every second.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from watchdog.clock import SECOND_NS


class RefreshTimer:
    """Due times of one receiver; all times are CLOCK_BOOTTIME in ns."""

    def __init__(self, draw: Callable[[float, float], float] = random.uniform) -> None:
        """Be due at once: alerts that fire at a start are refreshed at once. `draw`: a random number between two."""
        self._draw = draw
        self._due_ns: int | None = 0

    def stop(self) -> None:
        """Forget the phase: nothing fires any more."""
        self._due_ns = None

    def due_ns(self, now_ns: int, interval_seconds: float) -> int:
        """Return the time of the next refresh, at most `interval_seconds` from now."""
        if self._due_ns is None:
            self._due_ns = now_ns + self._phase_ns(interval_seconds)
        return self._due_ns

    def refreshed(self, now_ns: int, interval_seconds: float) -> None:
        """Take `now_ns` as the end of the refresh that was due."""
        is_first = self._due_ns == 0
        self._due_ns = now_ns + (self._phase_ns(interval_seconds) if is_first else round(interval_seconds * SECOND_NS))

    def _phase_ns(self, interval_seconds: float) -> int:
        return round(self._draw(0.0, interval_seconds) * SECOND_NS)
