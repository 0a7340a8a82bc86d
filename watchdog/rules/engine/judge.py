"""One rule's judgement of the groups that its metric was measured for.

A group without rows for a whole window is judged like one that measured 0 (counters, gauges) or nothing
(distributions), so that `fire_below` sees traffic stop; it can begin to fire for one window more, and what fires
already goes on. Where `only_if` does not hold, a rule neither fires nor goes on firing.

Two things make an instance unknown rather than well: a window that reaches back to before measuring began, and a
window with a tick that may have counted too little. What is breached all the same is still told: counts that are too
low cannot put a sum above its limit.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from watchdog.measure.catalogue import DIMENSIONS, METRICS, DimensionKind, MetricKind
from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers, Snapshot
from watchdog.rules.engine.aggregations import Aggregation
from watchdog.rules.engine.arithmetic import never_overestimates
from watchdog.rules.engine.order_statistics import OrderStatistic
from watchdog.rules.engine.selection import Mask
from watchdog.rules.language.expression import metrics_of
from watchdog.rules.language.rule import OVERFLOW_LABELS, Labels, Rule, Severity, StatKind, Thresholds

MAX_INSTANCES: Final = 20  # of one rule: the worst of those that fire; the others are told as a number

NOTHING_TO_MEASURE: Final = "nothing to measure"
WINDOW_NOT_FILLED: Final = "window not filled yet"
INPUT_INCOMPLETE: Final = "input incomplete"
ONLY_IF_NOT_MET: Final = "only_if does not hold"

_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
FOLDED_DIMENSIONS: Final = frozenset(("local", "local_port", "remote", "remote_port", "family", "state", "failure"))
_NO_SLOTS = np.zeros(0, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule says of one instance now.

    `fires` is the worst severity whose fire threshold is breached, `holds` the worst that has not cleared.
    `known`: whether the severities beyond these are known not to be; `reason` says why they aren't, or what besides the
    value speaks against firing. `value` is NaN where there was nothing to measure.
    """

    rule: Rule
    labels: Labels
    complete: bool
    value: float
    breached: Severity | None
    not_cleared: Severity | None
    reason: str


@dataclass(frozen=True, slots=True)
class RuleTick:
    """The newest tick, as one rule sees it: is its window filled, did all of it count everything?"""

    snapshot: Snapshot
    window_filled: bool
    input_complete: bool


class Judge:
    """One rule, and what it is judged by."""

    def __init__(self, rule: Rule, measured: Aggregation | OrderStatistic, gate: Aggregation | None) -> None:
        """Judge `measured` where `gate`, the left side of `only_if`, lets it."""
        self.rule = rule
        self.evaluation = measured
        self.only_if_aggregation = gate
        self._mildest = least_severe_threshold(rule.thresholds)
        self._never_too_high = _never_too_high(rule)
        self.reads_connection_detail = reads_connection_detail(rule)
        self.filters_by_name = any(DIMENSIONS[one.dimension].kind is DimensionKind.NAME for one in rule.where)

    def verdicts(self, tick: RuleTick, active_labels: Sequence[Labels]) -> list[Verdict]:
        """Return a verdict for the worst of those that fire, and for each of `watched`."""
        firing = self._firing(tick)
        if not len(firing) and not active_labels:
            return []
        groups = self.evaluation.view.groups
        known = {labels: groups.slot(labels, tick.snapshot) for labels in active_labels if labels != OVERFLOW_LABELS}
        own = np.fromiter(known.values(), dtype=np.int32)
        values = self.evaluation.values(np.concatenate((firing, own)), window_filled=tick.window_filled)
        shown, hidden = self._share(firing, values[: len(firing)], own, len(active_labels))
        verdicts = [self._verdict(tick, groups.labels(slot, tick.snapshot), value, "") for slot, value in shown]
        for labels, value, reason in zip(known, values[len(firing) :].tolist(), self._reasons(own, tick), strict=True):
            verdicts.append(self._verdict(tick, labels, value, reason))
        if len(hidden) or OVERFLOW_LABELS in active_labels:
            verdicts.append(self._overflow(tick, hidden))
        return verdicts

    def _firing(self, tick: RuleTick) -> Slots:
        """Return the slots that fire."""
        above = self.rule.thresholds.above
        if not (tick.window_filled or above) or not (tick.input_complete or (above and self._never_too_high)):
            return _NO_SLOTS
        slots = self.evaluation.slots_beyond(self._mildest, above=above, window_filled=tick.window_filled)
        if not len(slots):
            return _NO_SLOTS
        # A group that fell silent is judged for one window more: that its traffic stopped may be what the rule is for.
        slots = slots[self._seen(slots, tick, windows=2)]
        return slots[self._lets(slots)]

    def _share(
        self, firing: Slots, values: Numbers, own: Slots, watched: int
    ) -> tuple[list[tuple[int, float]], list[float]]:
        """Share out what fires besides `own`: slots and values to be told one by one, and the values of the others.

        Both are in order, the worst first.
        """
        order = np.argsort(-values if self.rule.thresholds.above else values, kind="stable")
        firing, values = firing[order], values[order]
        new = ~np.isin(firing, own) if len(own) else np.ones(len(firing), dtype=np.bool_)
        # A stream of ever new groups must not add up to more instances than people can read.
        room = max(2 * MAX_INSTANCES - watched, 0)
        told = new & (np.arange(len(firing)) < MAX_INSTANCES) & (np.cumsum(new) <= room)
        return list(zip(firing[told].tolist(), values[told].tolist(), strict=True)), values[new & ~told].tolist()

    def _reasons(self, slots: Slots, tick: RuleTick) -> list[str]:
        """Say of each slot what besides its value speaks against firing."""
        seen = np.where(self._seen(slots, tick), "", NOTHING_TO_MEASURE)
        reasons: list[str] = np.where(self._lets(slots), seen, ONLY_IF_NOT_MET).tolist()
        return reasons

    def _seen(self, slots: Slots, tick: RuleTick, windows: int = 1) -> Mask:
        """Tell which slots had a row in the last `windows` windows."""
        return self.evaluation.view.groups.seen_since(slots, tick.snapshot.at_ns - windows * self.rule.window_ns)

    def _lets(self, slots: Slots) -> Mask:
        """Tell for which slots `only_if` holds."""
        if self.only_if_aggregation is None or self.rule.only_if is None:
            return np.ones(len(slots), dtype=np.bool_)
        volume = self.only_if_aggregation.values(slots, window_filled=True)
        return np.asarray(_COMPARE[self.rule.only_if.operator](volume, self.rule.only_if.right), dtype=np.bool_)

    def _verdict(self, tick: RuleTick, labels: Labels, value: float, reason: str) -> Verdict:
        """Say what `value` means; `reason` is what else there is to say."""
        thresholds = self.rule.thresholds
        certain = tick.input_complete or (thresholds.above and self._never_too_high)
        judged = certain and (tick.window_filled or thresholds.above) and reason != ONLY_IF_NOT_MET
        fires = _worst(thresholds.fire, value, operator.gt if thresholds.above else operator.lt) if judged else None
        holds = _worst(thresholds.clear, value, operator.ge if thresholds.above else operator.le) if judged else None
        if math.isnan(value):
            reason = NOTHING_TO_MEASURE
        if not tick.input_complete:
            reason = INPUT_INCOMPLETE
        elif not tick.window_filled:
            reason = WINDOW_NOT_FILLED
        return Verdict(self.rule, labels, tick.window_filled and tick.input_complete, value, fires, holds, reason)

    def _overflow(self, tick: RuleTick, hidden: Sequence[float]) -> Verdict:
        """Tell how many instances fire that are not told one by one, as bad as the worst of them."""
        worst = self._verdict(tick, OVERFLOW_LABELS, hidden[0] if hidden else math.nan, "")
        return replace(worst, value=float(len(hidden)))


def least_severe_threshold(thresholds: Thresholds) -> float:
    """Return the threshold beyond which a rule fires at all."""
    return thresholds.fire[min(thresholds.fire)]


def _worst(limits: Mapping[Severity, float], value: float, beyond: Callable[[float, float], bool]) -> Severity | None:
    return max((severity for severity, limit in limits.items() if beyond(value, limit)), default=None)


def reads_connection_detail(rule: Rule) -> bool:
    """Tell whether the rule depends on what connections lose when they are folded into sums by process."""
    metrics = metrics_of(rule.metric) | (metrics_of(rule.only_if.left) if rule.only_if is not None else set())
    dimensions = {*rule.by, *(one.dimension for one in rule.where)}
    return any(METRICS[metric].kind is MetricKind.DISTRIBUTION for metric in metrics) or bool(
        dimensions & FOLDED_DIMENSIONS
    )


def _never_too_high(rule: Rule) -> bool:
    """Tell whether rows that went missing can only make the rule's value too low, and its `only_if` false."""
    if rule.only_if is not None and not (
        rule.only_if.operator.startswith(">") and never_overestimates(rule.only_if.left)
    ):
        return False
    if any(METRICS[metric].kind is MetricKind.DISTRIBUTION for metric in metrics_of(rule.metric)):
        return rule.stat.kind in (StatKind.MAX, StatKind.SUM)
    return never_overestimates(rule.metric)
