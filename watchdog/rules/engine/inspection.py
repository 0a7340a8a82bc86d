"""Inspection of rules between two ticks: the numbers by which the engine judged, for `rules` and `explain`.

All values are read from the windows of the newest tick, by the functions that made its verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from watchdog.rules.engine.aggregations import Aggregation, MetricReading
from watchdog.rules.engine.distinct import DistinctCount
from watchdog.rules.engine.groups import NO_GROUP_SLOT
from watchdog.rules.engine.judge import Judge, RuleTick, Verdict
from watchdog.rules.engine.learnt_facts import BaselineFacts
from watchdog.rules.engine.view import RowCounts
from watchdog.rules.language.rule import Labels, Rule, Severity, StatKind, Thresholds


@dataclass(frozen=True, slots=True)
class GroupInspection:
    """One group under one rule in the newest tick.

    `low`, `high`: bounds of the value, apart where something is missing. `only_if`: whether it holds, None if losses
    decide that; `only_if_value`: its left side, None without it. `filled_ns`: time for which the window has data, at
    most its length. `at_ns`: CLOCK_BOOTTIME of the tick. `thresholds`: those of the group; `facts`: of its baseline.
    `learning_ns`: as of `RuleInspection`.
    """

    verdict: Verdict
    low: float
    high: float
    only_if: bool | None
    only_if_value: float | None
    metrics: tuple[MetricReading, ...]
    rows: RowCounts
    filled_ns: int
    at_ns: int
    has_group: bool
    thresholds: Thresholds
    facts: BaselineFacts | None
    learning_ns: int


@dataclass(frozen=True, slots=True)
class RuleInspection:
    """One rule in the newest tick.

    `learning_ns`: measured time until its baseline or novelty has learnt, 0 if it has and for other rules.
    `groups`: number of its groups. `worst`: labels and value of the worst one, None without a value; `share`: of its
    limit, above 1 if it is breached, None without a limit. `has_matched`: whether any row has met `where` since the
    start. `limits`: to fire, of the worst group. `usual`: the reference of its baseline, None without one.
    """

    rule: Rule
    groups: int
    worst: tuple[Labels, float] | None
    share: float | None
    filled_ns: int
    has_matched: bool
    learning_ns: int
    limits: Mapping[Severity, float] = field(default_factory=dict)
    usual: float | None = None


def inspect_rule(judge: Judge, tick: RuleTick, filled_ns: int) -> RuleInspection:
    """Return the state of the rule of `judge` in `tick`, the newest one."""
    filled_ns = _filled_ns(judge, filled_ns)
    groups = judge.evaluation.view.groups
    try:
        count, worst = judge.count_groups(tick)
        if worst is None:
            matched = judge.evaluation.view.has_matched
            return RuleInspection(judge.rule, count, None, None, filled_ns, matched, judge.learning_ns())
        labels = groups.labels(worst, tick.snapshot)
        verdict, _ = judge.verdict_on(worst, labels, tick, is_active=True)
    finally:
        _release(judge)
    thresholds = judge.thresholds_of(worst)
    limit = thresholds.fire[min(thresholds.fire)]
    # Without a finite limit, its baseline has learnt none yet: nothing fires, however large the value is.
    share = share_of_limit(limit, verdict.value, above=thresholds.above) if math.isfinite(limit) else None
    facts = judge.facts_of(worst, verdict.value, thresholds)
    return RuleInspection(
        judge.rule,
        count,
        (labels, verdict.value),
        share,
        filled_ns,
        judge.evaluation.view.has_matched,
        judge.learning_ns(),
        thresholds.fire,
        None if facts is None else facts.usual,
    )


def inspect_group(
    judge: Judge, tick: RuleTick, slot: int, labels: Labels, filled_ns: int, *, is_active: bool
) -> GroupInspection:
    """Return the state of the group of `slot` under the rule of `judge` in `tick`, the newest one."""
    newest = {tick.snapshot.at_ns: tick.snapshot.elapsed_ns} if tick.snapshot.elapsed_ns else {}
    try:
        verdict, measured = judge.verdict_on(slot, labels, tick, is_active=is_active)
        return GroupInspection(
            verdict,
            measured.low,
            measured.high,
            measured.only_if,
            judge.only_if_value(slot),
            tuple(judge.evaluation.readings(slot, newest)),
            judge.evaluation.view.count_rows(slot),
            _filled_ns(judge, filled_ns),
            tick.snapshot.at_ns,
            has_group=slot != NO_GROUP_SLOT,
            thresholds=judge.thresholds_of(slot),
            facts=judge.facts_of(slot, measured.value, judge.thresholds_of(slot)),
            learning_ns=judge.learning_ns(),
        )
    finally:
        _release(judge)


def _filled_ns(judge: Judge, filled_ns: int) -> int:
    # `last` reads the newest tick alone, which is the whole window.
    return judge.rule.window_ns if filled_ns and judge.rule.stat.kind is StatKind.LAST else filled_ns


def find_group(judge: Judge, tick: RuleTick, labels: Labels) -> tuple[int, Labels]:
    """Return slot and labels of the group with `labels`; of the worst one, if these are some of its labels only.

    `NO_GROUP_SLOT` and the given labels where there is no such group.
    """
    groups, snapshot = judge.evaluation.view.groups, tick.snapshot
    if dict(labels).keys() == set(groups.by):
        return groups.slot(labels, snapshot), labels
    try:
        worst = judge.worst_of(judge.groups_of(groups.find_slots(labels, snapshot), tick), tick)
    finally:
        _release(judge)
    return (NO_GROUP_SLOT, labels) if worst is None else (worst, groups.labels(worst, snapshot))


def share_of_limit(limit: float, value: float, *, above: bool) -> float | None:
    """Return the share of `limit` that `value` has reached: above 1 if it is breached; None where it has none."""
    dividend, divisor = (value, limit) if above else (limit, value)
    return None if not divisor else dividend / divisor


def _release(judge: Judge) -> None:
    for evaluation in (judge.evaluation, judge.only_if_aggregation):
        if isinstance(evaluation, (Aggregation, DistinctCount)):
            evaluation.release()
