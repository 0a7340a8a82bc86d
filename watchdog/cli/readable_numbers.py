"""Numbers and times in the lines of commands: as few digits as a reader needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from watchdog.measure.catalogue import METRICS, Metric, MetricKind
from watchdog.rules.language.formats import format_number, natural_format

_HOURS_A_DAY = 24


def hours_text(hours: float) -> str:
    """Return hours as whole days where they are: "7 h", "1 d", "30 h"."""
    whole = int(hours)
    days, rest = divmod(whole, _HOURS_A_DAY)
    return f"{days} d" if days and not rest else f"{whole} h"


def learning_text(baseline: Mapping[str, Any]) -> str:
    """Return the state of a rule's baseline: "learning: 2 h of 1 d", "learnt 170 h"."""
    learnt = hours_text(baseline["learnt_hours"])
    return (
        f"learning: {learnt} of {hours_text(baseline['learn_hours'])}"
        if baseline["is_learning"]
        else f"learnt {learnt}"
    )


def metric_text(metric: str, statistic: str, value: float | None) -> str:
    """Return the `statistic` of a metric over a window, in its unit; "-" for none."""
    return _text(METRICS.get(metric), statistic, value, is_rate=statistic == "rate")


def newest_text(metric: str, statistic: str, value: float | None) -> str:
    """Return the value of a metric in one tick, a counter per second; "-" for none."""
    return _text(METRICS.get(metric), statistic, value, is_rate=True)


def _text(metric: Metric | None, statistic: str, value: float | None, *, is_rate: bool) -> str:
    if value is None:
        return "-"
    if metric is None or statistic == "count" or statistic.startswith("distinct "):
        return format_number("count", value)
    per_second = is_rate and metric.kind is MetricKind.COUNTER
    return format_number(natural_format(metric.unit, per_second=per_second), value)
