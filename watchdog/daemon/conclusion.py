"""The conclusion of an explanation: whether a group fires, and when it can fire at the earliest."""

from __future__ import annotations

import math

from watchdog.alerts.instance import InstanceState
from watchdog.clock import SECOND_NS
from watchdog.config.durations import format_duration
from watchdog.daemon.rule_states import limit_text
from watchdog.rules.engine.inspection import GroupInspection
from watchdog.rules.language.rule import GONE, Absent, Hits, Rule

_NO_ROW = "the group has no rows now"


def find_earliest_ns(rule: Rule, group: GroupInspection, instance: InstanceState | None, now_ns: int) -> int:
    """Return the ns until the alert can fire at the earliest; 0 if it fires. Ticks of `hits` are not counted."""
    if instance is not None and instance.alert is not None:
        return 0
    if instance is not None:
        if instance.absent_since_ns is not None:
            return max(0, rule.absent_for_ns - (now_ns - instance.absent_since_ns))
        elapsed_ns = max((now_ns - one.breached_since_ns for one in instance.timers.values()), default=0)
        return max(0, rule.for_ns - elapsed_ns)
    if rule.novelty is not None or not any(map(math.isfinite, group.thresholds.fire.values())):
        return group.learning_ns
    fill_ns = 0 if rule.thresholds.above else rule.window_ns - group.filled_ns
    return max(0, fill_ns) + rule.for_ns


def conclude(rule: Rule, group: GroupInspection, instance: InstanceState | None, now_ns: int, earliest_ns: int) -> str:
    """Return one sentence: "it does not fire: it fires 3s after its value gets above 5/s, at the earliest".

    `earliest_ns`: as of `find_earliest_ns`.
    """
    if instance is not None and instance.alert is not None:
        return _of_firing(rule, instance, now_ns)
    if rule.novelty is not None:
        if group.learning_ns:
            return f"it does not fire: it learns for {_span(group.learning_ns)} more"
        return f"it does not fire ({group.verdict.reason}): it fires in the tick that sees a group for the first time"
    if instance is not None:
        if group.verdict.is_held:
            return f"it is pending ({group.verdict.reason}): it fires if that rule does not"
        return f"it is pending: it fires {_pending_until(rule, instance, earliest_ns)}"
    if group.verdict.breached is not None:
        return "it fires as one of the instances of the overflow alert: others are worse"
    return _of_inactive(rule, group, earliest_ns)


def _of_firing(rule: Rule, instance: InstanceState, now_ns: int) -> str:
    cleared_ns = [timer.cleared_ns for timer in instance.timers.values() if timer.is_active]
    known_ns = [one for one in cleared_ns if one is not None]
    if len(known_ns) < len(cleared_ns) or not known_ns:
        return "it fires"
    left_ns = max(0, rule.keep_firing_for_ns - (now_ns - max(known_ns)))
    unless = "" if rule.novelty is not None else f" unless the value {_beyond(rule)} its limit again"
    return f"it fires, and is cleared: it resolves in {_span(left_ns)}{unless}"


def _pending_until(rule: Rule, instance: InstanceState, earliest_ns: int) -> str:
    if instance.absent_since_ns is not None:
        return f"in {_span(earliest_ns)} if the group stays absent"
    if rule.hits is None:
        return f"in {_span(earliest_ns)} if the condition stays true"
    hits = max((timer.recent_hits.bit_count() for timer in instance.timers.values()), default=0)
    missing = max(rule.hits.count - hits, 1)
    return f"with {missing} more hit{'' if missing == 1 else 's'} in the newest {rule.hits.ticks} ticks"


def _of_inactive(rule: Rule, group: GroupInspection, earliest_ns: int) -> str:
    severity = min(rule.thresholds.fire)
    limit = limit_text(rule, severity, group.thresholds.fire[severity])
    if math.isinf(group.thresholds.fire[severity]):
        if group.learning_ns:
            return f"it does not fire: its baseline learns for {_span(group.learning_ns)} more"
        limit = "a limit that its baseline has not learnt yet"
    why = _NO_ROW if group.verdict.reason == GONE else group.verdict.reason
    reason = f" ({why})" if why else ""
    if group.verdict.reason == GONE and rule.by and not rule.thresholds.above:
        return f"it does not fire{reason}: it is judged again from its next connection on"
    change = f"its value {_beyond(rule)} {limit}{_in_ticks(rule.hits)}"
    when = f"{_span(earliest_ns)} after {change}, at the earliest" if earliest_ns else f"as soon as {change}"
    absence = ""
    if rule.by and rule.absent is Absent.FIRE:
        absence = f", or after {format_duration(rule.absent_for_ns)} without a connection"
    return f"it does not fire{reason}: it fires {when}{absence}"


def _in_ticks(hits: Hits | None) -> str:
    return "" if hits is None else f" in {hits.count} of {hits.ticks} ticks"


def _span(duration_ns: int) -> str:
    return format_duration(round(duration_ns / SECOND_NS) * SECOND_NS)


def _beyond(rule: Rule) -> str:
    return "gets above" if rule.thresholds.above else "gets below"
