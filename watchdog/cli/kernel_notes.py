"""Notes on rules that need features which this host's kernel lacks: the rules themselves can be right."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence

from watchdog.errors import Problem
from watchdog.measure.catalogue import ON_DEMAND_METRICS, UNSENT_FAILURES
from watchdog.rules.language.expression import metrics_of
from watchdog.rules.language.rule import Rule


def kernel_notes(rules: Sequence[Rule]) -> Iterator[Problem]:
    """Yield a note for each rule that cannot be measured, or not completely, on this host."""
    # The kernel is asked only where a rule needs it.
    if readers := [rule for rule in rules if ON_DEMAND_METRICS.intersection(metrics_of(rule.metric))]:
        from watchdog.kernel.btf import message_probes_warning

        if warning := message_probes_warning():
            yield from (Problem(rule.file, rule.line, "metric", warning) for rule in readers)
    if readers := [rule for rule in rules if _names_unsent_failures(rule)]:
        from watchdog.kernel.fexit_support import connect_errors_warning

        if warning := connect_errors_warning():
            yield from (Problem(rule.file, rule.line, "where.failure", warning) for rule in readers)


def _names_unsent_failures(rule: Rule) -> bool:
    patterns = [pattern for one in rule.where if one.dimension == "failure" for pattern in one.any_of]
    return any(fnmatch.filter(UNSENT_FAILURES, pattern) for pattern in patterns)
