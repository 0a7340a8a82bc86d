"""Rules as answers for commands: their states, their values with origins. Copied from the stages between two ticks."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from watchdog.alerts import wording
from watchdog.alerts.instance import InstanceState
from watchdog.clock import SECOND_NS, Clock
from watchdog.control.alert_handlers import TimerStatus
from watchdog.control.rule_handlers import EffectiveRule, EffectiveValue, RuleStatus, WorstGroup
from watchdog.daemon.active_alerts import finite, timer_states
from watchdog.daemon.configuration import Configuration
from watchdog.daemon.pipeline import Pipeline
from watchdog.measure.catalogue import ON_DEMAND_METRICS
from watchdog.rules.engine.inspection import RuleInspection
from watchdog.rules.engine.judge import INPUT_INCOMPLETE, least_severe_threshold
from watchdog.rules.language.expression import metrics_of
from watchdog.rules.language.formats import format_number
from watchdog.rules.language.rule import Rule, Severity
from watchdog.rules.language.rule_source import RuleOrigin, format_toml
from watchdog.state.rule_history import FiringCount

NO_TICK = "no tick since the reload or start"
_NEVER = FiringCount(None, 0)


class RuleStates:
    """Reads the states of the rules of a pipeline."""

    def __init__(self, pipeline: Pipeline, clock: Clock) -> None:
        """Read `pipeline`; times of timers are those at the present of `clock`."""
        self._pipeline = pipeline
        self._clock = clock

    def list_rules(self, configuration: Configuration) -> list[RuleStatus]:
        """Return the state of each rule of `configuration`, which is in force.

        A tick waits for one rule at most.
        """
        wall, now_ns = self._clock.wall(), self._clock.boottime_ns()
        with self._pipeline.view() as view:
            rules, unknown, probes_problem = view.engine.rules, view.engine.unknown_rules, view.message_probes_problem
            history = {rule.id: view.history.firings_of(rule.id, wall) for rule in rules}
            instances = view.lifecycle.copy_instances()
        by_rule: dict[str, list[InstanceState]] = {}
        for instance in instances:
            by_rule.setdefault(instance.rule, []).append(instance)
        firing = {rule_id for rule_id, found in by_rule.items() if any(one.alert is not None for one in found)}
        states = []
        for rule in rules:
            inspected, reason = self.inspect(rule)
            if not reason and rule.id in unknown:
                reason = INPUT_INCOMPLETE
            if probes_problem and metrics_of(rule.metric) & ON_DEMAND_METRICS:
                reason = f"no message probes: {probes_problem}"
            source = configuration.sources.get(rule.id)
            origin = RuleOrigin.OWN if source is None else source.origin
            timing = by_rule.get(rule.id, ()), history.get(rule.id, _NEVER)
            status = _rule_status(rule, origin, inspected, reason, *timing, now_ns)
            states.append(_name_reporting_rule(status, [one for one in rule.unless_firing if one in firing]))
        return states

    def inspect(self, rule: Rule) -> tuple[RuleInspection | None, str]:
        """Return the newest tick of a rule, None and the reason where it is unknown."""
        try:
            with self._pipeline.view() as view:
                inspected = view.engine.inspect_rule(rule.id)
        except Exception:
            logging.getLogger("watchdog").exception("rule cannot be inspected: rule=%s", rule.id)
            return None, "defect of bpf-watchdog: see the daemon's log"
        return inspected, "" if inspected is not None else NO_TICK


def list_effective(configuration: Configuration) -> list[EffectiveRule]:
    """Return each rule in force with its values as in the files, and the file of each."""
    return [
        EffectiveRule(
            rule.id,
            source.origin.value,
            tuple(EffectiveValue(one.key, format_toml(one.value), one.file) for one in source.values),
        )
        for rule in configuration.rules
        if (source := configuration.sources.get(rule.id)) is not None
    ]


def _rule_status(
    rule: Rule,
    origin: RuleOrigin,
    inspected: RuleInspection | None,
    reason: str,
    instances: Sequence[InstanceState],
    firings: FiringCount,
    now_ns: int,
) -> RuleStatus:
    firing = sum(one.alert is not None for one in instances)
    pending = len(instances) - firing
    state = "firing" if firing else "pending" if pending else "unknown" if reason else "inactive"
    return RuleStatus(
        id=rule.id,
        origin=origin.value,
        file=rule.file,
        line=rule.line,
        state=state,
        reason=reason,
        firing=firing,
        pending=pending,
        timer=_nearest_timer(rule, (one for one in instances if one.alert is None), now_ns),
        groups=None if inspected is None else inspected.groups,
        worst=None if inspected is None else _worst_group(rule, inspected),
        limit_text=_nearest_limit_text(rule, inspected),
        window_seconds=rule.window_ns / SECOND_NS,
        filled_seconds=0.0 if inspected is None else inspected.filled_ns / SECOND_NS,
        has_matched=inspected is not None and inspected.has_matched,
        learning_seconds=0.0 if inspected is None else inspected.learning_ns / SECOND_NS,
        last_fired=firings.last,
        fired_in_7_days=firings.count,
    )


def _nearest_limit_text(rule: Rule, inspected: RuleInspection | None) -> str:
    """Return the limit of the least severity: that of the worst group, which a baseline may have learnt."""
    severity = min(rule.thresholds.fire)
    learnt = {} if inspected is None else inspected.limits
    return limit_text(rule, severity, learnt.get(severity, rule.thresholds.fire[severity]))


def _name_reporting_rule(status: RuleStatus, reporting: Sequence[str]) -> RuleStatus:
    """Return `status` with the reason why a group beyond the limit does not fire: narrower rules report it."""
    if not reporting or status.state != "inactive" or status.worst is None or (status.worst.share or 0) <= 1:
        return status
    return replace(status, reason=f"reported by {', '.join(reporting)}")


def _worst_group(rule: Rule, inspected: RuleInspection) -> WorstGroup | None:
    if inspected.worst is None:
        return None
    labels, value = inspected.worst
    return WorstGroup(dict(labels), finite(value), value_text(rule, value), finite(inspected.share))


def value_text(rule: Rule, value: float) -> str:
    """Return a value of `rule` for people, "-" for none."""
    if math.isnan(value):
        return "-"
    return format_number(wording.value_format(rule), value, least_severe_threshold(rule))


def limit_text(rule: Rule, severity: Severity, limit: float) -> str:
    """Return a limit for people: as the rule has it, or as a baseline learnt it; "-" for none."""
    if math.isinf(limit):
        return "-"
    if limit == rule.thresholds.fire.get(severity):
        return wording.fire_text(rule, severity)
    return format_number(wording.value_format(rule), limit, limit)


def _nearest_timer(rule: Rule, pending: Iterable[InstanceState], now_ns: int) -> TimerStatus | None:
    timers = [timer for instance in pending for timer in timer_states(rule, instance, now_ns)]
    return max(timers, key=lambda timer: timer.elapsed_seconds or 0.0, default=None)
