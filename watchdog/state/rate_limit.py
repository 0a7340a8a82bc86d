"""The rate limit of a receiver: a maximum number of notifications per period.

Of n notifications per period a tenth is reserved for critical alerts. Half of the rest may be sent at once, the other
half becomes available evenly, so that no period, at whatever moment it begins, has more than n. The algorithm is the
leaky bucket as a meter (ITU-T I.371, "GCRA"): one debt per bucket, in ns. `rate_limiter.py` handles the excess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from watchdog.clock import SECOND_NS
from watchdog.config import suggestions
from watchdog.config.document import Table
from watchdog.config.durations import parse_duration

_MAX_NOTIFICATIONS: Final = 100_000
_MAX_WAIT_NS: Final = 3600 * SECOND_NS  # as in the outbox, where a later due time counts as due
_RATE_LIMIT = re.compile(r"(\d{1,6})/(.+)", re.ASCII)
_UNITS = {"s": "1s", "m": "1m", "h": "1h", "d": "1d"}


@dataclass(frozen=True, slots=True)
class LeakyBucket:
    """Allows `burst_size` notifications at once, and one more every `step_ns`."""

    burst_size: int
    step_ns: int

    @classmethod
    def per_period(cls, max_count: int, period_ns: int) -> LeakyBucket:
        """Return the bucket that allows at most `max_count` in any period of `period_ns`."""
        burst = (max_count + 1) // 2
        return cls(burst, -(-period_ns // (max_count + 1 - burst)))

    def available_count(self, debt_ns: int) -> int:
        """Return the number of notifications that may be sent now."""
        return (self.burst_size * self.step_ns - debt_ns) // self.step_ns

    def wait_ns(self, debt_ns: int) -> int:
        """Return the time until one may be sent, at most one hour: then ask again."""
        wait_ns = max(0, debt_ns - (self.burst_size - 1) * self.step_ns) if self.burst_size else _MAX_WAIT_NS
        return min(wait_ns, _MAX_WAIT_NS)

    def remaining_debt_ns(self, debt_ns: int, elapsed_ns: int) -> int:
        """Return the rest of a debt after `elapsed_ns`; at most the debt of a full bucket."""
        return max(0, min(debt_ns, self.burst_size * self.step_ns) - elapsed_ns)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most so many notifications in a period: the value of a receiver's key `rate_limit`."""

    max_notifications: int
    period_ns: int

    @property
    def critical_bucket(self) -> LeakyBucket:
        """Return the reserve, which only urgent notifications of critical alerts may use."""
        return LeakyBucket.per_period(self._reserved, self.period_ns)

    @property
    def shared_bucket(self) -> LeakyBucket:
        """Return the bucket that every notification may use."""
        return LeakyBucket.per_period(self.max_notifications - self._reserved, self.period_ns)

    @property
    def _reserved(self) -> int:
        return max(1, self.max_notifications // 10) if self.max_notifications > 1 else 0


def parse_rate_limit(table: Table, default: str) -> RateLimit | None:
    """Return the `rate_limit` of a `[[receiver]]`, such as "30/h"; None for 0 and "none".

    Problems are added to the table.
    """
    given = table.value("rate_limit", default)
    text = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
    if text in ("0", "none"):  # not in a set: a TOML value may be unhashable
        return None
    match = _RATE_LIMIT.fullmatch(text) if isinstance(text, str) else None
    try:
        period_ns = parse_duration(_UNITS.get(match[2], match[2])) if match else 0
    except ValueError:
        period_ns = 0
    if match and period_ns and 0 < int(match[1]) <= _MAX_NOTIFICATIONS:
        return RateLimit(int(match[1]), period_ns)
    found = suggestions.quote_value(given)
    table.add_problem(
        "rate_limit", f'must be a number of notifications per time, such as "30/h", or "none"; found {found}'
    )
    return None
