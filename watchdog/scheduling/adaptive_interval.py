"""The adaptive interval: raised while ticks take too long for it, lowered again when they are short."""

from __future__ import annotations

from typing import Final

from watchdog.clock import SECOND_NS

# A tick may take half of the interval. After some that take more, the interval doubles. It is lowered, by as many steps
# as the ticks allow, when all ticks for some time took less than a quarter of the lower interval. The distance between
# the two limits prevents alternating; where the ticks themselves alternate, each relapse doubles that time.
_MAX_SHARE = 0.5
_SHORT_SHARE = 0.25
_LONG_TICKS_TO_RAISE = 3
_QUIET_NS = 10 * SECOND_NS  # of short ticks, before the interval is lowered
_MAX_QUIET_NS = 80 * SECOND_NS
_RELAPSE_NS = 60 * SECOND_NS  # an interval raised so soon after it was lowered was lowered too early
MAX_RAISED_NS: Final = 16 * SECOND_NS
"""The interval is not raised over this time, after which a single short tick lowers it."""


class AdaptiveInterval:
    """Chooses the interval between ticks from their durations; never below the configured one.

    Times are sums of intervals, so that a suspended host does not count as a time of short ticks.
    """

    def __init__(self, configured_ns: int) -> None:
        """Start with the configured interval."""
        self._configured_ns = configured_ns
        self.interval_ns = configured_ns
        self._long_ticks = 0
        self._quiet_ns = 0  # since the newest tick that forbids a lower interval
        self._longest_quiet_ns = 0.0  # duration of the longest tick in that time
        self._needed_ns = _QUIET_NS
        self._since_lowered_ns = _RELAPSE_NS

    def record_tick_duration(self, took_seconds: float) -> bool:
        """Record the duration of a tick; return whether `interval_ns` has changed."""
        took_ns = took_seconds * SECOND_NS
        self._since_lowered_ns += self.interval_ns
        self._long_ticks = self._long_ticks + 1 if took_ns > _MAX_SHARE * self.interval_ns else 0
        if self._long_ticks >= _LONG_TICKS_TO_RAISE:
            return self._raise()
        if self.interval_ns == self._configured_ns:
            self._forget_relapses()
            return False
        self._longest_quiet_ns = max(self._longest_quiet_ns, took_ns)
        self._quiet_ns += self.interval_ns
        lowered_ns = self._fitting_ns(self._longest_quiet_ns)
        if lowered_ns >= self.interval_ns:  # this tick, as any in the quiet time, needs the present interval
            self._quiet_ns, self._longest_quiet_ns = 0, 0.0
        elif self._quiet_ns >= self._needed_ns:
            self._since_lowered_ns = 0
            return self._change(lowered_ns)
        return False

    def _raise(self) -> bool:
        if self._since_lowered_ns < _RELAPSE_NS:
            self._needed_ns = min(2 * self._needed_ns, _MAX_QUIET_NS)
        return self._change(min(2 * self.interval_ns, max(MAX_RAISED_NS, self._configured_ns)))

    def _forget_relapses(self) -> None:
        if self._since_lowered_ns >= _RELAPSE_NS + self._needed_ns:
            self._needed_ns = _QUIET_NS

    def _fitting_ns(self, took_ns: float) -> int:
        """Return the shortest interval, in doublings of the configured one, for ticks that take so long."""
        interval_ns = self._configured_ns
        while took_ns >= _SHORT_SHARE * interval_ns and interval_ns < self.interval_ns:
            interval_ns *= 2
        return min(interval_ns, self.interval_ns)

    def _change(self, interval_ns: int) -> bool:
        self._long_ticks = self._quiet_ns = 0
        self._longest_quiet_ns = 0.0
        changed = interval_ns != self.interval_ns
        self.interval_ns = interval_ns
        return changed
