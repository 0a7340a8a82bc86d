"""How often to look when looking takes long: a host too large for the interval is looked at less often."""

from __future__ import annotations

from watchdog.clock import SECOND_NS

# A tick may take half of the interval. Beyond that the interval doubles; it halves again when a tick would take a
# quarter of the half. The gap between the two keeps it from going to and fro.
_TOO_LONG = 0.5
_SHORT_ENOUGH = 0.25
_TICKS_TO_LENGTHEN = 3
_TICKS_TO_SHORTEN = 30
_LONGEST_NS = 60 * SECOND_NS


class AdaptiveInterval:
    """Chooses the interval between ticks, from what they took; never shorter than what the settings ask for."""

    def __init__(self, configured_ns: int) -> None:
        """Start with what the settings ask for."""
        self._configured_ns = configured_ns
        self.interval_ns = configured_ns
        self._too_long = 0
        self._short_enough = 0

    def record_tick_duration(self, took_seconds: float) -> bool:
        """Take in what a tick took; return whether `interval_ns` has changed."""
        share = took_seconds * SECOND_NS / self.interval_ns
        self._too_long = self._too_long + 1 if share > _TOO_LONG else 0
        self._short_enough = self._short_enough + 1 if 2 * share < _SHORT_ENOUGH else 0
        if self._too_long >= _TICKS_TO_LENGTHEN:
            return self._change(min(2 * self.interval_ns, max(_LONGEST_NS, self._configured_ns)))
        if self._short_enough >= _TICKS_TO_SHORTEN:
            return self._change(max(self.interval_ns // 2, self._configured_ns))
        return False

    def _change(self, interval_ns: int) -> bool:
        self._too_long = self._short_enough = 0
        changed = interval_ns != self.interval_ns
        self.interval_ns = interval_ns
        return changed
