"""A rule, as values: the result of reading a rule file without problems."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from watchdog.clock import SECOND_NS
from watchdog.rules.language.expression import Comparison, Expression, value_without_rows
from watchdog.rules.language.template import Template

_EPOCH_DAY: Final = dt.date(1970, 1, 1).toordinal()
_DAY_SECONDS: Final = 86_400

Labels = tuple[tuple[str, str], ...]  # (dimension, value), in the order of the rule's `by`
OVERFLOW_LABELS: Final[Labels] = (("instances", "overflow"),)  # of the instance for the firing groups beyond the limit
MAX_HIT_TICKS: Final = 60  # of `hits`
MAX_DISTINCT: Final = 65_536  # values that are counted in one group: as many as there are ports
MAX_SHORT_WINDOW_NS: Final = 3600 * SECOND_NS  # `MAX_WINDOW` of the catalogue
MAX_HOLD_NS: Final = 60 * SECOND_NS  # a rule waits for those in its `unless_firing` for this time at most
GONE: Final = "gone"  # reason of the end of an alert whose group has no rows any more


class Severity(enum.IntEnum):
    """Severity of an alert: ordered, so that `max` is the worse of two."""

    WARNING = 1
    CRITICAL = 2

    @property
    def label(self) -> str:
        """Return the name used in files and messages."""
        return self.name.lower()


class StatKind(enum.StrEnum):
    """Statistic over the values of a window; `PERCENTILE` uses `Stat.percentile`."""

    RATE = "rate"  # counters: per second of measured time
    SUM = "sum"  # counters: over the window; distributions: sum of values
    MAX = "max"  # counters: greatest rate of one tick; gauges: greatest tick; distributions: greatest value
    MIN = "min"
    MEAN = "mean"
    LAST = "last"  # value of the newest tick
    PERCENTILE = "percentile"  # distributions only, exact
    COUNT = "count"  # distributions only: number of values
    DISTINCT = "distinct"  # number of different values of `Stat.dimension`, in rows with something of the metric

    @property
    def is_number(self) -> bool:
        """Return whether it counts values, so that its unit is not that of the metric and no values are 0."""
        return self in {StatKind.COUNT, StatKind.DISTINCT}


class Absent(enum.StrEnum):
    """Effect on an alert while its group has no row that meets `where`, once that lasted for `absent_for`."""

    RESOLVE = "resolve"  # until then it is judged by its value without rows, then the alert ends
    FIRE = "fire"  # until then nothing changes, then the alert fires until the group returns
    KEEP = "keep"  # nothing changes until the group returns


@dataclass(frozen=True, slots=True)
class Stat:
    """A statistic; `text`: as in the file; `percentile`: in (0, 100) for p50 … p999 (p999 is 99.9)."""

    text: str
    kind: StatKind
    percentile: float = 0.0
    dimension: str = ""  # of `DISTINCT`


@dataclass(frozen=True, slots=True)
class Condition:
    """One entry of `where`: a row meets it if its value matches any of `any_of` (if given) and none of `none_of`.

    Patterns are as in the file without the leading `!`: shell-style globs for names and choices, numbers or ranges
    (`"1024-65535"`) for numbers, addresses or CIDR blocks for addresses.
    """

    dimension: str
    any_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()


_EXCEPT: Final = Condition("except")


@dataclass(frozen=True, slots=True)
class RuleException:
    """One `[[rule.except]]`: rows that meet each condition of `where` do not count. `until`: its last day, in UTC."""

    where: tuple[Condition, ...]
    owner: str
    reason: str
    until: dt.date | None = None
    file: str = field(default="", compare=False)
    line: int = field(default=1, compare=False)

    @property
    def end_seconds(self) -> int | None:
        """Return the end of its last day, seconds of the wall clock, None without one."""
        return None if self.until is None else (self.until.toordinal() + 1 - _EPOCH_DAY) * _DAY_SECONDS

    def has_ended(self, wall: float) -> bool:
        """Return whether its last day is over at `wall`, wall-clock seconds."""
        return self.end_seconds is not None and wall >= self.end_seconds


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Thresholds to fire and to clear, for each severity of the rule.

    With `above`, `fire[s]` is breached when value > fire[s], and not cleared while value >= clear[s]; else with < and
    <=. `clear` has the same keys as `fire`; where the file has none, it is the nearest value that does not fire.
    `fire_texts`, `clear_texts`: the levels as the file has them, of those with a unit.
    """

    above: bool
    fire: Mapping[Severity, float]
    clear: Mapping[Severity, float]
    fire_texts: Mapping[Severity, str] = field(default_factory=dict, compare=False)
    clear_texts: Mapping[Severity, str] = field(default_factory=dict, compare=False)


class Season(enum.StrEnum):
    """Period in which the hours of a baseline repeat."""

    DAY = "day"
    WEEK = "week"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class BaselineSpec:
    """`[rule.baseline]`: limits that each group learns by itself.

    `floor`: in the metric's unit; a level below it notifies nobody. `rarity_hours`: a severity fires for a group about
    once in so many hours of normal life. `learn_hours`: hours without a verdict at the begin. `above`: False if a
    group fires below its limit.
    """

    floor: float
    rarity_hours: Mapping[Severity, float]
    learn_hours: int
    season: Season
    above: bool


@dataclass(frozen=True, slots=True)
class Hits:
    """Condition to fire in place of `for`: at least `count` of the newest `ticks` ticks breach the threshold."""

    count: int
    ticks: int

    def are_met(self, recent: int) -> bool:
        """Return whether `recent`, one bit for each of the newest ticks, has enough hits."""
        return recent.bit_count() >= self.count


@dataclass(frozen=True, slots=True)
class Novelty:
    """`[rule.novelty]`: fires when a combination of `by` is seen for the first time.

    `learn_ns`: observed time from the beginning in which nothing fires. `forget_ns`: a combination that was not seen
    for this observed time is new again.
    """

    learn_ns: int
    forget_ns: int
    severity: Severity


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. With a `baseline`, the thresholds are a ceiling for every group; they are infinite without one."""

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
    labels: Labels = ()  # of the user's own, sorted
    absent: Absent = Absent.RESOLVE
    absent_for_ns: int = 120 * SECOND_NS
    hits: Hits | None = None  # in place of `for_ns`
    is_enabled: bool = field(default=True, compare=False)
    novelty: Novelty | None = None  # in place of thresholds, which then have its severity only
    inhibits: tuple[str, ...] = ()  # ids of rules: no notifications of their alerts while this one fires
    baseline: BaselineSpec | None = None
    exceptions: tuple[RuleException, ...] = ()
    send_resolved: bool = True
    unless_firing: tuple[str, ...] = ()  # ids of narrower rules, see `engine/muting.py`

    @property
    def has_long_window(self) -> bool:
        """Return whether its values are kept in coarse buckets, over restarts."""
        return self.window_ns > MAX_SHORT_WINDOW_NS

    @property
    def evaluation_key(self) -> tuple[object, ...]:
        """Return the key that is equal for two rules that can share windows."""
        return self.metric, self.stat, self.window_ns, self.by, self.where, self.exclusions, self.only_if

    @property
    def exclusions(self) -> tuple[tuple[Condition, ...], ...]:
        """Return the conditions of each exception."""
        return tuple(exception.where for exception in self.exceptions)

    @property
    def row_conditions(self) -> tuple[Condition, ...]:
        """Return `where`, then the conditions of each exception after a condition named "except": to be compared."""
        return (*self.where, *(one for where in self.exclusions for one in (_EXCEPT, *where)))

    @property
    def value_without_rows(self) -> float:
        """Return the value of a group without rows."""
        return 0.0 if self.stat.kind.is_number else value_without_rows(self.metric)

    @property
    def fires_without_rows(self) -> bool:
        """Return whether the value of a group without rows fires."""
        value, limits = self.value_without_rows, self.thresholds.fire.values()
        return any(value > limit if self.thresholds.above else value < limit for limit in limits)
