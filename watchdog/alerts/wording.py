"""The words of an alert: its summary and the reason of its state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

from watchdog.alerts.baseline_words import baseline_reason, learnt_text, summary_values
from watchdog.clock import SECOND_NS
from watchdog.config.durations import format_duration
from watchdog.measure.catalogue import METRICS, MetricKind
from watchdog.rules.engine.learnt_facts import BaselineFacts
from watchdog.rules.language import formats, template
from watchdog.rules.language.expression import Expression, is_linear, metrics_of, unit_of
from watchdog.rules.language.rule import GONE, OVERFLOW_LABELS, Labels, Rule, Severity, Stat, StatKind

RULE_REMOVED = "rule removed"
RULE_CHANGED = "rule changed"
NO_LONGER_SELECTED = "no longer selected"
LEARNT_LIMIT = "learnt for each group"  # of the groups without an alert of their own
LOWER_BOUND = " (the value is a lower bound: not everything could be counted)"
DISPLACED = "in the overflow alert: worse instances fire"
_MAX_ERROR_CHARACTERS = 120


def render_summary(
    rule: Rule,
    labels: Labels,
    severity: Severity,
    host: str,
    *,
    value: float,
    peak: float,
    since_seconds: float,
    facts: BaselineFacts | None = None,
) -> str:
    """Return the rule's summary for one instance; `since_seconds`: duration of its condition.

    `facts`: of its baseline, None without one.
    """
    if labels == OVERFLOW_LABELS:
        number = formats.FORMATS["count"](value)
        if rule.novelty is not None:
            return f"{number} new combinations of {', '.join(rule.by)} within an hour ({rule.id})"
        return f"{number} more " + (f"instance of {rule.id} fires" if value == 1 else f"instances of {rule.id} fire")
    values: dict[str, object] = {
        "value": value,
        "threshold": limit_of(rule, severity, facts),
        "peak": peak,
        "severity": severity.label,
        "rule": rule.id,
        "window": rule.window_ns / SECOND_NS,
        "for": rule.for_ns / SECOND_NS,
        "host": host,
        "since": since_seconds,
    }
    if rule.baseline is not None:
        values |= summary_values(facts)
    return template.render_template(rule.summary, values | dict(labels))


def account_text(labels: Mapping[str, str], user: str, unit: str) -> str:
    """Return " (user nobody)" for the end of a summary: a process can choose its name, not its account.

    "" where the account is in the labels, is root, or has its name in that of the host's unit: redis.service of redis.
    """
    is_expected = "/" not in unit and unit.startswith(user)
    return "" if not user or user == "root" or "user" in labels or is_expected else f" (user {user})"


def accounts_text(groups_by_user: Sequence[tuple[str, int]], user_count: int) -> str:
    """Return " (by user: nobody 12, games 3)" for the end of the summary of an overflow, "" if none is known."""
    shown = ", ".join(f"{user or '-'} {count:,}" for user, count in groups_by_user)
    others = user_count - len(groups_by_user)
    more = f" and {others:,} other users" if others > 0 else ""
    return f" (by user: {shown}{more})" if shown else ""


def fallback_summary(rule: Rule, limit: template.Limit, value: float, error: Exception) -> str:
    """Return a summary that replaces the rule's own one, which failed with `error`."""
    number = formats.format_number(value_format(rule), value, limit.value)
    cause = f"{type(error).__name__}: {error}"[:_MAX_ERROR_CHARACTERS]
    return f"{rule.id} is at {number} (limit {limit.text}; its summary failed: {cause})"


def check_summary(rule: Rule) -> None:
    """Render summary and reasons of `rule` for each severity and for values of every kind, firing and resolved.

    Raises:
        Exception: any error that would otherwise occur when the rule fires.
    """
    labels = tuple((dimension, "example") for dimension in rule.by)
    if rule.baseline is not None:
        _check_baseline(rule, labels)
        return
    for severity, limit in rule.thresholds.fire.items():
        for value in (limit, rule.thresholds.clear[severity], 0.0, math.inf, math.nan):
            render_summary(rule, labels, severity, "host", value=value, peak=limit, since_seconds=1.0)
            breach_reason(rule, severity)
            clear_reason(rule, severity, "")


def breach_reason(
    rule: Rule,
    severity: Severity,
    value: float = math.nan,
    facts: BaselineFacts | None = None,
    *,
    is_lower_bound: bool = False,
) -> str:
    """Return the reason of a firing instance: "value above 100/s for 10s", "value above 100/s in 3 of 5 ticks".

    `value`, `facts`: of the baseline that fires, None without one. `is_lower_bound`: the value can be greater than it
    was counted.
    """
    if rule.novelty is not None:
        return "seen for the first time"
    hits = f" in {rule.hits.count} of {rule.hits.ticks} ticks" if rule.hits is not None else ""
    bound = LOWER_BOUND if is_lower_bound else ""
    if facts is not None:
        cause = baseline_reason(value_format(rule), value, facts, above=rule.thresholds.above)
    else:
        direction = "above" if rule.thresholds.above else "below"
        limit = "the usual" if _is_without_ceiling(rule, severity) else fire_text(rule, severity)
        cause = f"value {direction} {limit}"
    return f"{cause}{hits}{_for_duration(rule.for_ns)}{bound}"


def clear_reason(rule: Rule, severity: Severity, reason: str, facts: BaselineFacts | None = None) -> str:
    """Return the reason of its end: "value below 60/s for 1m", or `reason` instead of the value.

    `facts`: of the baseline that fired, None without one.
    """
    if severity not in rule.thresholds.clear:
        return RULE_CHANGED
    if not reason:
        direction = "below" if rule.thresholds.above else "above"
        if facts is not None:
            limit = limit_of(rule, severity, facts).text
        else:
            limit = "its limit" if _is_without_ceiling(rule, severity) else clear_text(rule, severity)
        reason = f"value {direction} {limit}"
    return reason + _for_duration(rule.keep_firing_for_ns)


def limit_of(rule: Rule, severity: Severity, facts: BaselineFacts | None) -> template.Limit:
    """Return the limit of `severity`: the one that the baseline had, or the rule's."""
    limit = None if facts is None else facts.limits.get(severity)
    if limit is None or limit == rule.thresholds.fire[severity]:
        ceiling = rule.thresholds.fire[severity]
        text = LEARNT_LIMIT if _is_without_ceiling(rule, severity) else fire_text(rule, severity)
        return template.Limit(ceiling, value_format(rule), text)
    form = value_format(rule)
    return template.Limit(limit, form, learnt_text(form, limit, above=rule.thresholds.above))


def _is_without_ceiling(rule: Rule, severity: Severity) -> bool:
    return rule.baseline is not None and math.isinf(rule.thresholds.fire[severity])


def _check_baseline(rule: Rule, labels: Labels) -> None:
    """Render the texts of a rule with a baseline, of groups old and young, with every kind of value."""
    limits = dict.fromkeys(rule.thresholds.fire, 2.0)
    old = BaselineFacts(limits, usual=1.0, highest=1.0, rarity_hours=700.0, learnt_hours=48, is_new=False)
    new = BaselineFacts(limits, usual=None, highest=1.0, rarity_hours=1.0, learnt_hours=1, is_new=True)
    for severity in rule.thresholds.fire:
        for facts in (None, old, new):
            for value in (3.0, 0.0, math.inf, math.nan):
                render_summary(rule, labels, severity, "host", value=value, peak=3.0, since_seconds=1.0, facts=facts)
            clear_reason(rule, severity, "", facts)
            if facts is not None:
                baseline_reason(value_format(rule), 3.0, facts, above=rule.thresholds.above)
        breach_reason(rule, severity)


def absent_reason(rule: Rule) -> str:
    """Return the reason of an instance that fires because its group has no rows: "absent for 2m"."""
    return f"absent{_for_duration(rule.absent_for_ns)}"


def absence_end_reason(rule: Rule, *, has_rows: bool, is_excluded: bool) -> str:
    """Return the reason of the end of an instance without rows that meet `where`: "gone for 2m".

    `has_rows`: the group has other rows. `is_excluded`: a change of the rule excluded them.
    """
    if is_excluded:
        return NO_LONGER_SELECTED
    return (NO_LONGER_SELECTED if has_rows else GONE) + _for_duration(rule.absent_for_ns)


def value_format(rule: Rule) -> str:
    """Return the name of the format of the rule's values."""
    return _natural_format(rule.metric, rule.stat)


def tick_value_format(rule: Rule) -> str:
    """Return the name of the format of the values of single ticks; a counter is shown as a rate there."""
    return _natural_format(rule.metric, rule.stat if rule.stat.kind.is_number else Stat("last", StatKind.LAST))


@lru_cache(maxsize=1024)
def _natural_format(metric: Expression, stat: Stat) -> str:
    if stat.kind.is_number:
        return "count"
    per_second = (
        stat.kind is not StatKind.SUM
        and is_linear(metric)
        and all(METRICS[name].kind is MetricKind.COUNTER for name in metrics_of(metric))
    )
    return formats.natural_format(unit_of(metric), per_second=per_second)


def fire_text(rule: Rule, severity: Severity) -> str:
    """Return the threshold of `severity` as the rule has it: "19.96/s", "1.25 GiB"."""
    thresholds = rule.thresholds
    return thresholds.fire_texts.get(severity) or formats.format_exact(value_format(rule), thresholds.fire[severity])


def clear_text(rule: Rule, severity: Severity) -> str:
    """Return the limit at which `severity` clears, as the rule has it; its threshold where the rule has none."""
    thresholds, fire, clear = rule.thresholds, rule.thresholds.fire[severity], rule.thresholds.clear[severity]
    if math.nextafter(fire, clear) == clear:  # the rule has none of its own
        return fire_text(rule, severity)
    return thresholds.clear_texts.get(severity) or formats.format_exact(value_format(rule), clear)


def _for_duration(duration_ns: int) -> str:
    return f" for {format_duration(duration_ns)}" if duration_ns else ""
