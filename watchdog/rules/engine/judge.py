"""One rule's verdicts on the groups that its metric was measured for.

A group without rows for a whole window is judged like one with the value 0 (counters, gauges) or no value
(distributions), so that `fire_below` sees traffic stop; `presence.py` decides which groups exist. Where `only_if` does
not hold, a rule neither fires nor keeps firing.

Two conditions make an instance unknown rather than resolved: a window that began before the measurement, and a window
with a tick that may have counted too little. A breach is reported all the same where counts that are too low cannot
put a value above its limit.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from watchdog.measure.catalogue import DIMENSIONS, METRICS, UNCOUNTED_IN_SOCKMAP, DimensionKind, MetricKind
from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers, Snapshot
from watchdog.rules.engine.aggregations import Aggregation
from watchdog.rules.engine.arithmetic import never_overestimates
from watchdog.rules.engine.order_statistics import OrderStatistic
from watchdog.rules.engine.presence import SELECTED, GroupPresence, PresenceTracker
from watchdog.rules.engine.selection import Mask
from watchdog.rules.language.expression import COMPARE, metrics_of
from watchdog.rules.language.rule import OVERFLOW_LABELS, Labels, Rule, Severity, StatKind, Thresholds

MAX_INSTANCES: Final = 20  # of one rule: the worst of the firing ones; the others are one number

GONE: Final = "gone"
NOTHING_TO_MEASURE: Final = "nothing to measure"
WINDOW_NOT_FILLED: Final = "window not filled yet"
INPUT_INCOMPLETE: Final = "input incomplete"
ONLY_IF_NOT_MET: Final = "only_if does not hold"

FOLDED_DIMENSIONS: Final = frozenset(("local", "local_port", "remote", "remote_port", "family", "state", "failure"))
_NO_SLOTS = np.zeros(0, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Judgement of one instance by one rule in one tick.

    `breached`: the worst severity whose fire threshold is breached. `not_cleared`: the worst severity that has not
    cleared. `complete`: the input was complete, so that higher severities are known not to be breached. `reason`: the
    cause of an incomplete verdict, or the condition besides the value that prevents firing. `value`: NaN where nothing
    was measured. `group`: the presence of its group.
    """

    rule: Rule
    labels: Labels
    complete: bool
    value: float
    breached: Severity | None
    not_cleared: Severity | None
    reason: str
    group: GroupPresence = SELECTED


@dataclass(frozen=True, slots=True)
class RuleTick:
    """The newest tick for one rule: whether its window is filled, and whether every tick in it is complete."""

    snapshot: Snapshot
    window_filled: bool
    input_complete: bool


class Judge:
    """Judges one rule, by the values of its metric."""

    def __init__(self, rule: Rule, evaluation: Aggregation | OrderStatistic, only_if: Aggregation | None) -> None:
        """Judge the values of `evaluation`; `only_if`: values of the left side of the rule's `only_if`."""
        self.rule = rule
        self.evaluation = evaluation
        self.only_if_aggregation = only_if
        self._least_severe_threshold = least_severe_threshold(rule.thresholds)
        self._never_overestimates = _never_overestimates(rule)
        self.reads_connection_detail = reads_connection_detail(rule)
        self.presence = PresenceTracker(rule, evaluation.view)
        self._misses_sockmaps = bool(_rule_metrics(rule) & UNCOUNTED_IN_SOCKMAP)
        self.filters_by_name = any(DIMENSIONS[one.dimension].kind is DimensionKind.NAME for one in rule.where)

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
        values = self.evaluation.values(np.concatenate((firing, active_slots)), window_filled=tick.window_filled)
        shown, hidden = self._split_firing(firing, values[: len(firing)], active_slots, len(active_labels))
        new_slots = np.array([slot for slot, _ in shown], dtype=np.int32)
        verdicts = [
            self._new_verdict(slot, tick, value, group)
            for (slot, value), group in zip(shown, self.presence.of(new_slots, tick.snapshot.at_ns), strict=True)
        ]
        for (labels, slot), value, reason, group in zip(
            active.items(),
            values[len(firing) :].tolist(),
            self._reasons(active_slots, tick),
            self.presence.of(active_slots, tick.snapshot.at_ns),
            strict=True,
        ):
            verdicts.append(replace(self._verdict(self._tick_of(slot, tick), labels, value, reason), group=group))
        if len(hidden) or OVERFLOW_LABELS in active_labels:
            verdicts.append(self._overflow(tick, hidden))
        return verdicts

    def _firing(self, tick: RuleTick) -> Slots:
        """Return the slots that fire."""
        above = self.rule.thresholds.above
        if not (tick.window_filled or above) or not (tick.input_complete or (above and self._never_overestimates)):
            return _NO_SLOTS
        slots = self.evaluation.slots_beyond(
            self._least_severe_threshold, above=above, window_filled=tick.window_filled
        )
        if not len(slots):
            return _NO_SLOTS
        slots = self.presence.existing(slots, tick.snapshot.at_ns)
        if not (above and self._never_overestimates):
            slots = slots[~self._in_sockmap(slots, tick)]
        return slots[self._meets_only_if(slots)]

    def _vanished(self, tick: RuleTick) -> Slots:
        """Return the slots that fire because their groups have no rows, whatever their values."""
        if not (tick.window_filled and tick.input_complete):
            return _NO_SLOTS
        return self.presence.vanished(tick.snapshot.at_ns)

    def _split_firing(
        self, firing: Slots, values: Numbers, active_slots: Slots, active_count: int
    ) -> tuple[list[tuple[int, float]], list[float]]:
        """Split the firing slots besides `active_slots`: slots and values for single verdicts, and the other values.

        Both are ordered, the worst first.
        """
        order = np.argsort(-values if self.rule.thresholds.above else values, kind="stable")
        firing, values = firing[order], values[order]
        new = ~np.isin(firing, active_slots) if len(active_slots) else np.ones(len(firing), dtype=np.bool_)
        # A stream of ever new groups must not add up to more instances than people can read.
        room = max(2 * MAX_INSTANCES - active_count, 0)
        shown = new & (np.arange(len(firing)) < MAX_INSTANCES) & (np.cumsum(new) <= room)
        return list(zip(firing[shown].tolist(), values[shown].tolist(), strict=True)), values[new & ~shown].tolist()

    def _reasons(self, slots: Slots, tick: RuleTick) -> list[str]:
        """Return for each slot the condition besides its value that prevents firing, or ""."""
        seen = np.where(self.presence.seen(slots, tick.snapshot.at_ns), "", GONE)
        reasons: list[str] = np.where(self._meets_only_if(slots), seen, ONLY_IF_NOT_MET).tolist()
        return reasons

    def _in_sockmap(self, slots: Slots, tick: RuleTick) -> Mask:
        """Return a mask of the slots whose value can be too low, because messages passed through a sockmap."""
        if not self._misses_sockmaps:
            return np.zeros(len(slots), dtype=np.bool_)
        return self.evaluation.view.in_sockmap_since(slots, tick.snapshot.at_ns - self.rule.window_ns)

    def _tick_of(self, slot: int, tick: RuleTick) -> RuleTick:
        """Return the tick as it is for the group of `slot`."""
        incomplete = self._in_sockmap(np.array([slot], dtype=np.int32), tick).any()
        return replace(tick, input_complete=False) if incomplete else tick

    def _meets_only_if(self, slots: Slots) -> Mask:
        """Return a mask of the slots for which `only_if` holds."""
        if self.only_if_aggregation is None or self.rule.only_if is None:
            return np.ones(len(slots), dtype=np.bool_)
        volume = self.only_if_aggregation.values(slots, window_filled=True)
        return np.asarray(COMPARE[self.rule.only_if.operator](volume, self.rule.only_if.right), dtype=np.bool_)

    def _new_verdict(self, slot: int, tick: RuleTick, value: float, group: GroupPresence) -> Verdict:
        """Return the verdict on a group that fires and has no instance yet."""
        labels = self.evaluation.view.groups.labels(slot, tick.snapshot)
        verdict = self._verdict(self._tick_of(slot, tick), labels, value, "")
        breached = verdict.breached or min(self.rule.thresholds.fire)  # a vanished group fires whatever its value
        return replace(verdict, breached=breached, group=group)

    def _verdict(self, tick: RuleTick, labels: Labels, value: float, reason: str) -> Verdict:
        """Return the verdict on `value`; `reason`: the condition besides it that prevents firing, or ""."""
        thresholds = self.rule.thresholds
        certain = tick.input_complete or (thresholds.above and self._never_overestimates)
        judged = certain and (tick.window_filled or thresholds.above) and reason != ONLY_IF_NOT_MET
        breached = _worst(thresholds.fire, value, operator.gt if thresholds.above else operator.lt) if judged else None
        not_cleared = (
            _worst(thresholds.clear, value, operator.ge if thresholds.above else operator.le) if judged else None
        )
        if math.isnan(value) and reason != GONE:
            reason = NOTHING_TO_MEASURE
        if not tick.input_complete:
            reason = INPUT_INCOMPLETE
        elif not tick.window_filled:
            reason = WINDOW_NOT_FILLED
        return Verdict(
            self.rule, labels, tick.window_filled and tick.input_complete, value, breached, not_cleared, reason
        )

    def _overflow(self, tick: RuleTick, hidden: Sequence[float]) -> Verdict:
        """Return one verdict for the firing instances without their own: number, and severity of the worst."""
        worst = self._verdict(tick, OVERFLOW_LABELS, hidden[0] if hidden else math.nan, "")
        breached = worst.breached or (min(self.rule.thresholds.fire) if hidden else None)
        return replace(worst, value=float(len(hidden)), breached=breached)


def least_severe_threshold(thresholds: Thresholds) -> float:
    """Return the threshold beyond which a rule fires at all."""
    return thresholds.fire[min(thresholds.fire)]


def _worst(limits: Mapping[Severity, float], value: float, beyond: Callable[[float, float], bool]) -> Severity | None:
    return max((severity for severity, limit in limits.items() if beyond(value, limit)), default=None)


def reads_connection_detail(rule: Rule) -> bool:
    """Return whether the rule reads detail that is lost when connections are folded into sums by process."""
    metrics = _rule_metrics(rule)
    dimensions = {*rule.by, *(one.dimension for one in rule.where)}
    return any(METRICS[metric].kind is MetricKind.DISTRIBUTION for metric in metrics) or bool(
        dimensions & FOLDED_DIMENSIONS
    )


def _rule_metrics(rule: Rule) -> AbstractSet[str]:
    return metrics_of(rule.metric) | (metrics_of(rule.only_if.left) if rule.only_if is not None else set())


def _never_overestimates(rule: Rule) -> bool:
    """Return whether missing rows can only make the rule's value too low and its `only_if` false."""
    if rule.only_if is not None and not (
        rule.only_if.operator.startswith(">") and never_overestimates(rule.only_if.left)
    ):
        return False
    if any(METRICS[metric].kind is MetricKind.DISTRIBUTION for metric in metrics_of(rule.metric)):
        return rule.stat.kind in (StatKind.MAX, StatKind.SUM)
    return never_overestimates(rule.metric)
