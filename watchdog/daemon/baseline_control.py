"""Baselines of the running daemon, read and changed by hand between two ticks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from watchdog.alerts import wording
from watchdog.config import suggestions
from watchdog.control.baseline_handlers import (
    BaselineAction,
    BaselineChange,
    BaselineGroupList,
    GroupBaselineStatus,
    RuleBaselineStatus,
)
from watchdog.daemon.active_alerts import finite
from watchdog.daemon.find_rule import find_rule
from watchdog.daemon.pipeline import Pipeline, PipelineView
from watchdog.daemon.rule_states import NO_TICK, limit_text
from watchdog.errors import UsageError, WatchdogError
from watchdog.rules.engine.baselines import Baselines
from watchdog.rules.engine.rule_baseline import GroupBaseline, RuleBaseline
from watchdog.rules.language.formats import format_number
from watchdog.rules.language.rule import Labels, Rule
from watchdog.sanitize import escape_unprintable

_MAX_GROUPS: Final = 100  # in one answer: the tick waits while they are copied

_log = logging.getLogger("watchdog")


class BaselineControl:
    """Implements the commands on baselines; its methods run in the thread of the control socket.

    All methods raise UsageError for a rule without a baseline and for labels that are none of its `by`.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        """Read and change the baselines of `pipeline`."""
        self._pipeline = pipeline

    def list_rules(self) -> tuple[RuleBaselineStatus, ...]:
        """Return the baseline of each rule that has one."""
        with self._pipeline.view() as view:
            found = [(rule.id, view.engine.baselines.of(rule.id)) for rule in view.engine.rules]
            return tuple(_rule_status(rule_id, baseline) for rule_id, baseline in found if baseline is not None)

    def list_groups(self, rule_id: str, labels: Mapping[str, str]) -> BaselineGroupList:
        """Return the groups of a rule that have rows now, or those with `labels`, some of their labels.

        Raises:
            WatchdogError: no group with these labels is known, or the rule waits for its first tick.
        """
        with self._pipeline.view() as view:
            rule, baseline = _find(view, rule_id, labels)
            if labels.keys() == set(rule.by):
                one = view.engine.baselines.describe(rule_id, tuple(labels.items()))
                found, matching = [(tuple(labels.items()), one)] if one is not None else [], 1
            else:
                found, matching = _known_groups(view, baseline, rule_id, tuple(labels.items()))
            status, learn_hours = _rule_status(rule_id, baseline), baseline.columns.learn_hours
        if labels and not found:
            raise _unknown_group(rule_id, labels)
        groups = tuple(_group_status(rule, learn_hours, *entry) for entry in found)
        return BaselineGroupList(status, matching, groups)

    def change(self, action: BaselineAction, rule_id: str, labels: Mapping[str, str]) -> BaselineChange:
        """Change one group, or all of a rule without `labels`; log it.

        Raises:
            UsageError: not all labels of the group are given.
            WatchdogError: no group with these labels is known.
        """
        with self._pipeline.view() as view:
            rule, _ = _find(view, rule_id, labels)
            missing = [name for name in rule.by if name not in labels]
            if labels and missing:
                raise UsageError(f"a group of {rule_id} has {', '.join(rule.by)} too: give {', '.join(missing)}")
            count = _apply(view.engine.baselines, action, rule_id, tuple(labels.items()) or None)
        if labels and not count:
            raise _unknown_group(rule_id, labels)
        _log.info(
            "baseline changed by hand: action=%s rule=%s group=%s count=%d",
            action,
            rule_id,
            escape_unprintable(_text(labels)) or "all",
            count,
        )
        return BaselineChange(action, rule_id, dict(labels), count)


def _apply(baselines: Baselines, action: BaselineAction, rule_id: str, labels: Labels | None) -> int:
    match action:
        case BaselineAction.ACCEPT:
            return baselines.accept(rule_id, labels)
        case BaselineAction.FORGET:
            return baselines.forget(rule_id, labels)
        case BaselineAction.HOLD | BaselineAction.RELEASE:
            return baselines.hold(rule_id, labels, is_held=action is BaselineAction.HOLD)


def _find(view: PipelineView, rule_id: str, labels: Mapping[str, str]) -> tuple[Rule, RuleBaseline]:
    rule, baseline = find_rule(view, rule_id), view.engine.baselines.of(rule_id)
    if baseline is None:
        raise UsageError(f"rule {rule_id} has no baseline", remedy="`bpf-watchdog baseline show` lists those that do")
    for name in labels:
        if not rule.by:
            raise UsageError(f"{rule_id} has one group, the host: give no labels")
        if name not in rule.by:
            raise UsageError(suggestions.unknown_name("label", name, rule.by))
    return rule, baseline


def _known_groups(
    view: PipelineView, baseline: RuleBaseline, rule_id: str, labels: Labels
) -> tuple[list[tuple[Labels, GroupBaseline]], int]:
    """Return the groups with `labels`, at most `_MAX_GROUPS`, and the number of all."""
    newest = view.engine.newest
    if newest is None:
        raise WatchdogError(f"groups of {rule_id} cannot be listed: {NO_TICK}", remedy="try again after the next tick")
    rows = baseline.known_rows(baseline.find_slots(labels, newest) if labels else None)
    chosen = rows[:_MAX_GROUPS].tolist()
    return [(baseline.read_labels(row, newest), baseline.describe(row)) for row in chosen], len(rows)


def _rule_status(rule_id: str, baseline: RuleBaseline) -> RuleBaselineStatus:
    columns = baseline.columns
    return RuleBaselineStatus(
        rule_id,
        baseline.is_learning,
        baseline.learnt_hours,
        columns.learn_hours,
        len(baseline.groups),
        columns.held_count,
    )


def _group_status(rule: Rule, learn_hours: int, labels: Labels, group: GroupBaseline) -> GroupBaselineStatus:
    form = wording.value_format(rule)
    usual, highest = ("-" if one is None else format_number(form, one) for one in (group.usual, group.highest))
    return GroupBaselineStatus(
        labels=dict(labels),
        usual=group.usual,
        highest=group.highest,
        limits={severity.label: finite(limit) for severity, limit in group.limits.items()},
        usual_text=usual,
        highest_text=highest,
        limit_texts={severity.label: limit_text(rule, severity, limit) for severity, limit in group.limits.items()},
        learnt_hours=group.learnt_hours,
        record_hours=group.record_hours,
        is_new=group.learnt_hours < learn_hours,
        is_held=group.is_held,
    )


def _text(labels: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in labels.items())


def _unknown_group(rule_id: str, labels: Mapping[str, str]) -> WatchdogError:
    return WatchdogError(f"the baseline of {rule_id} knows no group {_text(labels)}")
