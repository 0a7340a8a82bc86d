"""Numbers and times in the lines of commands: as few digits as a reader needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from watchdog.measure.catalogue import METRICS, Metric, MetricKind
from watchdog.rules.language.formats import format_number, natural_format

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
_MIN_UNITS = 2  # of a larger unit, from which on it is used
_WHOLE_FROM = 9.95
_HOURS_A_DAY = 24


def span_of(seconds: float) -> str:
    """Return a time with its unit: "0.2 s", "24 s", "60 s", "2.5 min", "24 h", "7 d"."""
    number, unit = next(
        ((seconds / size, name) for size, name in _UNITS if seconds >= _MIN_UNITS * size), (seconds, "s")
    )
    digits = f"{number:.0f}" if number >= _WHOLE_FROM else f"{number:.1f}".removesuffix(".0")
    return f"{digits} {unit}"


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
