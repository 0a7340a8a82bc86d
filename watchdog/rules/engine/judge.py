"""One rule's verdicts on the groups that its metric was measured for.

A group without rows for a whole window is judged like one with the value 0 (counters, gauges) or no value
(distributions), so that `fire_below` sees traffic stop; `presence.py` decides which groups exist. Where `only_if` does
not hold, a rule neither fires nor keeps firing.

Three conditions make an instance unknown rather than resolved: a window that began before the measurement, ticks that
are too far apart for the window, and losses that can put the value on the other side of a limit. Losses give bounds of
the value: 4 lost connections of unknown processes turn 240 failures of 240 connects into at least 240 of 244.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers, Snapshot
from watchdog.rules.engine.aggregations import Aggregation
from watchdog.rules.engine.groups import NO_GROUP_SLOT
from watchdog.rules.engine.missing import MissingSum
from watchdog.rules.engine.order_statistics import OrderStatistic
from watchdog.rules.engine.plan import Evaluation
from watchdog.rules.engine.presence import SELECTED, GroupPresence, PresenceTracker
from watchdog.rules.engine.selection import Mask
from watchdog.rules.language.expression import COMPARE
from watchdog.rules.language.rule import GONE, OVERFLOW_LABELS, Labels, Rule, Severity, Thresholds

MAX_INSTANCES: Final = 20  # of one rule: the worst of the firing ones; the others are one number

NOTHING_TO_MEASURE: Final = "nothing to measure"
WINDOW_NOT_FILLED: Final = "window not filled yet"
INPUT_INCOMPLETE: Final = "input incomplete"
TICKS_TOO_FAR_APART: Final = "ticks too far apart"
ONLY_IF_NOT_MET: Final = "only_if does not hold"

_NO_SLOTS = np.zeros(0, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Judgement of one instance by one rule in one tick.

    `breached`: the worst severity whose fire threshold is breached. `not_cleared`: the worst severity that has not
    cleared. `complete`: the input was complete, so that higher severities are known not to be breached. `reason`: the
    cause of an incomplete verdict, or the condition besides the value that prevents firing. `value`: NaN where nothing
    was measured. `group`: the presence of its group. `is_lower_bound`: losses can only have made the value too low.
    """

    rule: Rule
    labels: Labels
    complete: bool
    value: float
    breached: Severity | None
    not_cleared: Severity | None
    reason: str
    group: GroupPresence = SELECTED
    is_lower_bound: bool = False


@dataclass(frozen=True, slots=True)
class RuleTick:
    """The newest tick for one rule, and whether its window is filled.

    `is_sparse`: ticks are missing, and the window is too short for those that are left: an event within it is spread
    over a longer time, so that a value below the limit proves nothing.
    """

    snapshot: Snapshot
    window_filled: bool
    is_sparse: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """The value of one group, and its bounds, which are apart where something is missing.

    `only_if`: whether the rule's `only_if` holds, None where that depends on the missing part.
    """

    value: float
    low: float
    high: float
    only_if: bool | None = True


class Judge:
    """Judges one rule, by the values of its metric."""

    def __init__(
        self,
        rule: Rule,
        evaluation: Evaluation,
        only_if: Aggregation | None,
        missing_rows: MissingSum,
    ) -> None:
        """Judge the values of `evaluation`; `only_if`: values of the left side of the rule's `only_if`.

        `missing_rows`: the number of ticks of the window in which a group can have rows that are lost.
        """
        self.rule = rule
        self.evaluation = evaluation
        self.only_if_aggregation = only_if
        self._least_severe_threshold = least_severe_threshold(rule.thresholds)
        self.presence = PresenceTracker(rule, evaluation.view, missing_rows)

    def verdicts(self, tick: RuleTick, active_labels: Sequence[Labels]) -> list[Verdict]:
        """Return a verdict for each of the worst firing instances, and for each of `active_labels`."""
        firing = self._firing(tick)
        if len(vanished := self._vanished(tick)):
            firing = np.union1d(firing, vanished)
        if not len(firing) and not active_labels:
            return []
        groups = self.evaluation.view.groups
        active = {labels: groups.slot(labels, tick.snapshot) for labels in active_labels if labels != OVERFLOW_LABELS}
        active_slots = np.fromiter(active.values(), dtype=np.int32)
        shown, hidden = self._split_firing(firing, self._values(firing, tick), active_slots, len(active_labels))
        verdicts = [
            self._new_verdict(slot, tick, measured, group)
            for slot, measured, group in zip(
                shown.tolist(), self._measure(shown, tick), self.presence.of(shown, tick.snapshot.at_ns), strict=True
            )
        ]
        for labels, measured, reason, group in zip(
            active,
            self._measure(active_slots, tick),
            self._reasons(active_slots, tick),
            self.presence.of(active_slots, tick.snapshot.at_ns),
            strict=True,
        ):
            verdicts.append(self._verdict(tick, labels, measured, reason, group))
        if len(hidden) or OVERFLOW_LABELS in active_labels:
            verdicts.append(self._overflow(tick, hidden))
        return verdicts

    def verdict_on(self, slot: int, labels: Labels, tick: RuleTick, *, is_active: bool) -> tuple[Verdict, Measured]:
        """Return the verdict on the group of `slot` in the newest tick, as `verdicts` has it, and the measured value.

        `is_active`: it has a pending or firing instance. Without one, a group that does not exist for the rule any more
        breaches nothing.
        """
        slots, at_ns = np.array([slot], dtype=np.int32), tick.snapshot.at_ns
        [measured], [reason], [group] = (
            self._measure(slots, tick),
            self._reasons(slots, tick),
            self.presence.of(slots, at_ns),
        )
        verdict = self._verdict(tick, labels, measured, reason, group)
        if is_active:
            return verdict, measured
        if slot in self._vanished(tick):
            return replace(verdict, breached=verdict.breached or min(self.rule.thresholds.fire)), measured
        if not len(self.presence.existing(slots, at_ns)):
            verdict = replace(verdict, breached=None, not_cleared=None, reason=GONE)
        return verdict, measured

    def groups_of(self, slots: Slots, tick: RuleTick) -> Slots:
        """Return those of `slots` that count as groups of the rule.

        They have rows that meet `where` in the newest tick, or a value in the window.
        """
        slots = slots[self.presence.seen(slots, tick.snapshot.at_ns)]
        is_selected = np.zeros(self.evaluation.view.groups.capacity, dtype=np.bool_)
        is_selected[self.evaluation.view.selected_slots()] = True
        selected: Mask = is_selected[slots]
        if isinstance(self.evaluation, OrderStatistic):
            return slots[selected]
        values = self._values(slots, tick)
        selected |= (values != self.rule.value_without_rows) & ~np.isnan(values)
        return slots[selected]

    def worst_of(self, slots: Slots, tick: RuleTick) -> int | None:
        """Return the slot with the worst value among `slots`, those first for which `only_if` can hold."""
        possible = slots[self._only_if_bounds(slots)[1]]
        slots = possible if len(possible) else slots
        if isinstance(self.evaluation, OrderStatistic):
            slots = self.evaluation.narrow(slots, self._least_severe_threshold, above=self.rule.thresholds.above)
        values = self._values(slots, tick)
        slots, values = slots[~np.isnan(values)], values[~np.isnan(values)]
        if not len(slots):
            return None
        return int(slots[int(values.argmax() if self.rule.thresholds.above else values.argmin())])

    def only_if_value(self, slot: int) -> float | None:
        """Return the left side of `only_if` for the group of `slot`, None for a rule without it."""
        if self.only_if_aggregation is None:
            return None
        return float(self.only_if_aggregation.values(np.array([slot], dtype=np.int32), window_filled=True)[0])

    def may_fire_unseen(self, tick: RuleTick) -> bool:
        """Return whether a group that does not fire could fire, if it had the missing part."""
        evaluations = [self.evaluation, *([self.only_if_aggregation] if self.only_if_aggregation else [])]
        if all(evaluation.is_exact for evaluation in evaluations):
            return False
        threshold, above = self._least_severe_threshold, self.rule.thresholds.above
        slots = self.evaluation.slots_maybe_beyond(threshold, above=above, window_filled=tick.window_filled)
        slots = slots[self.presence.seen(slots, tick.snapshot.at_ns) | (slots == NO_GROUP_SLOT)]
        low, high = self.evaluation.bounds(slots, window_filled=tick.window_filled)
        sure = low > threshold if above else high < threshold
        always, ever = self._only_if_bounds(slots)
        return bool((ever & ~(sure & always)).any())

    def _firing(self, tick: RuleTick) -> Slots:
        """Return the slots that fire."""
        above = self.rule.thresholds.above
        if not (tick.window_filled or above):
            return _NO_SLOTS
        threshold = self._least_severe_threshold
        slots = self.evaluation.slots_beyond(threshold, above=above, window_filled=tick.window_filled)
        if not len(slots):
            return _NO_SLOTS
        slots = self.presence.existing(slots, tick.snapshot.at_ns)
        if not self.evaluation.is_exact:
            low, high = self.evaluation.bounds(slots, window_filled=tick.window_filled)
            slots = slots[low > threshold if above else high < threshold]
        return slots[self._only_if_bounds(slots)[0]]

    def _values(self, slots: Slots, tick: RuleTick) -> Numbers:
        return self.evaluation.values(slots, window_filled=tick.window_filled)

    def _measure(self, slots: Slots, tick: RuleTick) -> list[Measured]:
        """Return value and bounds of each of `slots`."""
        if not len(slots):
            return []
        values = self._values(slots, tick)
        low, high = values, values
        if not self.evaluation.is_exact:
            low, high = self.evaluation.bounds(slots, window_filled=tick.window_filled)
        always, ever = self._only_if_bounds(slots)
        only_if = [True if one else None if other else False for one, other in zip(always, ever, strict=True)]
        columns = (values.tolist(), low.tolist(), high.tolist(), only_if)
        return [Measured(*one) for one in zip(*columns, strict=True)]

    def _vanished(self, tick: RuleTick) -> Slots:
        """Return the slots that fire because their groups have no rows, with any value."""
        return self.presence.vanished(tick.snapshot.at_ns) if tick.window_filled else _NO_SLOTS

    def _split_firing(
        self, firing: Slots, values: Numbers, active_slots: Slots, active_count: int
    ) -> tuple[Slots, list[float]]:
        """Split the firing slots besides `active_slots`: slots for single verdicts, and the values of the others.

        Both are ordered, the worst first.
        """
        order = np.argsort(-values if self.rule.thresholds.above else values, kind="stable")
        firing, values = firing[order], values[order]
        new = ~np.isin(firing, active_slots) if len(active_slots) else np.ones(len(firing), dtype=np.bool_)
        # A stream of ever new groups must not add up to more instances than people can read.
        room = max(2 * MAX_INSTANCES - active_count, 0)
        shown = new & (np.arange(len(firing)) < MAX_INSTANCES) & (np.cumsum(new) <= room)
        return firing[shown], values[new & ~shown].tolist()

    def _reasons(self, slots: Slots, tick: RuleTick) -> list[str]:
        """Return for each slot the condition besides its value that prevents firing, or ""."""
        if not len(slots):
            return []
        seen = np.where(self.presence.seen(slots, tick.snapshot.at_ns), "", GONE)
        reasons: list[str] = np.where(self._only_if_bounds(slots)[1], seen, ONLY_IF_NOT_MET).tolist()
        return reasons

    def _only_if_bounds(self, slots: Slots) -> tuple[Mask, Mask]:
        """Return masks of the slots for which `only_if` holds with any missing part, and for which it can hold."""
        if self.only_if_aggregation is None or self.rule.only_if is None:
            return np.ones(len(slots), dtype=np.bool_), np.ones(len(slots), dtype=np.bool_)
        compare = COMPARE[self.rule.only_if.operator]
        low, high = (
            np.asarray(compare(bound, self.rule.only_if.right), dtype=np.bool_)
            for bound in self.only_if_aggregation.bounds(slots, window_filled=True)
        )
        return low & high, low | high

    def _new_verdict(self, slot: int, tick: RuleTick, measured: Measured, group: GroupPresence) -> Verdict:
        """Return the verdict on a group that fires and has no instance yet."""
        labels = self.evaluation.view.groups.labels(slot, tick.snapshot)
        verdict = self._verdict(tick, labels, measured, "", group)
        if verdict.breached is not None:
            return verdict
        return replace(verdict, breached=min(self.rule.thresholds.fire))  # a vanished group fires with any value

    def _verdict(
        self, tick: RuleTick, labels: Labels, measured: Measured, reason: str, group: GroupPresence = SELECTED
    ) -> Verdict:
        """Return the verdict on one group; `reason`: the condition besides its value that prevents firing, or ""."""
        thresholds, value = self.rule.thresholds, measured.value
        judged = (tick.window_filled or thresholds.above) and measured.only_if is not False
        sure, possible = (measured.low, measured.high) if thresholds.above else (measured.high, measured.low)
        breached, not_cleared = self._severities(sure) if judged and measured.only_if else (None, None)
        known = not judged or (measured.only_if is True and self._severities(possible) == (breached, not_cleared))
        if math.isnan(value) and reason != GONE:
            reason = NOTHING_TO_MEASURE
        if not known:
            reason = INPUT_INCOMPLETE
        elif not tick.window_filled:
            reason = WINDOW_NOT_FILLED
        elif tick.is_sparse:
            reason = TICKS_TOO_FAR_APART
        complete = tick.window_filled and known and not tick.is_sparse
        is_lower_bound = measured.low == value < measured.high
        return Verdict(self.rule, labels, complete, value, breached, not_cleared, reason, group, is_lower_bound)

    def _severities(self, value: float) -> tuple[Severity | None, Severity | None]:
        """Return the worst severity that `value` breaches, and the worst one that it does not clear."""
        thresholds = self.rule.thresholds
        fires, holds = (operator.gt, operator.ge) if thresholds.above else (operator.lt, operator.le)
        return _worst(thresholds.fire, value, fires), _worst(thresholds.clear, value, holds)

    def _overflow(self, tick: RuleTick, hidden: Sequence[float]) -> Verdict:
        """Return one verdict for the firing instances without their own: number, and severity of the worst."""
        value = hidden[0] if hidden else math.nan
        worst = self._verdict(tick, OVERFLOW_LABELS, Measured(value, value, value), "")
        breached = worst.breached or (min(self.rule.thresholds.fire) if hidden else None)
        return replace(worst, value=float(len(hidden)), breached=breached)


def least_severe_threshold(thresholds: Thresholds) -> float:
    """Return the threshold beyond which a rule fires at all."""
    return thresholds.fire[min(thresholds.fire)]


def _worst(limits: Mapping[Severity, float], value: float, beyond: Callable[[float, float], bool]) -> Severity | None:
    return max((severity for severity, limit in limits.items() if beyond(value, limit)), default=None)
