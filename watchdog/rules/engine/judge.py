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

from watchdog.measure.catalogue import DIMENSIONS, METRICS, Kind, Values
from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers, Snapshot
from watchdog.rules.engine.aggregations import Combined
from watchdog.rules.engine.arithmetic import never_too_high
from watchdog.rules.engine.order_statistics import Ranked
from watchdog.rules.engine.selection import Mask
from watchdog.rules.language.expression import metrics_of
from watchdog.rules.language.rule import OVERFLOW, Labels, Rule, Severity, Statistic, Thresholds

MOST_INSTANCES: Final = 20  # of one rule: the worst of those that fire; the others are told as a number

NOTHING_TO_MEASURE: Final = "nothing to measure"
NOT_FILLED: Final = "window not filled yet"
INCOMPLETE: Final = "input incomplete"
GATED: Final = "only_if does not hold"

_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
FOLDED: Final = frozenset(("local", "local_port", "remote", "remote_port", "family", "state", "failure"))
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
    known: bool
    value: float
    fires: Severity | None
    holds: Severity | None
    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The newest tick, as one rule sees it: is its window filled, did all of it count everything?"""

    snapshot: Snapshot
    filled: bool
    complete: bool


class Judge:
    """One rule, and what it is judged by."""

    def __init__(self, rule: Rule, measured: Combined | Ranked, gate: Combined | None) -> None:
        """Judge `measured` where `gate`, the left side of `only_if`, lets it."""
        self.rule = rule
        self.measured = measured
        self.gate = gate
        self._mildest = mildest(rule.thresholds)
        self._never_too_high = _never_too_high(rule)
        self.reads_detail = reads_detail(rule)
        self.selects_names = any(DIMENSIONS[one.dimension].values is Values.NAME for one in rule.where)

    def verdicts(self, tick: Tick, watched: Sequence[Labels]) -> list[Verdict]:
        """Return a verdict for the worst of those that fire, and for each of `watched`."""
        firing = self._firing(tick)
        if not len(firing) and not watched:
            return []
        groups = self.measured.view.groups
        known = {labels: groups.slot(labels, tick.snapshot) for labels in watched if labels != OVERFLOW}
        own = np.fromiter(known.values(), dtype=np.int32)
        values = self.measured.values(np.concatenate((firing, own)), filled=tick.filled)
        shown, hidden = self._share(firing, values[: len(firing)], own, len(watched))
        verdicts = [self._verdict(tick, groups.labels(slot, tick.snapshot), value, "") for slot, value in shown]
        for labels, value, reason in zip(known, values[len(firing) :].tolist(), self._reasons(own, tick), strict=True):
            verdicts.append(self._verdict(tick, labels, value, reason))
        if len(hidden) or OVERFLOW in watched:
            verdicts.append(self._overflow(tick, hidden))
        return verdicts

    def _firing(self, tick: Tick) -> Slots:
        """Return the slots that fire."""
        above = self.rule.thresholds.above
        if not (tick.filled or above) or not (tick.complete or (above and self._never_too_high)):
            return _NO_SLOTS
        slots = self.measured.beyond(self._mildest, above=above, filled=tick.filled)
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
        room = max(2 * MOST_INSTANCES - watched, 0)
        told = new & (np.arange(len(firing)) < MOST_INSTANCES) & (np.cumsum(new) <= room)
        return list(zip(firing[told].tolist(), values[told].tolist(), strict=True)), values[new & ~told].tolist()

    def _reasons(self, slots: Slots, tick: Tick) -> list[str]:
        """Say of each slot what besides its value speaks against firing."""
        seen = np.where(self._seen(slots, tick), "", NOTHING_TO_MEASURE)
        reasons: list[str] = np.where(self._lets(slots), seen, GATED).tolist()
        return reasons

    def _seen(self, slots: Slots, tick: Tick, windows: int = 1) -> Mask:
        """Tell which slots had a row in the last `windows` windows."""
        return self.measured.view.groups.seen_since(slots, tick.snapshot.at_ns - windows * self.rule.window_ns)

    def _lets(self, slots: Slots) -> Mask:
        """Tell for which slots `only_if` holds."""
        if self.gate is None or self.rule.only_if is None:
            return np.ones(len(slots), dtype=np.bool_)
        volume = self.gate.values(slots, filled=True)
        return np.asarray(_COMPARE[self.rule.only_if.operator](volume, self.rule.only_if.right), dtype=np.bool_)

    def _verdict(self, tick: Tick, labels: Labels, value: float, reason: str) -> Verdict:
        """Say what `value` means; `reason` is what else there is to say."""
        thresholds = self.rule.thresholds
        certain = tick.complete or (thresholds.above and self._never_too_high)
        judged = certain and (tick.filled or thresholds.above) and reason != GATED
        fires = _worst(thresholds.fire, value, operator.gt if thresholds.above else operator.lt) if judged else None
        holds = _worst(thresholds.clear, value, operator.ge if thresholds.above else operator.le) if judged else None
        if math.isnan(value):
            reason = NOTHING_TO_MEASURE
        if not tick.complete:
            reason = INCOMPLETE
        elif not tick.filled:
            reason = NOT_FILLED
        return Verdict(self.rule, labels, tick.filled and tick.complete, value, fires, holds, reason)

    def _overflow(self, tick: Tick, hidden: Sequence[float]) -> Verdict:
        """Tell how many instances fire that are not told one by one, as bad as the worst of them."""
        worst = self._verdict(tick, OVERFLOW, hidden[0] if hidden else math.nan, "")
        return replace(worst, value=float(len(hidden)))


def mildest(thresholds: Thresholds) -> float:
    """Return the threshold beyond which a rule fires at all."""
    return thresholds.fire[min(thresholds.fire)]


def _worst(limits: Mapping[Severity, float], value: float, beyond: Callable[[float, float], bool]) -> Severity | None:
    return max((severity for severity, limit in limits.items() if beyond(value, limit)), default=None)


def reads_detail(rule: Rule) -> bool:
    """Tell whether the rule depends on what connections lose when they are folded into sums by process."""
    metrics = metrics_of(rule.metric) | (metrics_of(rule.only_if.left) if rule.only_if is not None else set())
    dimensions = {*rule.by, *(one.dimension for one in rule.where)}
    return any(METRICS[metric].kind is Kind.DISTRIBUTION for metric in metrics) or bool(dimensions & FOLDED)


def _never_too_high(rule: Rule) -> bool:
    """Tell whether rows that went missing can only make the rule's value too low, and its `only_if` false."""
    if rule.only_if is not None and not (rule.only_if.operator.startswith(">") and never_too_high(rule.only_if.left)):
        return False
    if any(METRICS[metric].kind is Kind.DISTRIBUTION for metric in metrics_of(rule.metric)):
        return rule.stat.statistic in (Statistic.MAX, Statistic.SUM)
    return never_too_high(rule.metric)
