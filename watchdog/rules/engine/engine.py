"""Judging: a snapshot goes in, what the rules say of it comes out."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

from watchdog.clock import SECOND_NS
from watchdog.measure.slot_table import NEVER_NS
from watchdog.measure.snapshot import Snapshot
from watchdog.rules.engine import contributors
from watchdog.rules.engine.aggregations import Aggregation, MetricAccumulator
from watchdog.rules.engine.contributors import Contributors
from watchdog.rules.engine.groups import GroupSlots
from watchdog.rules.engine.judge import Judge, RuleTick, Verdict, least_severe_threshold
from watchdog.rules.engine.order_statistics import OrderStatistic, OrderStatisticWindow
from watchdog.rules.engine.plan import EvaluationPlan
from watchdog.rules.engine.selection import Selection
from watchdog.rules.engine.view import View, group_snapshot
from watchdog.rules.engine.window import MAX_RECENT_TICKS, WindowCoverage
from watchdog.rules.language.expression import metrics_of
from watchdog.rules.language.rule import OVERFLOW_LABELS, Labels, Rule

__all__ = ["OVERFLOW_LABELS", "Engine", "Verdict"]


class Engine:
    """Judges snapshots by rules."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Start with empty windows."""
        self._selection = Selection()
        self._parts = EvaluationPlan()
        self._judges: list[Judge] = []
        self._since_ns: dict[object, int | None] = {}
        self._elapsed_ns: deque[tuple[int, int]] = deque(maxlen=MAX_RECENT_TICKS)  # of the newest ticks, by their times
        self._folded_ns = self._nameless_ns = NEVER_NS  # when detail was lost last
        self.retention_ns = 0
        self._failures: list[Exception] = []
        self.required_columns: frozenset[str] = frozenset()
        self.replace_rules(rules)

    def replace_rules(self, rules: Iterable[Rule]) -> None:
        """Judge by `rules` from now on; windows of rules whose definition is unchanged keep what they hold.

        `needs` then names the metrics and dimensions that snapshots must have, and `retention_ns` says for how long a
        name
        may be spoken of after it was seen last.
        """
        rules = list(rules)
        parts = EvaluationPlan(self._parts)
        self._judges = [Judge(rule, parts.evaluation(rule), parts.only_if_aggregation(rule)) for rule in rules]
        parts.drop_unused()
        self._parts = parts
        self._watch_thresholds()
        self._selection.retain_only(condition for rule in rules for condition in rule.where)
        self._since_ns = {rule.evaluation_key: self._since_ns.get(rule.evaluation_key) for rule in rules}
        self.retention_ns = max((2 * rule.window_ns for rule in rules), default=0)
        self.required_columns = frozenset(name for rule in rules for name in _needs(rule))

    def evaluate(self, snapshot: Snapshot, active_keys: Collection[tuple[str, Labels]]) -> list[Verdict]:
        """Take in the newest tick, and return what is to be said of it, rule by rule.

        That is a verdict for each instance that fires, at most `MAX_INSTANCES` of a rule, the worst, the rest as one
        of the labels `OVERFLOW_LABELS`; and one for each of `watched`: (rule id, labels) of what is pending or
        firing. A rule
        that cannot be judged has none, and takes no other with it: `take_failures` has the reason.
        """
        self._feed(snapshot)
        watching: dict[str, list[Labels]] = {}
        for rule_id, labels in active_keys:
            watching.setdefault(rule_id, []).append(labels)
        verdicts: dict[str, list[Verdict]] = {}
        for measured, judges in self._by_measured():
            for judge in judges:
                rule = judge.rule
                try:
                    verdicts[rule.id] = judge.verdicts(self._tick(judge, snapshot), watching.get(rule.id, []))
                except Exception as error:  # noqa: BLE001 - the edge of one rule: others must be judged
                    error.add_note(f"in rule {rule.id}")
                    self._failures.append(error)
            if isinstance(measured, Aggregation):
                measured.release()
        for gate in self._parts.parts_of_type(Aggregation):
            gate.release()
        return [verdict for judge in self._judges for verdict in verdicts.get(judge.rule.id, ())]

    def find_contributors(self, snapshot: Snapshot, rule_id: str, labels: Labels) -> tuple[Rule, Contributors] | None:
        """Return a rule and what made up the value of one instance in the tick of `snapshot`, the newest one observed.

        None for a rule that is not judged.
        """
        judge = next((judge for judge in self._judges if judge.rule.id == rule_id), None)
        metric = contributors.leading_metric(judge.rule.metric) if judge is not None else None
        if judge is None or metric is None:
            return None
        # A slot is its group's own for so long only.
        since_ns = snapshot.at_ns - self.retention_ns
        elapsed_ns = {at_ns: elapsed for at_ns, elapsed in self._elapsed_ns if elapsed and at_ns > since_ns}
        history = judge.evaluation.history(judge.evaluation.view.groups.slot(labels, snapshot), elapsed_ns)
        try:
            rows = contributors.contributing_rows(snapshot, judge.rule, labels, self._selection)
        finally:
            self._selection.release()
        amount = contributors.total_amount(snapshot, rows, metric)
        rows = contributors.nonzero_rows(snapshot, rows, metric)
        told_ns = list(elapsed_ns.values())[len(elapsed_ns) - len(history) :]
        return judge.rule, Contributors(
            metric,
            amount,
            *contributors.contributing_peers(snapshot, rows, metric),
            *contributors.contributing_processes(snapshot, rows, metric),
            tuple(history.tolist()),
            snapshot.elapsed_ns / SECOND_NS,
            sum(told_ns) / SECOND_NS,
        )

    def take_failures(self) -> list[Exception]:
        """Return why rules could not be judged since the last call."""
        failures, self._failures = self._failures, []
        return failures

    def _feed(self, snapshot: Snapshot) -> None:
        """Let every part take in the tick: first time, then groups and rows, then what is measured."""
        self._elapsed_ns.append((snapshot.at_ns, snapshot.elapsed_ns))
        for span in self._parts.parts_of_type(WindowCoverage):
            span.push(snapshot.at_ns, snapshot.elapsed_ns, incomplete=snapshot.quality.is_incomplete)
        if snapshot.quality.ledger_full:
            self._folded_ns = snapshot.at_ns
        if snapshot.quality.names_full:
            self._nameless_ns = snapshot.at_ns
        for evaluation_key, since_ns in self._since_ns.items():
            if since_ns is None or not snapshot.elapsed_ns:
                self._since_ns[evaluation_key] = snapshot.at_ns - snapshot.elapsed_ns
        frames = {
            groups: group_snapshot(groups, snapshot, self.retention_ns)
            for groups in self._parts.parts_of_type(GroupSlots)
        }
        for view in self._parts.parts_of_type(View):
            view.load(frames[view.groups], self._selection)
        for tally in self._parts.parts_of_type(MetricAccumulator):
            tally.add_newest_tick()
        for ranking in self._parts.parts_of_type(OrderStatisticWindow):
            ranking.add_newest_tick()
        for view in self._parts.parts_of_type(View):
            view.release()
        self._selection.release()

    def _tick(self, judge: Judge, snapshot: Snapshot) -> RuleTick:
        rule, span = judge.rule, judge.evaluation.coverage
        since_ns = self._since_ns[rule.evaluation_key]
        filled = since_ns is not None and since_ns <= snapshot.at_ns - span.window_ns
        complete = not span.is_incomplete and (
            judge.only_if_aggregation is None or not judge.only_if_aggregation.coverage.is_incomplete
        )
        window_ns = span.window_ns if judge.only_if_aggregation is None else rule.window_ns
        complete &= self._lost_ns(judge) <= snapshot.at_ns - window_ns
        return RuleTick(snapshot, window_filled=filled, input_complete=complete)

    def _lost_ns(self, judge: Judge) -> int:
        """Return when detail that the rule depends on was lost last."""
        lost_ns = judge.evaluation.view.groups.last_ungrouped_ns
        if judge.reads_connection_detail:
            lost_ns = max(lost_ns, self._folded_ns)
        if judge.filters_by_name:
            lost_ns = max(lost_ns, self._nameless_ns)
        return lost_ns

    def _by_measured(self) -> Iterable[tuple[Aggregation | OrderStatistic, list[Judge]]]:
        """Bring together the rules that read the same values, so that those exist for one set of rules at a time."""
        together: dict[Aggregation | OrderStatistic, list[Judge]] = {}
        for judge in self._judges:
            together.setdefault(judge.evaluation, []).append(judge)
        return together.items()

    def _watch_thresholds(self) -> None:
        """Tell each ranking which thresholds decide whether a rule fires at all."""
        wanted: dict[OrderStatisticWindow, set[tuple[float, bool]]] = {}
        for judge in self._judges:
            if isinstance(judge.evaluation, OrderStatistic):
                thresholds = judge.rule.thresholds
                wanted.setdefault(judge.evaluation.ranking, set()).add(
                    (least_severe_threshold(thresholds), thresholds.above)
                )
        for ranking, thresholds_wanted in wanted.items():
            ranking.set_thresholds(thresholds_wanted)


def _needs(rule: Rule) -> Iterable[str]:
    yield from metrics_of(rule.metric)
    yield from rule.by
    yield from (condition.dimension for condition in rule.where)
    if rule.only_if is not None:
        yield from metrics_of(rule.only_if.left)
