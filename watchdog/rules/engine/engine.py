"""Judging: a snapshot goes in, what the rules say of it comes out."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

from watchdog.clock import SECOND_NS
from watchdog.measure.slot_table import NEVER_NS
from watchdog.measure.snapshot import Snapshot
from watchdog.rules.engine import contributors
from watchdog.rules.engine.aggregations import Combined, Tally
from watchdog.rules.engine.contributors import Trace
from watchdog.rules.engine.groups import Groups
from watchdog.rules.engine.judge import Judge, Tick, Verdict, mildest
from watchdog.rules.engine.order_statistics import Ranked, Ranking
from watchdog.rules.engine.plan import Parts
from watchdog.rules.engine.selection import Selection
from watchdog.rules.engine.view import View, frame
from watchdog.rules.engine.window import RECENT_TICKS, Span
from watchdog.rules.language.expression import metrics_of
from watchdog.rules.language.rule import OVERFLOW, Labels, Rule

__all__ = ["OVERFLOW", "Engine", "Verdict"]


class Engine:
    """Judges snapshots by rules."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Start with empty windows."""
        self._selection = Selection()
        self._parts = Parts()
        self._judges: list[Judge] = []
        self._since_ns: dict[object, int | None] = {}
        self._elapsed_ns: deque[tuple[int, int]] = deque(maxlen=RECENT_TICKS)  # of the newest ticks, by their times
        self._folded_ns = self._nameless_ns = NEVER_NS  # when detail was lost last
        self.silent_ns = 0
        self._failures: list[Exception] = []
        self.needs: frozenset[str] = frozenset()
        self.replace(rules)

    def replace(self, rules: Iterable[Rule]) -> None:
        """Judge by `rules` from now on; windows of rules whose definition is unchanged keep what they hold.

        `needs` then names the metrics and dimensions that snapshots must have, and `silent_ns` says for how long a name
        may be spoken of after it was seen last.
        """
        rules = list(rules)
        parts = Parts(self._parts)
        self._judges = [Judge(rule, parts.measured(rule), parts.gate(rule)) for rule in rules]
        parts.close()
        self._parts = parts
        self._watch_thresholds()
        self._selection.keep(condition for rule in rules for condition in rule.where)
        self._since_ns = {rule.definition: self._since_ns.get(rule.definition) for rule in rules}
        self.silent_ns = max((2 * rule.window_ns for rule in rules), default=0)
        self.needs = frozenset(name for rule in rules for name in _needs(rule))

    def observe(self, snapshot: Snapshot, watched: Collection[tuple[str, Labels]]) -> list[Verdict]:
        """Take in the newest tick, and return what is to be said of it, rule by rule.

        That is a verdict for each instance that fires, at most `MOST_INSTANCES` of a rule, the worst, the rest as one
        of the labels `OVERFLOW`; and one for each of `watched`: (rule id, labels) of what is pending or firing. A rule
        that cannot be judged has none, and takes no other with it: `take_failures` has the reason.
        """
        self._feed(snapshot)
        watching: dict[str, list[Labels]] = {}
        for rule_id, labels in watched:
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
            if isinstance(measured, Combined):
                measured.release()
        for gate in self._parts.all(Combined):
            gate.release()
        return [verdict for judge in self._judges for verdict in verdicts.get(judge.rule.id, ())]

    def trace(self, snapshot: Snapshot, rule_id: str, labels: Labels) -> tuple[Rule, Trace] | None:
        """Return a rule and what made up the value of one instance in the tick of `snapshot`, the newest one observed.

        None for a rule that is not judged.
        """
        judge = next((judge for judge in self._judges if judge.rule.id == rule_id), None)
        metric = contributors.leading_metric(judge.rule.metric) if judge is not None else None
        if judge is None or metric is None:
            return None
        # A slot is its group's own for so long only.
        since_ns = snapshot.at_ns - self.silent_ns
        elapsed_ns = {at_ns: elapsed for at_ns, elapsed in self._elapsed_ns if elapsed and at_ns > since_ns}
        history = judge.measured.history(judge.measured.view.groups.slot(labels, snapshot), elapsed_ns)
        try:
            rows = contributors.rows_of(snapshot, judge.rule, labels, self._selection)
        finally:
            self._selection.release()
        amount = contributors.total(snapshot, rows, metric)
        rows = contributors.measuring(snapshot, rows, metric)
        told_ns = list(elapsed_ns.values())[len(elapsed_ns) - len(history) :]
        return judge.rule, Trace(
            metric,
            amount,
            *contributors.peers_of(snapshot, rows, metric),
            *contributors.participants_of(snapshot, rows, metric),
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
        for span in self._parts.all(Span):
            span.push(snapshot.at_ns, snapshot.elapsed_ns, incomplete=snapshot.quality.incomplete)
        if snapshot.quality.ledger_full:
            self._folded_ns = snapshot.at_ns
        if snapshot.quality.names_full:
            self._nameless_ns = snapshot.at_ns
        for definition, since_ns in self._since_ns.items():
            if since_ns is None or not snapshot.elapsed_ns:
                self._since_ns[definition] = snapshot.at_ns - snapshot.elapsed_ns
        frames = {groups: frame(groups, snapshot, self.silent_ns) for groups in self._parts.all(Groups)}
        for view in self._parts.all(View):
            view.load(frames[view.groups], self._selection)
        for tally in self._parts.all(Tally):
            tally.feed()
        for ranking in self._parts.all(Ranking):
            ranking.feed()
        for view in self._parts.all(View):
            view.release()
        self._selection.release()

    def _tick(self, judge: Judge, snapshot: Snapshot) -> Tick:
        rule, span = judge.rule, judge.measured.span
        since_ns = self._since_ns[rule.definition]
        filled = since_ns is not None and since_ns <= snapshot.at_ns - span.window_ns
        complete = not span.incomplete and (judge.gate is None or not judge.gate.span.incomplete)
        window_ns = span.window_ns if judge.gate is None else rule.window_ns
        complete &= self._lost_ns(judge) <= snapshot.at_ns - window_ns
        return Tick(snapshot, filled=filled, complete=complete)

    def _lost_ns(self, judge: Judge) -> int:
        """Return when detail that the rule depends on was lost last."""
        lost_ns = judge.measured.view.groups.lost_ns
        if judge.reads_detail:
            lost_ns = max(lost_ns, self._folded_ns)
        if judge.selects_names:
            lost_ns = max(lost_ns, self._nameless_ns)
        return lost_ns

    def _by_measured(self) -> Iterable[tuple[Combined | Ranked, list[Judge]]]:
        """Bring together the rules that read the same values, so that those exist for one set of rules at a time."""
        together: dict[Combined | Ranked, list[Judge]] = {}
        for judge in self._judges:
            together.setdefault(judge.measured, []).append(judge)
        return together.items()

    def _watch_thresholds(self) -> None:
        """Tell each ranking which thresholds decide whether a rule fires at all."""
        wanted: dict[Ranking, set[tuple[float, bool]]] = {}
        for judge in self._judges:
            if isinstance(judge.measured, Ranked):
                thresholds = judge.rule.thresholds
                wanted.setdefault(judge.measured.ranking, set()).add((mildest(thresholds), thresholds.above))
        for ranking, thresholds_wanted in wanted.items():
            ranking.watch_only(thresholds_wanted)


def _needs(rule: Rule) -> Iterable[str]:
    yield from metrics_of(rule.metric)
    yield from rule.by
    yield from (condition.dimension for condition in rule.where)
    if rule.only_if is not None:
        yield from metrics_of(rule.only_if.left)
