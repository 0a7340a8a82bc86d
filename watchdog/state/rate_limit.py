"""How many notices a receiver is to be sent.

Of a budget of n notices a period, a tenth is kept for news of something critical. Half of the rest may go at once, the
other half comes back evenly, so that no period, whenever it begins, has more than n. The algorithm is that of a leaky
bucket as a meter (ITU-T I.371, "GCRA"): one debt for each bucket, in time. What becomes of the rest: `gate.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from watchdog.clock import SECOND_NS
from watchdog.config import suggestions
from watchdog.config.document import Table
from watchdog.config.durations import parse_duration

_MOST_NOTICES: Final = 100_000
_LONGEST_WAIT_NS: Final = 3600 * SECOND_NS  # the outbox's: what is due later counts as due
_BUDGET = re.compile(r"(\d{1,6})/(.+)", re.ASCII)
_UNITS = {"s": "1s", "m": "1m", "h": "1h", "d": "1d"}


@dataclass(frozen=True, slots=True)
class LeakyBucket:
    """Lets `burst` go at once, and one more every `step_ns`."""

    burst_size: int
    step_ns: int

    @classmethod
    def per_period(cls, max_count: int, period_ns: int) -> LeakyBucket:
        """Return the one that lets no more than `most` go in any `period_ns`."""
        burst = (max_count + 1) // 2
        return cls(burst, -(-period_ns // (max_count + 1 - burst)))

    def available_count(self, debt_ns: int) -> int:
        """Return how many may go now."""
        return (self.burst_size * self.step_ns - debt_ns) // self.step_ns

    def wait_ns(self, debt_ns: int) -> int:
        """Return how long it is until one may go, or when to ask again."""
        wait_ns = max(0, debt_ns - (self.burst_size - 1) * self.step_ns) if self.burst_size else _LONGEST_WAIT_NS
        return min(wait_ns, _LONGEST_WAIT_NS)

    def remaining_debt_ns(self, debt_ns: int, elapsed_ns: int) -> int:
        """Return what is left of a debt after some time; never more than that of an empty bucket."""
        return max(0, min(debt_ns, self.burst_size * self.step_ns) - elapsed_ns)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most so many notifications in a period: the value of a receiver's key `rate_limit`."""

    max_notifications: int
    period_ns: int

    @property
    def critical_bucket(self) -> LeakyBucket:
        """Return what only news of something critical may use."""
        return LeakyBucket.per_period(self._kept, self.period_ns)

    @property
    def shared_bucket(self) -> LeakyBucket:
        """Return what every notice may use."""
        return LeakyBucket.per_period(self.max_notifications - self._kept, self.period_ns)

    @property
    def _kept(self) -> int:
        return max(1, self.max_notifications // 10) if self.max_notifications > 1 else 0


def parse_rate_limit(table: Table, default: str) -> RateLimit | None:
    """Return the `rate_limit` of a `[[receiver]]`, such as "30/h"; None for 0 and "none".

    Problems are added to the table.
    """
    given = table.value("rate_limit", default)
    text = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
    if text in ("0", "none"):  # no set: it may be anything that TOML has
        return None
    match = _BUDGET.fullmatch(text) if isinstance(text, str) else None
    try:
        period_ns = parse_duration(_UNITS.get(match[2], match[2])) if match else 0
    except ValueError:
        period_ns = 0
    if match and period_ns and 0 < int(match[1]) <= _MOST_NOTICES:
        return RateLimit(int(match[1]), period_ns)
    found = suggestions.quote_value(given)
    table.add_problem(
        "rate_limit", f'must be a number of notifications per time, such as "30/h", or "none"; found {found}'
    )
    return None
