"""The adaptive interval: raised while ticks take too long for it, lowered again when they are short."""

from __future__ import annotations

from watchdog.clock import SECOND_NS

# A tick may take half of the interval. Beyond that the interval doubles. It halves again when a tick takes less than a
# quarter of the halved interval. The distance between the two limits prevents alternating.
_MAX_SHARE = 0.5
_SHORT_SHARE = 0.25
_LONG_TICKS_TO_RAISE = 3
_SHORT_TICKS_TO_LOWER = 30
_MAX_NS = 60 * SECOND_NS


class AdaptiveInterval:
    """Chooses the interval between ticks from their durations; never below the configured one."""

    def __init__(self, configured_ns: int) -> None:
        """Start with the configured interval."""
        self._configured_ns = configured_ns
        self.interval_ns = configured_ns
        self._long_ticks = 0
        self._short_ticks = 0

    def record_tick_duration(self, took_seconds: float) -> bool:
        """Record the duration of a tick; return whether `interval_ns` has changed."""
        share = took_seconds * SECOND_NS / self.interval_ns
        self._long_ticks = self._long_ticks + 1 if share > _MAX_SHARE else 0
        self._short_ticks = self._short_ticks + 1 if 2 * share < _SHORT_SHARE else 0
        if self._long_ticks >= _LONG_TICKS_TO_RAISE:
            return self._change(min(2 * self.interval_ns, max(_MAX_NS, self._configured_ns)))
        if self._short_ticks >= _SHORT_TICKS_TO_LOWER:
            return self._change(max(self.interval_ns // 2, self._configured_ns))
        return False

    def _change(self, interval_ns: int) -> bool:
        self._long_ticks = self._short_ticks = 0
        changed = interval_ns != self.interval_ns
        self.interval_ns = interval_ns
        return changed
