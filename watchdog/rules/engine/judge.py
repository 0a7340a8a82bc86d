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
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from watchdog.clock import SECOND_NS
from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers, Snapshot
from watchdog.rules.engine.aggregations import Aggregation
from watchdog.rules.engine.approach import time_to_limit
from watchdog.rules.engine.groups import NO_GROUP_SLOT
from watchdog.rules.engine.instance_choice import InstanceChoice, choose_instances, weigh
from watchdog.rules.engine.learnt_facts import BaselineFacts
from watchdog.rules.engine.missing import MissingSum
from watchdog.rules.engine.muting import NOTHING_SILENCED, FiringGroups, Muting
from watchdog.rules.engine.order_statistics import OrderStatistic
from watchdog.rules.engine.plan import Evaluation
from watchdog.rules.engine.presence import SELECTED, GroupPresence, PresenceTracker
from watchdog.rules.engine.rule_baseline import RuleBaseline
from watchdog.rules.engine.selection import Mask
from watchdog.rules.language.expression import COMPARE
from watchdog.rules.language.rule import GONE, OVERFLOW_LABELS, Labels, Rule, Severity, Thresholds

NOTHING_TO_MEASURE: Final = "nothing to measure"
WINDOW_NOT_FILLED: Final = "window not filled yet"
INPUT_INCOMPLETE: Final = "input incomplete"
TICKS_TOO_FAR_APART: Final = "ticks too far apart"
ONLY_IF_NOT_MET: Final = "only_if does not hold"
NEW_NORMAL: Final = "new normal"  # a baseline took the level of the group for its usual one
REPORTED_BY_ANOTHER: Final = "reported by a narrower rule"
AWAITED_FROM_ANOTHER: Final = "a narrower rule is about to report it"

_NO_SLOTS = np.zeros(0, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Judgement of one instance by one rule in one tick.

    `breached`: the worst severity whose fire threshold is breached. `not_cleared`: the worst severity that has not
    cleared. `complete`: the input was complete, so that higher severities are known not to be breached. `reason`: the
    cause of an incomplete verdict, or the condition besides the value that prevents firing. `value`: NaN where nothing
    was measured. `group`: the presence of its group. `is_lower_bound`: losses can only have made the value too low.
    `facts`: of the baseline that is breached, None without one.
    `is_displaced`: the instance ends in favour of a worse one. `is_held`: it stays pending, a narrower rule is going to
    report its traffic.
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
    facts: BaselineFacts | None = None
    is_displaced: bool = False
    is_held: bool = False


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
class ActiveInstances:
    """Labels of the instances of one rule: `labels` of the pending and firing ones, `firing` of the latter."""

    labels: Sequence[Labels] = ()
    firing: Collection[Labels] = ()


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
        baseline: RuleBaseline | None = None,
    ) -> None:
        """Judge the values of `evaluation`; `only_if`: values of the left side of the rule's `only_if`.

        `missing_rows`: the number of ticks of the window in which a group can have rows that are lost. `baseline`: has
        limits for each group beside the rule's thresholds.
        """
        self.rule = rule
        self.evaluation = evaluation
        self.only_if_aggregation = only_if
        self._baseline = baseline
        self._missing_rows = missing_rows
        self._least_severe_threshold = least_severe_threshold(rule)
        self.presence = PresenceTracker(rule, evaluation.view, missing_rows)
        self.firing_groups = FiringGroups(rule, evaluation.view.groups, self._time_to_limit)
        self.muting: Muting | None = None
        self.left_out: Slots = _NO_SLOTS
        """The groups that fire in the newest tick and have no instance of their own, the worst first."""
        self._named: Slots = _NO_SLOTS
        self._silenced = NOTHING_SILENCED

    def with_rule(self, rule: Rule) -> Judge:
        """Return a judge by `rule`, which reads the same values: its `evaluation_key` is that of this judge's rule."""
        return Judge(rule, self.evaluation, self.only_if_aggregation, self._missing_rows, self._baseline)

    def verdicts(self, tick: RuleTick, instances: ActiveInstances) -> list[Verdict]:
        """Return a verdict for each of the worst firing groups, and for each of `instances`."""
        self._learn(tick)
        firing = self._firing(tick)
        if len(vanished := self._vanished(tick)):
            firing = np.union1d(firing, vanished)
        self.left_out, self._silenced = _NO_SLOTS, NOTHING_SILENCED
        self.firing_groups.clear()
        if not len(firing) and not instances.labels:
            self._silence(firing, {}, instances, tick)
            return []
        groups = self.evaluation.view.groups
        active = {
            labels: groups.slot(labels, tick.snapshot) for labels in instances.labels if labels != OVERFLOW_LABELS
        }
        active_slots = np.fromiter(active.values(), dtype=np.int32)
        self._note_firing(firing, active, instances)
        self._silence(firing, active, instances, tick)
        if len(self._silenced.muted):
            firing = np.setdiff1d(firing, self._silenced.muted)
        choice = self._choose(firing, tick, active_slots, len(instances.labels))
        self.left_out = choice.left_out[~np.isin(choice.left_out, self._silenced.held)]
        verdicts = self._new_verdicts(choice.shown, tick)
        verdicts += self._active_verdicts(active, active_slots, tick)
        for index in choice.displaced.tolist():
            displaced = len(choice.shown) + index
            verdicts[displaced] = replace(verdicts[displaced], is_displaced=True)
        if len(self.left_out) or OVERFLOW_LABELS in instances.labels:
            verdicts.append(self._overflow(tick, self.left_out))
        return verdicts

    def _note_firing(self, firing: Slots, active: Mapping[Labels, int], instances: ActiveInstances) -> None:
        """Note the groups that this rule reports: without `for` all that fire, else those whose time has passed."""
        reported = np.array([slot for labels, slot in active.items() if labels in instances.firing], np.int32)
        is_delayed = self.rule.for_ns or self.rule.hits is not None
        self.firing_groups.slots = reported if is_delayed else np.union1d(firing, reported)
        self.firing_groups.pending = np.setdiff1d(firing, self.firing_groups.slots)

    def _silence(self, firing: Slots, active: Mapping[Labels, int], instances: ActiveInstances, tick: RuleTick) -> None:
        """Find those of `firing` that a narrower rule reports, or will, and that have not begun to fire here."""
        if self.muting is None:
            return
        begun = np.array([slot for labels, slot in active.items() if labels in instances.firing], np.int32)
        self._silenced = self.muting.silence(np.setdiff1d(firing, begun), tick.snapshot)
        if len(self._silenced.held):
            self.firing_groups.hold(self._silenced.held)

    def _time_to_limit(self, elapsed_ns: int) -> Numbers:
        return time_to_limit(
            self.rule, self.evaluation, self._limits, lambda slots: self._only_if_bounds(slots)[1], elapsed_ns
        )

    def _choose(self, firing: Slots, tick: RuleTick, active_slots: Slots, active_count: int) -> InstanceChoice:
        weights = weigh(self._values(firing, tick), self._limits(firing), self.evaluation.volumes(firing))
        return choose_instances(firing, weights, active_slots, active_count)

    def _new_verdicts(self, slots: Slots, tick: RuleTick) -> list[Verdict]:
        """Return the verdicts on groups that fire and have no instance yet."""
        return [
            self._new_verdict(slot, tick, measured, group)
            for slot, measured, group in zip(
                slots.tolist(), self._measure(slots, tick), self.presence.of(slots, tick.snapshot.at_ns), strict=True
            )
        ]

    def _active_verdicts(self, active: Mapping[Labels, int], slots: Slots, tick: RuleTick) -> list[Verdict]:
        """Return the verdicts on the groups of pending and firing instances, in this order."""
        verdicts = []
        for (labels, slot), measured, reason, group in zip(
            active.items(),
            self._measure(slots, tick),
            self._reasons(slots, tick),
            self.presence.of(slots, tick.snapshot.at_ns),
            strict=True,
        ):
            verdict = self._verdict(tick, labels, measured, reason, group, slot)
            verdicts.append(self._with_silence(verdict, slot))
        return verdicts

    def take_left_out(self, snapshot: Snapshot, limit: int) -> list[Labels]:
        """Return the labels of at most `limit` of `left_out`, the worst first; each group once while it is left out."""
        self._named = np.intersect1d(self._named, self.left_out)
        new = self.left_out[~np.isin(self.left_out, self._named)][:limit]
        self._named = np.union1d(self._named, new)
        return [self.evaluation.view.groups.read_labels(slot, snapshot) for slot in new.tolist()]

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
        verdict = self._verdict(tick, labels, measured, reason, group, slot)
        silenced = self._with_silence(verdict, slot)
        if is_active or silenced is not verdict:
            return silenced, measured
        if slot in self._vanished(tick):
            return replace(verdict, breached=verdict.breached or min(self.rule.thresholds.fire)), measured
        if not len(self.presence.existing(slots, at_ns)):
            verdict = replace(verdict, breached=None, not_cleared=None, reason=GONE)
        return verdict, measured

    def count_groups(self, tick: RuleTick) -> tuple[int, int | None]:
        """Return the number of groups of the rule, and the slot of the worst one, None without a value.

        As `groups_of` and `worst_of` over all slots; where sums decide, over whole arrays: a tick waits meanwhile.
        """
        groups, view = self.evaluation.view.groups, self.evaluation.view
        has_rest = self.only_if_aggregation is not None or self.presence.needs_selected or not self.rule.by
        if has_rest or not isinstance(self.evaluation, Aggregation):
            slots = self.groups_of(groups.find_slots((), tick.snapshot), tick)
            return len(slots), self.worst_of(slots, tick)
        values = self.evaluation.values_by_slot()
        counted = view.is_selected() | (values != self.rule.value_without_rows)
        counted &= groups.are_seen_since(tick.snapshot.at_ns - 2 * self.rule.window_ns) & ~np.isnan(values)
        count = int(np.count_nonzero(counted))
        above = self.rule.thresholds.above
        ranked = np.where(counted, values, -np.inf if above else np.inf)
        return count, int(ranked.argmax() if above else ranked.argmin()) if count else None

    def groups_of(self, slots: Slots, tick: RuleTick) -> Slots:
        """Return those of `slots` that count as groups of the rule.

        They exist for it, and have rows that meet `where` in the newest tick, or values in the window.
        """
        slots = self.presence.existing(slots, tick.snapshot.at_ns)
        if not self.rule.by or self.presence.needs_selected:
            return slots
        counted: Mask = self.evaluation.view.is_selected()[slots]
        if isinstance(self.evaluation, OrderStatistic):
            threshold, above = self._least_severe_threshold, self.rule.thresholds.above
            return slots[counted | self.evaluation.has_values(slots, threshold, above=above)]
        values = self._values(slots, tick)
        counted |= (values != self.rule.value_without_rows) & ~np.isnan(values)
        return slots[counted]

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
        limits = self._limits(slots)
        sure, possible = (low > limits, high > limits) if above else (high < limits, low < limits)
        always, ever = self._only_if_bounds(slots)
        return bool((possible & ever & ~(sure & always)).any())

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
        if self._baseline is not None or not self.evaluation.is_exact:
            low, high = self.evaluation.bounds(slots, window_filled=tick.window_filled)
            limits = self._limits(slots)
            slots = slots[low > limits if above else high < limits]
        return slots[self._only_if_bounds(slots)[0]]

    def _learn(self, tick: RuleTick) -> None:
        """Give the values of the tick to the baseline."""
        baseline, snapshot = self._baseline, tick.snapshot
        if baseline is None or not snapshot.elapsed_ns or not (tick.window_filled or self.rule.thresholds.above):
            return
        slots = baseline.slots_to_read(self.evaluation.view.groups)
        always, ever = self._only_if_bounds(slots)
        amounts = baseline.amounts(np.where(always, self._values(slots, tick), np.nan))
        incomplete = ever & ~always
        if isinstance(self.evaluation, OrderStatistic):
            incomplete |= not self.evaluation.is_exact
        elif not self.evaluation.is_exact:
            incomplete |= baseline.is_uncertain(*self.evaluation.bounds(slots, window_filled=tick.window_filled))
        baseline.take(snapshot, amounts, incomplete)

    def _limits(self, slots: Slots) -> Numbers:
        """Return, (m,), the value beyond which the rule fires at all, for the group of each of `slots`."""
        thresholds = self.rule.thresholds
        ceiling = np.full(len(slots), _nearest_threshold(thresholds))
        if self._baseline is None:
            return ceiling
        limits = self._baseline.limit_of(slots).astype(np.float64)
        return np.asarray(np.minimum(limits, ceiling) if thresholds.above else np.maximum(-limits, ceiling))

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
        verdict = self._with_silence(self._verdict(tick, labels, measured, "", group, slot), slot)
        if verdict.breached is not None:
            return verdict
        return replace(verdict, breached=min(self.rule.thresholds.fire))  # a vanished group fires with any value

    def _verdict(
        self,
        tick: RuleTick,
        labels: Labels,
        measured: Measured,
        reason: str,
        group: GroupPresence = SELECTED,
        slot: int = NO_GROUP_SLOT,
    ) -> Verdict:
        """Return the verdict on one group; `reason`: the condition besides its value that prevents firing, or ""."""
        thresholds, value = self.thresholds_of(slot), measured.value
        judged = (tick.window_filled or thresholds.above) and measured.only_if is not False
        sure, possible = (measured.low, measured.high) if thresholds.above else (measured.high, measured.low)
        breached, not_cleared = _severities(thresholds, sure) if judged and measured.only_if else (None, None)
        known = not judged or (
            measured.only_if is True and _severities(thresholds, possible) == (breached, not_cleared)
        )
        if math.isnan(value) and reason != GONE:
            reason = NOTHING_TO_MEASURE
        if not known:
            reason = INPUT_INCOMPLETE
        elif not tick.window_filled:
            reason = WINDOW_NOT_FILLED
        elif tick.is_sparse:
            reason = TICKS_TOO_FAR_APART
        elif self._baseline is not None and breached is None and self._baseline.has_new_normal(slot):
            reason = NEW_NORMAL
        complete = tick.window_filled and known and not tick.is_sparse
        is_lower_bound = measured.low == value < measured.high
        is_learnt = breached is not None and self._breaches_learnt_limit(thresholds, sure)
        facts = self.facts_of(slot, value, thresholds) if is_learnt else None
        return Verdict(self.rule, labels, complete, value, breached, not_cleared, reason, group, is_lower_bound, facts)

    def _with_silence(self, verdict: Verdict, slot: int) -> Verdict:
        """Return the verdict on the group of `slot`: it is not breached for a muted one, it is held for a held one."""
        if slot in self._silenced.muted:
            return replace(verdict, complete=True, breached=None, not_cleared=None, reason=REPORTED_BY_ANOTHER)
        if slot in self._silenced.held:
            return replace(verdict, reason=verdict.reason or AWAITED_FROM_ANOTHER, is_held=True)
        return verdict

    def thresholds_of(self, slot: int) -> Thresholds:
        """Return the thresholds for the group of `slot`: those of its baseline, and the rule's as a ceiling."""
        ceiling = self.rule.thresholds
        if self._baseline is None or slot == NO_GROUP_SLOT:
            return ceiling
        learnt = self._baseline.limits_by_severity(slot)
        nearer, outward = (min, math.inf) if ceiling.above else (max, -math.inf)
        fire = {one: nearer(limit, learnt.get(one, limit)) for one, limit in ceiling.fire.items()}
        clear = {
            one: ceiling.clear[one] if limit == ceiling.fire[one] else math.nextafter(limit, outward)
            for one, limit in fire.items()
        }
        return Thresholds(ceiling.above, fire, clear)

    def learning_ns(self) -> int:
        """Return the measured time until the baseline has limits; 0 if it has, and without one."""
        spec = self.rule.baseline
        if spec is None or self._baseline is None or not self._baseline.is_learning:
            return 0
        return (spec.learn_hours - self._baseline.learnt_hours) * 3_600 * SECOND_NS

    def facts_of(self, slot: int, value: float, thresholds: Thresholds) -> BaselineFacts | None:
        """Return the facts of the group's baseline about `value`; None without one, and while it learns."""
        if self._baseline is None or slot == NO_GROUP_SLOT or self._baseline.is_learning:
            return None
        return self._baseline.explain(slot, value, thresholds.fire)

    def _breaches_learnt_limit(self, thresholds: Thresholds, value: float) -> bool:
        """Return whether `value` is beyond a limit of `thresholds` that the baseline has learnt."""
        if self._baseline is None:
            return False
        ceiling = self.rule.thresholds.fire
        learnt = [limit for severity, limit in thresholds.fire.items() if limit != ceiling[severity]]
        return any(value > limit if thresholds.above else value < limit for limit in learnt)

    def _overflow(self, tick: RuleTick, left_out: Slots) -> Verdict:
        """Return one verdict for the firing groups without an instance: number, and severity of the worst."""
        values = self._values(left_out, tick)
        known = values[~np.isnan(values)]  # groups that vanished can have none
        worst = float(known.max() if self.rule.thresholds.above else known.min()) if len(known) else math.nan
        verdict = self._verdict(tick, OVERFLOW_LABELS, Measured(worst, worst, worst), "")
        breached = verdict.breached or (min(self.rule.thresholds.fire) if len(values) else None)
        return replace(verdict, value=float(len(values)), breached=breached)


def least_severe_threshold(rule: Rule) -> float:
    """Return the threshold beyond which a rule can fire at all: with a baseline, its floor."""
    threshold = _nearest_threshold(rule.thresholds)
    if rule.baseline is None:
        return threshold
    return min(threshold, rule.baseline.floor) if rule.thresholds.above else math.inf


def _nearest_threshold(thresholds: Thresholds) -> float:
    """Return the threshold beyond which a rule fires at all; of a baseline's ceiling, warning can have none."""
    return min(thresholds.fire.values()) if thresholds.above else max(thresholds.fire.values())


def _severities(thresholds: Thresholds, value: float) -> tuple[Severity | None, Severity | None]:
    """Return the worst severity that `value` breaches, and the worst one that it does not clear."""
    fires, holds = (operator.gt, operator.ge) if thresholds.above else (operator.lt, operator.le)
    return _worst(thresholds.fire, value, fires), _worst(thresholds.clear, value, holds)


def _worst(limits: Mapping[Severity, float], value: float, beyond: Callable[[float, float], bool]) -> Severity | None:
    return max((severity for severity, limit in limits.items() if beyond(value, limit)), default=None)
