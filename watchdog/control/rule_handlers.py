"""Control socket requests on rules: `rules list`, `rules effective` and `explain`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from watchdog.control.alert_handlers import TimerStatus
from watchdog.control.arguments import RequestArguments
from watchdog.control.server import Handler, RequestHandler
from watchdog.errors import UsageError


@dataclass(frozen=True, slots=True)
class WorstGroup:
    """The group of a rule with the worst value; `share`: of the limit of the least severity, None without a limit."""

    labels: Mapping[str, str]
    value: float | None
    value_text: str
    share: float | None


@dataclass(frozen=True, slots=True)
class RuleStatus:
    """One rule.

    `state`: "firing", "pending", "inactive" or "unknown". `reason`: of an unknown state, or of an inactive one with a
    group beyond the limit. `firing`, `pending`: number of alerts. `timer`: of the pending alert that is nearest to
    firing. `groups`: number of groups, None while unknown. `filled_seconds` of `window_seconds` have data.
    `has_matched`: whether any row has met `where` since the start.
    `learning_seconds`: measured time until its baseline or novelty has learnt, 0 if it has and for other rules.
    `last_fired`: wall-clock seconds, None if it is not known to have fired. `fired_in_7_days`: number of firings.
    """

    id: str
    origin: str
    file: str
    line: int
    state: str
    reason: str
    firing: int
    pending: int
    timer: TimerStatus | None
    groups: int | None
    worst: WorstGroup | None
    limit_text: str
    window_seconds: float
    filled_seconds: float
    has_matched: bool
    learning_seconds: float
    last_fired: float | None
    fired_in_7_days: int


@dataclass(frozen=True, slots=True)
class EffectiveValue:
    """One value in force: dotted key, value as TOML, and its file with line."""

    key: str
    toml: str
    file: str


@dataclass(frozen=True, slots=True)
class EffectiveRule:
    """One rule in force with the origin of each value."""

    id: str
    origin: str
    values: tuple[EffectiveValue, ...]


@dataclass(frozen=True, slots=True)
class MetricValue:
    """One metric of the rule in the group.

    `window`: its `statistic` over the window. `newest`: in the newest tick alone, a counter per second.
    """

    metric: str
    statistic: str
    window: float | None
    newest: float | None


@dataclass(frozen=True, slots=True)
class ThresholdStatus:
    """The limits of one severity; `breached`: whether the value breaches `fire`; `cleared`: whether it clears."""

    severity: str
    fire: float | None
    clear: float | None
    fire_text: str
    clear_text: str
    breached: bool
    cleared: bool


@dataclass(frozen=True, slots=True)
class BaselineStatus:
    """The numbers that the limits of a baseline are made of, in the metric's unit.

    `usual`: the reference of this hour; `highest`: of any hour, of a new group the highest limit of the others; None
    while unknown. `learnt_hours`: of the group; of the rule while it learns (`learn_hours`), where `is_new` and of a
    group that is not known. `rarity_hours`: the value is expected less than once in so many hours.
    """

    usual: float | None
    highest: float | None
    usual_text: str
    highest_text: str
    learnt_hours: int
    learn_hours: int
    rarity_hours: float | None
    is_learning: bool
    is_known: bool
    is_new: bool


@dataclass(frozen=True, slots=True)
class DestinationStatus:
    """One receiver that the alert of this group has, or would have, with the wait of its group.

    `notified`, `notified_at`, `queued`: as of `AlertReceiver`.
    """

    receiver: str
    group_key: str
    group_wait_seconds: float
    group_interval_seconds: float
    notified: str | None = None
    notified_at: float | None = None
    queued: str | None = None


@dataclass(frozen=True, slots=True)
class ExceptionStatus:
    """One exception of the rule that is in force. `where`: patterns by dimension, excluded ones with `!`.

    `until`: its last day, None without one. `has_excluded`: it has excluded a row since the start or the reload.
    """

    where: Mapping[str, Sequence[str]]
    owner: str
    reason: str
    until: str | None
    has_excluded: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """One group under one rule in the newest tick: all numbers by which the engine judged it.

    `by`: dimensions of the rule's groups. `has_group`: False if no group has the labels. `rows_*`: of the newest tick:
    of the host, those that meet `where`, those of these in the group. `low`, `high`: bounds of the value, apart where
    something is missing. `only_if`: whether it holds, None if losses decide that. `complete`: whether the input was
    complete. `hits`: as in the rule, None without. `earliest_seconds`: until the alert can fire at the earliest, 0 if
    it fires, None if the value would have to change first; `conclusion` has it in words. `has_novelty`: the first sight
    of a group fires: no value is compared with `thresholds`.
    """

    rule: str
    file: str
    line: int
    labels: Mapping[str, str]
    by: tuple[str, ...]
    has_group: bool
    age_seconds: float
    metric: str
    stat: str
    above: bool
    rows_host: int
    rows_selected: int
    rows_group: int
    metrics: tuple[MetricValue, ...]
    value: float | None
    value_text: str
    low: float | None
    high: float | None
    low_text: str
    high_text: str
    window_seconds: float
    filled_seconds: float
    only_if_text: str | None
    only_if_value: float | None
    only_if: bool | None
    baseline: BaselineStatus | None
    thresholds: tuple[ThresholdStatus, ...]
    has_novelty: bool
    breached: str | None
    complete: bool
    reason: str
    for_seconds: float
    hits: str | None
    keep_firing_for_seconds: float
    state: str
    timers: tuple[TimerStatus, ...]
    fingerprint: str
    exceptions: tuple[ExceptionStatus, ...]
    suppressed_by: tuple[str, ...]
    destinations: tuple[DestinationStatus, ...]
    earliest_seconds: float | None
    conclusion: str


def rule_handlers(
    list_rules: Callable[[], Sequence[RuleStatus]],
    list_effective: Callable[[], Sequence[EffectiveRule]],
    explain: Callable[[str, Mapping[str, str]], Explanation],
) -> dict[str, RequestHandler | Handler]:
    """Return the handlers of requests on rules.

    `explain(rule, labels)`: explains one group; with some of its labels, the worst of the groups that have them.
    """

    def show_list(given: Mapping[str, Any]) -> list[dict[str, Any]]:
        RequestArguments(given).reject_unknown_arguments()
        return [asdict(rule) for rule in list_rules()]

    def show_effective(given: Mapping[str, Any]) -> list[dict[str, Any]]:
        RequestArguments(given).reject_unknown_arguments()
        return [asdict(rule) for rule in list_effective()]

    def show_explanation(given: Mapping[str, Any]) -> dict[str, Any]:
        arguments = RequestArguments(given)
        rule, labels = arguments.text("rule"), arguments.text_table("labels")
        arguments.reject_unknown_arguments()
        if not rule:
            raise UsageError("rule is missing")
        return asdict(explain(rule, labels))

    return {
        "rules list": Handler(show_list, in_background=True),
        "rules effective": show_effective,
        "explain": Handler(show_explanation, in_background=True),
    }
