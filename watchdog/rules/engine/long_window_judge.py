"""Verdicts of rules with a window above an hour."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from watchdog.measure.snapshot import Numbers
from watchdog.rules.engine.instance_choice import MAX_ACTIVE, MAX_INSTANCES
from watchdog.rules.engine.judge import INPUT_INCOMPLETE, ActiveInstances, Judge, Measured, RuleTick, Verdict
from watchdog.rules.engine.long_window import LongWindow, keeps_idle
from watchdog.rules.engine.long_window_table import LongWindowTable, Rows
from watchdog.rules.engine.missing import MissingSum
from watchdog.rules.language.rule import GONE, OVERFLOW_LABELS, Labels, Rule


class LongWindowJudge(Judge):
    """Judges a rule with a long window, by the rows of its table: groups stay there without any connection."""

    def __init__(self, rule: Rule, window: LongWindow, missing_rows: MissingSum) -> None:
        """Judge the values of `window`."""
        super().__init__(rule, window, None, missing_rows)
        self._window = window

    def with_rule(self, rule: Rule) -> LongWindowJudge:
        """Return a judge by `rule`, which reads the same table."""
        return LongWindowJudge(rule, self._window, self._missing_rows)

    @property
    def memory(self) -> LongWindowTable:
        """Return the table, which is kept over reloads and restarts."""
        return self._window.table

    def take_memory(self, former: object) -> bool:
        """Go on with the table of before a reload; return False if it is of another definition."""
        if not isinstance(former, LongWindowTable) or former.definition != self.memory.definition:
            return False
        former.keeps_idle = keeps_idle(self.rule)
        self._window.table = former
        return True

    def may_fire_unseen(self, tick: RuleTick) -> bool:  # noqa: ARG002 - a loss would make the rule unknown for weeks
        """Return False."""
        return False

    def verdicts(self, tick: RuleTick, instances: ActiveInstances) -> list[Verdict]:
        """Return a verdict for each of the worst firing groups, and for each of `instances`."""
        tick = replace(tick, window_filled=self.memory.is_filled)
        values = self._window.row_values()
        active = {labels: self._row(labels) for labels in instances.labels if labels != OVERFLOW_LABELS}
        known = [row for row in active.values() if row is not None]
        new = np.setdiff1d(self._firing_rows(values), known)
        above = self.rule.thresholds.above
        new = new[np.argsort(-values[new] if above else values[new], kind="stable")]
        room = min(MAX_INSTANCES, max(MAX_ACTIVE - len(instances.labels), 0))
        shown, hidden = new[:room], new[room:]
        found = {tuple(zip(self.rule.by, self.memory.labels(row), strict=True)): row for row in shown.tolist()}
        verdicts = [self._row_verdict(labels, row, values, tick) for labels, row in (found | active).items()]
        if len(hidden) or OVERFLOW_LABELS in instances.labels:
            verdicts.append(self._hidden_verdict(hidden, values, tick))
        return verdicts

    def _firing_rows(self, values: Numbers) -> Rows:
        threshold, memory = self._least_severe_threshold, self.memory
        if self.rule.thresholds.above:
            return np.flatnonzero(values > threshold)
        is_sure = memory.is_filled and not memory.has_losses
        return np.flatnonzero((values < threshold) & is_sure)

    def _hidden_verdict(self, hidden: Rows, values: Numbers, tick: RuleTick) -> Verdict:
        """Return one verdict for the firing groups without their own: their number, and the severity of the worst."""
        value = float(values[hidden[0]]) if len(hidden) else float("nan")
        worst = self._verdict(tick, OVERFLOW_LABELS, Measured(value, value, value), "")
        return replace(worst, value=float(len(hidden)))

    def verdict_on(self, slot: int, labels: Labels, tick: RuleTick, *, is_active: bool) -> tuple[Verdict, Measured]:  # noqa: ARG002 - the table knows its groups
        """Return the verdict on the group with `labels`, and its value."""
        tick = replace(tick, window_filled=self.memory.is_filled)
        verdict = self._row_verdict(labels, self._row(labels), self._window.row_values(), tick)
        return verdict, Measured(verdict.value, verdict.value, verdict.value)

    def _row(self, labels: Labels) -> int | None:
        given = dict(labels)
        if given.keys() != set(self.rule.by):
            return None
        return self.memory.row(tuple(given[name] for name in self.rule.by))

    def _row_verdict(self, labels: Labels, row: int | None, values: Numbers, tick: RuleTick) -> Verdict:
        if row is None:
            return Verdict(self.rule, labels, self.memory.is_filled, 0.0, None, None, GONE)
        value = float(values[row])
        verdict = self._verdict(tick, labels, Measured(value, value, value), "")
        if not self.memory.has_losses:
            return verdict
        if self.rule.thresholds.above:
            return replace(verdict, is_lower_bound=True)
        return replace(verdict, complete=False, breached=None, not_cleared=None, reason=INPUT_INCOMPLETE)
