"""What a rule is, once its file has been read and found right."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from watchdog.rules.language.expression import Comparison, Expression
from watchdog.rules.language.template import Template

Labels = tuple[tuple[str, str], ...]  # (dimension, value), in the order of the rule's `by`
OVERFLOW_LABELS: Final[Labels] = (
    ("instances", "overflow"),
)  # of the instance that tells how many are not told one by one


class Severity(enum.IntEnum):
    """How bad: ordered, so that the worse of two is `max`."""

    WARNING = 1
    CRITICAL = 2

    @property
    def label(self) -> str:
        """Return the name used in files and messages."""
        return self.name.lower()


class StatKind(enum.StrEnum):
    """How the values of a window become one; `PERCENTILE` goes with `Stat.percentile`."""

    RATE = "rate"  # counters: per second of measured time
    SUM = "sum"  # counters: over the window; distributions: sum of values
    MAX = "max"  # counters: greatest rate of one tick; gauges: greatest tick; distributions: greatest value
    MIN = "min"
    MEAN = "mean"
    LAST = "last"  # value of the newest tick
    PERCENTILE = "percentile"  # distributions only, exact


@dataclass(frozen=True, slots=True)
class Stat:
    """A statistic; `text` is how the file wrote it, `percentile` in (0, 100) for p50 … p999 (p999 is 99.9)."""

    text: str
    kind: StatKind
    percentile: float = 0.0


@dataclass(frozen=True, slots=True)
class Condition:
    """One entry of `where`: a row passes if its value matches any of `any_of` (if there are some), none of `none_of`.

    Patterns are as in the file without the leading `!`: shell-style globs for names and choices, numbers or ranges
    (`"1024-65535"`) for numbers, addresses or CIDR blocks for addresses.
    """

    dimension: str
    any_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When to fire and when to clear, for each severity that the rule names.

    With `above`, an instance is over `fire[s]` when value > fire[s] and over `clear[s]` when value >= clear[s]; else
    with < and <=. `clear` has the same keys as `fire`; where the file gives none, it is what just no longer fires.
    """

    above: bool
    fire: Mapping[Severity, float]
    clear: Mapping[Severity, float]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule."""

    id: str
    summary: Template
    metric: Expression
    stat: Stat
    window_ns: int
    by: tuple[str, ...]
    where: tuple[Condition, ...]
    only_if: Comparison | None
    thresholds: Thresholds
    for_ns: int
    keep_firing_for_ns: int
    receivers: tuple[str, ...] | None  # None: the routing's default
    runbook: str | None
    file: str = field(compare=False)
    line: int = field(compare=False)

    @property
    def evaluation_key(self) -> tuple[object, ...]:
        """Return what two rules have in common when the windows of one serve the other."""
        return self.metric, self.stat, self.window_ns, self.by, self.where, self.only_if
