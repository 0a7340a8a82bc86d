"""Windows above an hour: the rules that can have them."""

from __future__ import annotations

from typing import Final

from watchdog.clock import SECOND_NS
from watchdog.config.document import Table
from watchdog.config.durations import format_duration
from watchdog.measure.catalogue import MAX_WINDOW, METRICS, MetricKind
from watchdog.rules.language.expression import is_linear, metrics_of, value_without_rows
from watchdog.rules.language.rule import Rule, StatKind

MAX_LONG_WINDOW = "31d"
LONG_WINDOW_BUCKETS: Final = 144
_SUMMED = (StatKind.SUM, StatKind.RATE, StatKind.MEAN)
_STATS = (*_SUMMED, StatKind.MAX, StatKind.MIN)


def check_long_window(table: Table, rule: Rule) -> None:
    """Note a problem where the window of the rule in `table` is longer than it can be, and keys without an effect.

    A rate gets a note: its author may not expect the buckets.
    """
    if not rule.has_long_window or any(map(table.has_problem, ("window", "metric", "stat"))):
        return
    if message := _fault(rule):
        table.add_problem("window", f"must be at most {MAX_WINDOW}: {message}")
        return
    if rule.stat.kind is StatKind.RATE:
        bucket = format_duration(-(-rule.window_ns // (LONG_WINDOW_BUCKETS * SECOND_NS)) * SECOND_NS)
        table.add_note(
            "window",
            f"above {MAX_WINDOW} values are kept in {LONG_WINDOW_BUCKETS} buckets, here of {bucket}:"
            f" the rate is that of the window or of up to {bucket} less",
        )
    for key in ("absent", "absent_for"):
        if key in table:
            table.add_problem(key, f"has no effect with a window above {MAX_WINDOW}: groups stay for the window")


def _fault(rule: Rule) -> str:
    """Return the reason why the rule cannot have a long window, "" without one."""
    counters = [METRICS[name].kind is MetricKind.COUNTER for name in metrics_of(rule.metric)]
    if rule.stat.kind not in _STATS or not all(counters):
        return "longer ones are for sum, rate, mean, max and min of counters"
    if rule.stat.kind in _SUMMED and not (is_linear(rule.metric) and value_without_rows(rule.metric) == 0):
        return f"longer ones are for {rule.stat.text} of sums of counters, not of quotients"
    for key, value in (("only_if", rule.only_if), ("novelty", rule.novelty), ("baseline", rule.baseline)):
        if value is not None:
            return f"longer ones cannot be combined with {key}"
    return ""
