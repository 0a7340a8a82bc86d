"""The explanation of one group under one rule: the numbers of the engine, timers and route."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from watchdog.alerts import wording
from watchdog.alerts.alert import Alert, AlertState, fingerprint
from watchdog.alerts.instance import InstanceState
from watchdog.clock import SECOND_NS, Clock
from watchdog.config import suggestions
from watchdog.control.rule_handlers import (
    BaselineStatus,
    DestinationStatus,
    ExceptionStatus,
    Explanation,
    MetricValue,
    ThresholdStatus,
)
from watchdog.daemon.active_alerts import finite, timer_states
from watchdog.daemon.alert_receivers import AlertReceivers, KnownSeverities
from watchdog.daemon.conclusion import conclude, find_earliest_ns
from watchdog.daemon.find_rule import find_rule
from watchdog.daemon.pipeline import Pipeline, PipelineView
from watchdog.daemon.rule_states import NO_TICK, limit_text, value_text
from watchdog.errors import UsageError, WatchdogError
from watchdog.rules.engine.inspection import GroupInspection
from watchdog.rules.engine.rule_baseline import RuleBaseline
from watchdog.rules.language.condition_text import patterns_of
from watchdog.rules.language.expression import format_expression
from watchdog.rules.language.rule import Labels, Rule, RuleException, Severity
from watchdog.storage.reader import ReadableDatabase


@dataclass(frozen=True, slots=True)
class _Copied:
    """The state of one group, copied between two ticks."""

    group: GroupInspection
    instance: InstanceState | None
    baseline: BaselineStatus | None
    destinations: tuple[DestinationStatus, ...]
    alert: Alert
    known: KnownSeverities
    suppressed_by: tuple[str, ...]
    exceptions: tuple[ExceptionStatus, ...]


def explain(
    pipeline: Pipeline, reader: ReadableDatabase, clock: Clock, rule_id: str, labels: Mapping[str, str]
) -> Explanation:
    """Return the explanation of the group with `labels`; of the worst one, if these are some of its labels or none.

    Raises:
        UsageError: there is no such rule, or a label is none of its `by`.
        WatchdogError: the rule waits for its first tick.
    """
    with pipeline.view() as view:
        rule = find_rule(view, rule_id)
        for name in labels:
            if name not in rule.by:
                raise UsageError(_unknown_label(rule, name))
        copied = _copy(view, rule, tuple(labels.items()))
    if copied is None:
        raise WatchdogError(f"rule {rule_id} cannot be explained: {NO_TICK}", remedy="try again after the next tick")
    copied = replace(copied, destinations=_with_deliveries(copied, AlertReceivers(reader)))
    return _explanation(rule, copied, clock.boottime_ns())


def _with_deliveries(copied: _Copied, receivers: AlertReceivers) -> tuple[DestinationStatus, ...]:
    read = {one.receiver: one for one in receivers.read([(copied.alert, copied.known)])[copied.alert.fingerprint]}
    return tuple(
        replace(one, notified=found.notified, notified_at=found.notified_at, queued=found.queued)
        if (found := read.get(one.receiver)) is not None
        else one
        for one in copied.destinations
    )


def _unknown_label(rule: Rule, name: str) -> str:
    if not rule.by:
        return f"{rule.id} has one group, the host: give no labels"
    return suggestions.unknown_name("label", name, rule.by)


def _copy(view: PipelineView, rule: Rule, labels: Labels) -> _Copied | None:
    group = view.engine.inspect_group(rule.id, labels, view.lifecycle.active_keys())
    if group is None:
        return None
    found = group.verdict.labels
    instance = next(
        (one for one in view.lifecycle.copy_instances() if one.rule == rule.id and dict(one.labels) == dict(found)),
        None,
    )
    alert = instance.alert if instance is not None else None
    alert = view.identity.mark(alert or _example_alert(rule, group))
    known = view.grouping.notified_severities(alert.fingerprint)
    destinations = tuple(
        DestinationStatus(
            one.receiver,
            one.group_key,
            one.group_timing.group_wait_ns / SECOND_NS,
            one.group_timing.group_interval_ns / SECOND_NS,
        )
        for one in view.grouping.destinations(alert)
    )
    suppressed_by = tuple(one.describe() for one in view.suppressed.get(alert.fingerprint, ()))
    unused = [exception for owner, exception in view.engine.unused_exceptions() if owner.id == rule.id]
    exceptions = tuple(_exception(one, has_excluded=one not in unused) for one in rule.exceptions)
    baseline = _baseline(rule, group, view.engine.baselines.of(rule.id))
    return _Copied(group, instance, baseline, destinations, alert, known, suppressed_by, exceptions)


def _exception(exception: RuleException, *, has_excluded: bool) -> ExceptionStatus:
    return ExceptionStatus(
        where=patterns_of(exception.where),
        owner=exception.owner,
        reason=exception.reason,
        until=None if exception.until is None else exception.until.isoformat(),
        has_excluded=has_excluded,
    )


def _example_alert(rule: Rule, group: GroupInspection) -> Alert:
    """Return the alert that the group would have, for its route."""
    verdict = group.verdict
    severity = verdict.breached or min(rule.thresholds.fire)
    labels = tuple((name, dict(verdict.labels).get(name, "")) for name in rule.by)
    return Alert(
        rule=rule.id,
        labels=labels,
        fingerprint=fingerprint(rule.id, labels),
        state=AlertState.FIRING,
        severity=severity,
        summary="",
        value=verdict.value,
        threshold=rule.thresholds.fire[severity],
        peak=verdict.value,
        started=0.0,
        fired=0.0,
        resolved=None,
        reason="",
        receivers=rule.receivers,
        runbook=rule.runbook,
    )


def _explanation(rule: Rule, copied: _Copied, now_ns: int) -> Explanation:
    group, verdict, instance = copied.group, copied.group.verdict, copied.instance
    timers = () if instance is None else timer_states(rule, instance, now_ns)
    state = AlertState.INACTIVE if instance is None else AlertState.FIRING if instance.alert else AlertState.PENDING
    earliest_ns = find_earliest_ns(rule, group, instance, now_ns)
    return Explanation(
        rule=rule.id,
        file=rule.file,
        line=rule.line,
        labels=dict(verdict.labels),
        by=rule.by,
        has_group=group.has_group,
        age_seconds=round((now_ns - group.at_ns) / SECOND_NS, 3),
        metric=format_expression(rule.metric),
        stat=rule.stat.text,
        above=rule.thresholds.above,
        rows_host=group.rows.host,
        rows_selected=group.rows.selected,
        rows_group=group.rows.group,
        metrics=tuple(
            MetricValue(one.metric, one.statistic, finite(one.window), finite(one.newest)) for one in group.metrics
        ),
        value=finite(verdict.value),
        value_text=value_text(rule, verdict.value),
        low=finite(group.low),
        high=finite(group.high),
        low_text=value_text(rule, group.low),
        high_text=value_text(rule, group.high),
        window_seconds=rule.window_ns / SECOND_NS,
        filled_seconds=group.filled_ns / SECOND_NS,
        only_if_text=_only_if_text(rule),
        only_if_value=finite(group.only_if_value),
        only_if=group.only_if,
        baseline=copied.baseline,
        thresholds=tuple(_threshold(rule, severity, group) for severity in sorted(rule.thresholds.fire)),
        has_novelty=rule.novelty is not None,
        breached=None if verdict.breached is None else verdict.breached.label,
        complete=verdict.complete,
        reason=verdict.reason,
        for_seconds=rule.for_ns / SECOND_NS,
        hits=None if rule.hits is None else f"{rule.hits.count} of {rule.hits.ticks}",
        keep_firing_for_seconds=rule.keep_firing_for_ns / SECOND_NS,
        state=state.value,
        timers=timers,
        fingerprint=fingerprint(rule.id, verdict.labels) if instance is None else instance.fingerprint,
        exceptions=copied.exceptions,
        suppressed_by=copied.suppressed_by,
        destinations=copied.destinations,
        earliest_seconds=earliest_ns / SECOND_NS,
        conclusion=conclude(rule, group, instance, now_ns, earliest_ns),
    )


def _threshold(rule: Rule, severity: Severity, group: GroupInspection) -> ThresholdStatus:
    breached, not_cleared = group.verdict.breached, group.verdict.not_cleared
    fire, clear = group.thresholds.fire[severity], group.thresholds.clear[severity]
    is_learnt = fire != rule.thresholds.fire[severity]
    return ThresholdStatus(
        severity.label,
        finite(fire),
        finite(clear),
        limit_text(rule, severity, fire),
        limit_text(rule, severity, fire) if is_learnt or math.isinf(fire) else wording.clear_text(rule, severity),
        breached=breached is not None and breached >= severity,
        cleared=not_cleared is None or not_cleared < severity,
    )


def _baseline(rule: Rule, group: GroupInspection, baseline: RuleBaseline | None) -> BaselineStatus | None:
    if baseline is None:
        return None
    facts = group.facts
    usual, highest = (None, None) if facts is None else (facts.usual, finite(facts.highest))
    return BaselineStatus(
        usual=usual,
        highest=highest,
        usual_text="-" if usual is None else value_text(rule, usual),
        highest_text="-" if highest is None else value_text(rule, highest),
        learnt_hours=baseline.learnt_hours if facts is None else facts.learnt_hours,
        learn_hours=baseline.columns.learn_hours,
        rarity_hours=None if facts is None else finite(facts.rarity_hours),
        is_learning=baseline.is_learning,
        is_known=facts is not None,
        is_new=facts is not None and facts.is_new,
    )


def _only_if_text(rule: Rule) -> str | None:
    if rule.only_if is None:
        return None
    return f"{format_expression(rule.only_if.left)} {rule.only_if.operator} {rule.only_if.right:g}"
