"""`[rule.novelty]`: a rule that fires when a combination of its `by` is seen for the first time."""

from __future__ import annotations

from watchdog.config.document import Table
from watchdog.config.durations import format_duration
from watchdog.rules.language.expression import Expression, MetricReference
from watchdog.rules.language.rule import Novelty, Severity, Thresholds

_REFUSED = ("fire_above", "fire_below", "clear_below", "clear_above", "for", "hits", "absent", "absent_for", "baseline")
_LIMIT_TEXT = "none"  # the first sight fires, at any value


def read_novelty(table: Table) -> Novelty | None:
    """Return `novelty` of the rule in `table`, None without it; problems are noted in it."""
    if table.value("novelty", None) is None:
        return None
    novelty = table.table("novelty")
    learn_ns = novelty.duration("learn", "7d", maximum="90d")
    forget_ns = novelty.duration("forget", "30d", minimum="1h", maximum="366d")
    label = novelty.text("severity", Severity.WARNING.label, choices=[one.label for one in Severity])
    novelty.reject_unknown_keys()
    if not novelty.has_problem("forget") and not novelty.has_problem("learn") and forget_ns < learn_ns:
        novelty.add_problem(
            "forget", f"must be at least learn, {format_duration(learn_ns)}: what is learnt would be lost"
        )
    for key in _REFUSED:
        if key in table:
            table.value(key)
            table.add_problem(key, "cannot be combined with novelty, which fires at the first sight")
    return Novelty(learn_ns, forget_ns, Severity[label.upper()] if label else Severity.WARNING)


def check_novelty(table: Table, metric: Expression, by: tuple[str, ...]) -> None:
    """Note problems of a rule with novelty in `table` that lie in other keys."""
    if not by and not table.has_problem("by"):
        table.add_problem("by", "missing: novelty fires for combinations of the dimensions in by")
    if not isinstance(metric, MetricReference) and not table.has_problem("metric"):
        table.add_problem("metric", "must be one metric with novelty, not arithmetic")


def novelty_thresholds(novelty: Novelty) -> Thresholds:
    """Return thresholds with the severity of `novelty`; no value is compared with them."""
    levels = {novelty.severity: 0.0}
    return Thresholds(above=True, fire=levels, clear=levels, fire_texts={novelty.severity: _LIMIT_TEXT})
