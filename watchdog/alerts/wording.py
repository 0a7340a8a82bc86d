"""What an alert says in words: its summary, and the reason for the state it is in."""

from __future__ import annotations

from functools import lru_cache

from watchdog.clock import SECOND_NS
from watchdog.durations import format_duration
from watchdog.measure.catalogue import METRICS, Kind
from watchdog.rules import formats, template
from watchdog.rules.expression import Expression, is_linear, metrics_of, unit_of
from watchdog.rules.judge import OVERFLOW
from watchdog.rules.schema import Labels, Rule, Severity, Stat, Statistic

RULE_REMOVED = "rule removed"
RULE_CHANGED = "rule changed"


def summary(
    rule: Rule, labels: Labels, severity: Severity, host: str, *, value: float, peak: float, since_seconds: float
) -> str:
    """Return the rule's summary for one instance; `since_seconds`: how long its condition has been true."""
    if labels == OVERFLOW:
        return f"{formats.FORMATS['count'](value)} more instances of {rule.id} fire"
    values: dict[str, object] = {
        "value": value,
        "threshold": rule.thresholds.fire[severity],
        "peak": peak,
        "severity": severity.label,
        "rule": rule.id,
        "window": rule.window_ns / SECOND_NS,
        "for": rule.for_ns / SECOND_NS,
        "host": host,
        "since": since_seconds,
    }
    return template.render(rule.summary, values | dict(labels))


def breached(rule: Rule, severity: Severity) -> str:
    """Say why an instance fires: "value above 100/s for 10s"."""
    direction = "above" if rule.thresholds.above else "below"
    return f"value {direction} {_shown(rule, rule.thresholds.fire[severity])}{_lasting(rule.for_ns)}"


def cleared(rule: Rule, severity: Severity, reason: str) -> str:
    """Say why it no longer does: "value below 60/s for 1m", or what else there was (`reason`)."""
    if severity not in rule.thresholds.clear:
        return RULE_CHANGED
    if not reason:
        direction = "below" if rule.thresholds.above else "above"
        reason = f"value {direction} {_shown(rule, rule.thresholds.clear[severity])}"
    return reason + _lasting(rule.keep_ns)


def natural_format(rule: Rule) -> str:
    """Return the name of the format in which the rule's values read best."""
    return _natural_format(rule.metric, rule.stat)


@lru_cache(maxsize=1024)
def _natural_format(metric: Expression, stat: Stat) -> str:
    per_second = (
        stat.statistic is not Statistic.SUM
        and is_linear(metric)
        and all(METRICS[name].kind is Kind.COUNTER for name in metrics_of(metric))
    )
    return formats.natural_format(unit_of(metric), per_second=per_second)


def _shown(rule: Rule, value: float) -> str:
    return formats.FORMATS[natural_format(rule)](value)


def _lasting(duration_ns: int) -> str:
    return f" for {format_duration(duration_ns)}" if duration_ns else ""
