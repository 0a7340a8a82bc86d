"""The engine: one snapshot in, the verdicts of all rules out."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from graphlib import TopologicalSorter
from typing import Final

from watchdog.clock import SECOND_NS, Clock, local_seconds
from watchdog.measure.snapshot import Snapshot
from watchdog.rules.engine import contributors, inspection
from watchdog.rules.engine.aggregations import Aggregation
from watchdog.rules.engine.baseline_blobs import BaselinePart
from watchdog.rules.engine.baselines import Baselines
from watchdog.rules.engine.contributor_values import Contributors
from watchdog.rules.engine.distinct import DistinctCount
from watchdog.rules.engine.groups import GroupSlots
from watchdog.rules.engine.inspection import GroupInspection, RuleInspection
from watchdog.rules.engine.judge import (
    INPUT_INCOMPLETE,
    ActiveInstances,
    Judge,
    RuleTick,
    Verdict,
    least_severe_threshold,
)
from watchdog.rules.engine.long_window_judge import LongWindowJudge
from watchdog.rules.engine.muting import Muting
from watchdog.rules.engine.novelty import NoveltyJudge
from watchdog.rules.engine.order_statistics import OrderStatistic, OrderStatisticWindow
from watchdog.rules.engine.plan import Evaluation, EvaluationPlan
from watchdog.rules.engine.rule_baseline import RuleBaseline
from watchdog.rules.engine.rule_memories import RuleMemories
from watchdog.rules.engine.selection import Selection
from watchdog.rules.engine.view import View, group_snapshot
from watchdog.rules.engine.window import MAX_RECENT_TICKS, WindowCoverage
from watchdog.rules.language.expression import leading_metric, metrics_of
from watchdog.rules.language.rule import (
    MAX_SHORT_WINDOW_NS,
    OVERFLOW_LABELS,
    Labels,
    Rule,
    RuleException,
    StatKind,
)

__all__ = ["OVERFLOW_LABELS", "Engine", "Verdict"]

MAX_JUDGING_NS: Final = SECOND_NS // 4  # of one tick


class Engine:
    """Judges snapshots by rules."""

    def __init__(self, rules: Iterable[Rule], clock: Clock | None = None) -> None:
        """Start with empty windows. `clock`: limits the time for judging, see `evaluate`; None: no limit."""
        self._clock = clock
        self._next_judged = 0  # where judging begins, after a tick that had no time for all rules
        self._selection = Selection()
        self._plan = EvaluationPlan()
        self._judges: list[Judge] = []
        self.memories = RuleMemories()
        """Combinations that rules with novelty have seen, and values of long windows."""
        self.baselines = Baselines([])
        self._stages: dict[str, int] = {}  # order of judging, by rule id: narrower rules first
        self._since_ns: dict[object, int | None] = {}
        self._elapsed_ns: deque[tuple[int, int]] = deque(
            maxlen=MAX_RECENT_TICKS
        )  # (time, duration) of the newest ticks
        self.retention_ns = 0
        self._failures: list[Exception] = []
        self._newest: Snapshot | None = None  # the newest tick without its rows; None while windows have another one
        self.required_columns: frozenset[str] = frozenset()
        self.unknown_rules: tuple[str, ...] = ()
        """Ids of the rules that losses or missing ticks left without a sure verdict in the newest tick."""
        self.replace_rules(rules)

    def replace_rules(self, rules: Iterable[Rule]) -> None:
        """Judge by `rules` from now on; a rule with an unchanged definition keeps its windows.

        Sets `required_columns`: the metrics and dimensions that snapshots must have; and `retention_ns`: the time for
        which a name is needed after it was last seen.
        """
        rules = list(rules)
        self._newest = None
        plan = EvaluationPlan(self._plan)
        self.baselines.replace_rules(rules)
        self._judges = [_make_judge(rule, plan, self.baselines.of(rule.id)) for rule in rules]
        self.memories.assign(self._judges)
        self._stages = _stages(rules)
        for judge in self._judges:
            self._set_muting(judge)
        plan.drop_unused()
        self._plan = plan
        self._set_thresholds()
        self._selection.retain_only(condition for rule in rules for condition in rule.row_conditions)
        self._since_ns = {rule.evaluation_key: self._since_ns.get(rule.evaluation_key) for rule in rules}
        self.retention_ns = max((2 * min(rule.window_ns, MAX_SHORT_WINDOW_NS) for rule in rules), default=0)
        self.required_columns = frozenset(name for rule in rules for name in _required_columns(rule))

    def restore_baselines(self, secret: bytes, parts: Sequence[BaselinePart]) -> None:
        """Load the baselines that a former daemon saved, before the first tick."""
        rules = [judge.rule for judge in self._judges]
        self.baselines.restore(secret, parts, rules)
        self.replace_rules(rules)

    def evaluate(
        self,
        snapshot: Snapshot,
        active_keys: Collection[tuple[str, Labels]],
        firing_keys: Collection[tuple[str, Labels]] = (),
    ) -> list[Verdict]:
        """Add the newest tick to all windows and return its verdicts, rule by rule.

        Each rule has one verdict for each firing instance, the worst `MAX_INSTANCES` of them, and one with the labels
        `OVERFLOW_LABELS` for the rest; and one for each of `active_keys`: (rule id, labels) of pending and firing
        instances; `firing_keys` are those of the firing ones. A rule that cannot be judged has no verdict and disturbs
        no other rule: `take_failures` has the reason. Judging ends after `MAX_JUDGING_NS`: the rules that are left are
        unknown, and judged first in the next tick.
        """
        self.unknown_rules = ()
        self._newest = None
        unknown: set[str] = set()
        active: dict[str, list[Labels]] = {}
        for rule_id, labels in active_keys:
            active.setdefault(rule_id, []).append(labels)
        firing: dict[str, set[Labels]] = {}
        for rule_id, labels in firing_keys:
            firing.setdefault(rule_id, set()).add(labels)
        self._choose_noting_views(active)
        self._add_tick(snapshot)
        self._end_hours(snapshot)
        self._newest = snapshot.without_rows()
        verdicts: dict[str, list[Verdict]] = {}
        for evaluation, judges in self._judges_in_time(unknown):
            for judge in judges:
                rule, tick = judge.rule, self._tick(judge, snapshot)
                try:
                    instances = ActiveInstances(active.get(rule.id, ()), firing.get(rule.id, ()))
                    verdicts[rule.id] = judge.verdicts(tick, instances)
                    incomplete = any(one.reason == INPUT_INCOMPLETE for one in verdicts[rule.id])
                    if tick.is_sparse or incomplete or judge.may_fire_unseen(tick):
                        unknown.add(rule.id)
                except Exception as error:  # noqa: BLE001 - the edge of one rule: others must be judged
                    error.add_note(f"in rule {rule.id}")
                    self._failures.append(error)
            if isinstance(evaluation, (Aggregation, DistinctCount)):
                evaluation.release()
        for aggregation in self._plan.parts_of_type(Aggregation):
            aggregation.release()
        for count in self._plan.parts_of_type(DistinctCount):
            count.release()
        self.unknown_rules = tuple(judge.rule.id for judge in self._judges if judge.rule.id in unknown)
        return [verdict for judge in self._judges for verdict in verdicts.get(judge.rule.id, ())]

    def find_contributors(self, snapshot: Snapshot, rule_id: str, labels: Labels) -> tuple[Rule, Contributors] | None:
        """Return a rule and the contributors to the value of one instance in the tick of `snapshot`, the newest tick.

        None for a rule that is not in force.
        """
        judge = next((judge for judge in self._judges if judge.rule.id == rule_id), None)
        metric = leading_metric(judge.rule.metric) if judge is not None else None
        if judge is None or metric is None:
            return None
        try:
            rows = contributors.rows_of_where(snapshot, judge.rule, self._selection)
        finally:
            self._selection.release()
        groups, left_out = judge.evaluation.view.groups, None
        history: tuple[float, ...] = ()
        shown_ns: list[int] = []
        if labels == OVERFLOW_LABELS:
            slots = groups.find(snapshot, rows)
            rows, slots = contributors.rows_in(rows, slots, judge.left_out)
            left_out = contributors.groups_left_out(snapshot, rows, slots, metric, groups)
        else:
            rows = contributors.rows_with_labels(snapshot, rows, labels)
            history, shown_ns = self._history(judge, labels, snapshot)
        amount = contributors.total_amount(snapshot, rows, metric)
        rows = contributors.nonzero_rows(snapshot, rows, metric)
        return judge.rule, Contributors(
            metric,
            amount,
            *contributors.contributing_peers(snapshot, rows, metric),
            *contributors.contributing_processes(snapshot, rows, metric),
            history,
            snapshot.elapsed_ns / SECOND_NS,
            sum(shown_ns) / SECOND_NS,
            contributors.count_names(snapshot, rows),
            left_out,
        )

    def _history(self, judge: Judge, labels: Labels, snapshot: Snapshot) -> tuple[tuple[float, ...], list[int]]:
        """Return the values of one instance in the newest ticks, and the lengths of these ticks in ns."""
        since_ns = snapshot.at_ns - self.retention_ns  # later, the slot may belong to another group
        elapsed_ns = {at_ns: elapsed for at_ns, elapsed in self._elapsed_ns if elapsed and at_ns > since_ns}
        history = judge.evaluation.history(judge.evaluation.view.groups.slot(labels, snapshot), elapsed_ns)
        return tuple(history.tolist()), list(elapsed_ns.values())[len(elapsed_ns) - len(history) :]

    def take_left_out(self, snapshot: Snapshot, limit: int) -> list[tuple[str, list[Labels]]]:
        """Return by rule id the groups that the overflow of the newest tick has and earlier ones had not.

        At most `limit` in all, the worst of each rule first; the others come with later ticks.
        """
        found = []
        for judge in self._judges:
            if limit and len(judge.left_out) and (names := judge.take_left_out(snapshot, limit)):
                found.append((judge.rule.id, names))
                limit -= len(names)
        return found

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Return the rules in force, in their order."""
        return tuple(judge.rule for judge in self._judges)

    def unused_exceptions(self) -> list[tuple[Rule, RuleException]]:
        """Return the exceptions in force that have excluded no row so far, with their rules."""
        return [
            (judge.rule, exception)
            for judge in self._judges
            for exception in judge.rule.exceptions
            if exception.where in judge.evaluation.view.unused_exclusions
        ]

    @property
    def newest(self) -> Snapshot | None:
        """Return the newest tick without its rows; None where windows wait for their first tick."""
        return self._newest

    def find_rule(self, rule_id: str) -> Rule | None:
        """Return the rule with this id, None if there is none."""
        return next((judge.rule for judge in self._judges if judge.rule.id == rule_id), None)

    def inspect_rule(self, rule_id: str) -> RuleInspection | None:
        """Return the state of a rule in the newest tick; None where windows wait for their first tick.

        To be called between two ticks, like `inspect_group`.
        """
        judge = self._judge(rule_id)
        return None if self._newest is None else inspection.inspect_rule(judge, *self._newest_tick(judge, self._newest))

    def inspect_group(
        self, rule_id: str, labels: Labels, active_keys: Collection[tuple[str, Labels]]
    ) -> GroupInspection | None:
        """Return the state of one group of a rule in the newest tick; None as `inspect_rule`.

        `labels`: of the group, or some of them: then the worst of the groups that have them. `active_keys`: as in
        `evaluate`, after the tick.
        """
        judge = self._judge(rule_id)
        if self._newest is None:
            return None
        tick, filled_ns = self._newest_tick(judge, self._newest)
        slot, labels = inspection.find_group(judge, tick, labels)
        is_active = any(key[0] == rule_id and dict(key[1]) == dict(labels) for key in active_keys)
        return inspection.inspect_group(judge, tick, slot, labels, filled_ns, is_active=is_active)

    def preview(self, rule: Rule, labels: Labels) -> Verdict | None:
        """Return the verdict that `rule`, in place of the rule with its id, would have on an active instance now.

        None where that cannot be known: its windows, or the memory of the rule, would begin anew.
        """
        judge = next((one for one in self._judges if one.rule.id == rule.id), None)
        if judge is None or self._newest is None or not _keeps_windows(judge.rule, rule):
            return None
        tick, filled_ns = self._newest_tick(judge, self._newest)
        slot, labels = inspection.find_group(judge, tick, labels)
        found = inspection.inspect_group(judge.with_rule(rule), tick, slot, labels, filled_ns, is_active=True)
        return found.verdict

    def take_failures(self) -> list[Exception]:
        """Return the errors of rules that could not be judged since the last call."""
        failures, self._failures = self._failures, []
        return failures

    def _choose_noting_views(self, active: Collection[str]) -> None:
        """Let the views note the groups that `where` selects: those of `active`, ids of rules, and where rules need it.

        Others save the time.
        """
        noting = {
            judge.evaluation.view for judge in self._judges if judge.rule.id in active or judge.presence.needs_selected
        }
        for view in self._plan.parts_of_type(View):
            view.notes_selected = view in noting

    def _add_tick(self, snapshot: Snapshot) -> None:
        """Add the tick to every part: first time, then groups and rows, then values."""
        self._elapsed_ns.append((snapshot.at_ns, snapshot.elapsed_ns))
        for coverage in self._plan.parts_of_type(WindowCoverage):
            coverage.push(snapshot.at_ns, snapshot.elapsed_ns)
        for evaluation_key, since_ns in self._since_ns.items():
            if since_ns is None or not snapshot.elapsed_ns:
                self._since_ns[evaluation_key] = snapshot.at_ns - snapshot.elapsed_ns
        grouped = {
            groups: group_snapshot(groups, snapshot, self.retention_ns, self._selection)
            for groups in self._plan.parts_of_type(GroupSlots)
        }
        for view in self._plan.parts_of_type(View):
            view.load(grouped[view.groups], self._selection)
        for part in self._plan.accumulators():
            part.add_newest_tick()
        for view in self._plan.parts_of_type(View):
            view.release()
        self._selection.release()

    def _end_hours(self, snapshot: Snapshot) -> None:
        """Give the time of the tick to the baselines."""
        learning = [judge for judge in self._judges if judge.rule.baseline is not None]
        if learning and snapshot.elapsed_ns:
            ticks = [(judge.rule.id, self._tick(judge, snapshot)) for judge in learning]
            measured = [rule_id for rule_id, tick in ticks if tick.window_filled and not tick.is_sparse]
            self.baselines.end_hours(local_seconds(snapshot.wall), snapshot.at_ns, measured)

    def _tick(self, judge: Judge, snapshot: Snapshot) -> RuleTick:
        return self._newest_tick(judge, snapshot)[0]

    def _newest_tick(self, judge: Judge, snapshot: Snapshot) -> tuple[RuleTick, int]:
        """Return the newest tick for a rule, and for how long its window has data, in ns."""
        rule, window_ns = judge.rule, judge.evaluation.coverage.window_ns
        since_ns = self._since_ns[rule.evaluation_key]
        filled_ns = 0 if since_ns is None else min(window_ns, snapshot.at_ns - since_ns)
        if isinstance(judge, LongWindowJudge):
            filled_ns = min(window_ns, judge.memory.axis_ns)
        # `last` reads the newest tick alone.
        is_sparse = rule.window_ns < 2 * snapshot.elapsed_ns and rule.stat.kind is not StatKind.LAST
        is_sparse = is_sparse and snapshot.quality.missed_ticks > 0
        return RuleTick(snapshot, since_ns is not None and filled_ns >= window_ns, is_sparse=is_sparse), filled_ns

    def _judge(self, rule_id: str) -> Judge:
        return next(judge for judge in self._judges if judge.rule.id == rule_id)

    def _judges_in_time(self, unknown: set[str]) -> Iterator[tuple[Evaluation, list[Judge]]]:
        """Yield the rules by evaluation until the time for judging is over; add the ids of the others to `unknown`."""
        together = list(self._judges_by_evaluation())
        first = self._next_judged % max(len(together), 1)
        self._next_judged = 0
        end_ns = None if self._clock is None else self._clock.boottime_ns() + MAX_JUDGING_NS
        for number, (evaluation, judges) in enumerate([*together[first:], *together[:first]]):
            if number and self._clock is not None and end_ns is not None and self._clock.boottime_ns() > end_ns:
                self._next_judged = self._next_judged or first + number
                unknown.update(judge.rule.id for judge in judges)
            else:
                yield evaluation, judges

    def _judges_by_evaluation(self) -> Iterable[tuple[Evaluation, list[Judge]]]:
        """Group the rules that read the same values, so that values exist for one set of rules at a time.

        Rules come after those in their `unless_firing`.
        """
        together: dict[tuple[int, Evaluation], list[Judge]] = {}
        for judge in self._judges:
            together.setdefault((self._stages[judge.rule.id], judge.evaluation), []).append(judge)
        ordered = sorted(together.items(), key=lambda item: item[0][0])
        return [(evaluation, judges) for (_, evaluation), judges in ordered]

    def _set_muting(self, judge: Judge) -> None:
        narrower = [one.firing_groups for one in self._judges if one.rule.id in judge.rule.unless_firing]
        if narrower:
            groups, limit = judge.evaluation.view.groups, least_severe_threshold(judge.rule)
            judge.muting = Muting(judge.rule, groups, narrower, self._selection, limit)

    def _set_thresholds(self) -> None:
        """Give each order statistic window the thresholds that decide whether a rule fires at all."""
        wanted: dict[OrderStatisticWindow, set[tuple[float, bool]]] = {}
        for judge in self._judges:
            if isinstance(judge.evaluation, OrderStatistic):
                threshold = least_severe_threshold(judge.rule), judge.rule.thresholds.above
                wanted.setdefault(judge.evaluation.window, set()).add(threshold)
        for window, thresholds_of_window in wanted.items():
            window.set_thresholds(thresholds_of_window)


def _make_judge(rule: Rule, plan: EvaluationPlan, baseline: RuleBaseline | None) -> Judge:
    if rule.has_long_window:
        return LongWindowJudge(rule, plan.long_window(rule), plan.missing_rows(rule))
    parts = plan.evaluation(rule), plan.only_if_aggregation(rule), plan.missing_rows(rule)
    if rule.novelty is not None:
        return NoveltyJudge(rule, rule.novelty, *parts, plan.counted_slots(rule))
    return Judge(rule, *parts, baseline)


def _stages(rules: Iterable[Rule]) -> dict[str, int]:
    """Return by rule id the length of the longest chain of `unless_firing` behind each rule; there is no circle."""
    narrower = {rule.id: rule.unless_firing for rule in rules}
    stages: dict[str, int] = {}
    for identity in TopologicalSorter(narrower).static_order():
        stages[identity] = 1 + max((stages[other] for other in narrower.get(identity, ())), default=-1)
    return stages


def _required_columns(rule: Rule) -> Iterable[str]:
    yield from metrics_of(rule.metric)
    yield from rule.by
    yield from filter(None, (rule.stat.dimension,))
    yield from (condition.dimension for where in (rule.where, *rule.exclusions) for condition in where)
    if rule.only_if is not None:
        yield from metrics_of(rule.only_if.left)


def _keeps_windows(former: Rule, rule: Rule) -> bool:
    """Return whether a reload from `former` to `rule` keeps the values by which they judge."""
    learnt = former.novelty or rule.novelty
    return former.evaluation_key == rule.evaluation_key and learnt is None and former.baseline == rule.baseline
