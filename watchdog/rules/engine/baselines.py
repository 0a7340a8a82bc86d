"""The baselines of all rules: kept over reloads and restarts, bounded together."""

from __future__ import annotations

import enum
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from watchdog.rules.engine.baseline_blobs import BaselinePart, dump_part, load_parts, part_count
from watchdog.rules.engine.baseline_groups import NO_ROW, RowNumbers
from watchdog.rules.engine.rule_baseline import GroupBaseline, RuleBaseline
from watchdog.rules.language.rule import Labels, Rule
from watchdog.rules.language.ruleset_hash import baseline_digest

SECRET_BYTES: Final = 16
_MAX_ROWS = 131_072  # groups of one rule; 16 MB
_MAX_ALL_ROWS = 524_288  # of all rules; 63 MB


class BaselineEvent(enum.StrEnum):
    """Kind of an event in the life of a baseline."""

    NEW_NORMAL = "new normal"
    DROPPED = "groups dropped"
    STARTED_ANEW = "definition changed, learning starts anew"
    LEARNING = "learning, silent until it has learnt"
    LEARNT = "learnt, limits in force"
    BACK = "rule is back, limits in force"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class BaselineNote:
    """An event to log. `count`: of groups, of parts of the saved baseline, or of the hours learnt so far."""

    event: BaselineEvent
    rule: str
    count: int = 0


class Baselines:
    """The baselines of the rules in force."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Start with nothing learnt."""
        self.secret = secrets.token_bytes(SECRET_BYTES)
        """Secret of the keys of groups; saved with the baselines."""
        self._by_rule: dict[str, RuleBaseline] = {}
        self._notes: list[BaselineNote] = []
        self._to_save: dict[tuple[str, int], None] = {}  # rule and number of each part, in their order
        self.read_saved: Callable[[], Sequence[BaselinePart]] = tuple
        """Returns the saved parts of rules, also of those that were out of force, made with `secret`."""
        self.replace_rules(rules)

    def replace_rules(self, rules: Iterable[Rule]) -> None:
        """Keep the baselines of the rules whose definition is the same; the others begin anew.

        A rule that was out of force for a while goes on with the baseline that was saved last.
        """
        wanted = [rule for rule in rules if rule.baseline is not None]
        max_rows = min(_MAX_ROWS, _MAX_ALL_ROWS // max(len(wanted), 1))
        before, self._by_rule = self._by_rule, {}
        began: list[str] = []
        for rule in wanted:
            known = before.get(rule.id)
            if known is not None and known.digest == baseline_digest(rule):
                known.apply_rule(rule)
                known.max_rows = max_rows
                self._by_rule[rule.id] = known
                continue
            if known is not None:
                self._notes.append(BaselineNote(BaselineEvent.STARTED_ANEW, rule.id))
            else:
                began.append(rule.id)
            self._by_rule[rule.id] = RuleBaseline(rule, self.secret, max_rows)
        if began:
            self._load(self.read_saved(), began)
        self._note_begin(began)
        self._to_save = {part: None for part in self._to_save if part[0] in self._by_rule}

    def of(self, rule_id: str) -> RuleBaseline | None:
        """Return the baseline of a rule, None for a rule without one."""
        return self._by_rule.get(rule_id)

    def end_hours(self, local_seconds: float, at_ns: int, measured: Iterable[str]) -> None:
        """Take the time of a tick; `measured`: ids of the rules whose window is filled."""
        filled = set(measured)
        for rule_id, baseline in self._by_rule.items():
            was_learning = baseline.is_learning
            baseline.end_hours(local_seconds, at_ns, is_measured=rule_id in filled)
            if was_learning and not baseline.is_learning:
                self._notes.append(BaselineNote(BaselineEvent.LEARNT, rule_id, baseline.learnt_hours))
            if baseline.is_due:
                baseline.is_due = False
                self._to_save.update({(rule_id, number): None for number in range(part_count(baseline))})

    def restore(self, secret: bytes, parts: Sequence[BaselinePart], rules: Iterable[Rule]) -> None:
        """Load the baselines that a former daemon saved with `secret`; before the first tick."""
        self.secret = secret
        self._by_rule = {}
        self.replace_rules(rules)
        self._notes = []
        self._load(parts, self._by_rule)
        for rule_id, baseline in self._by_rule.items():
            if baseline.is_learning:
                self._notes.append(BaselineNote(BaselineEvent.LEARNING, rule_id, baseline.learnt_hours))

    def _load(self, parts: Iterable[BaselinePart], rules: Iterable[str]) -> None:
        """Load those of `parts` that belong to `rules`, whose baselines are new."""
        by_rule: dict[str, list[BaselinePart]] = {rule_id: [] for rule_id in rules}
        for part in parts:
            by_rule.get(part.rule, []).append(part)
        for rule_id, of_rule in by_rule.items():
            baseline = self._by_rule[rule_id]
            same = [part for part in of_rule if part.digest == baseline.digest]
            if of_rule and not same:
                self._notes.append(BaselineNote(BaselineEvent.STARTED_ANEW, rule_id))
            elif unreadable := load_parts(baseline, same):
                self._notes.append(BaselineNote(BaselineEvent.UNREADABLE, rule_id, unreadable))

    def _note_begin(self, rules: Iterable[str]) -> None:
        for rule_id in rules:
            baseline = self._by_rule[rule_id]
            event = BaselineEvent.LEARNING if baseline.is_learning else BaselineEvent.BACK
            self._notes.append(BaselineNote(event, rule_id, baseline.learnt_hours))

    def mark_all_due(self) -> None:
        """Save every part again: the state file may have lost them."""
        self._to_save = {
            (rule_id, number): None
            for rule_id, baseline in self._by_rule.items()
            for number in range(part_count(baseline))
        }

    def take_part_to_save(self) -> BaselinePart | None:
        """Return the next part that is due, None without one: one in a tick is enough."""
        while self._to_save:
            rule_id, number = next(iter(self._to_save))
            del self._to_save[rule_id, number]
            baseline = self._by_rule[rule_id]
            if number < part_count(baseline):
                return dump_part(rule_id, baseline, number)
        return None

    def all_parts(self) -> Iterable[BaselinePart]:
        """Yield every part of every baseline, as it is now: for a stop."""
        for rule_id, baseline in self._by_rule.items():
            baseline.close_rows(len(baseline.groups))
            yield from (dump_part(rule_id, baseline, number) for number in range(part_count(baseline)))

    def take_notes(self) -> list[BaselineNote]:
        """Return the events since the last call."""
        notes, self._notes = self._notes, []
        for rule_id, baseline in self._by_rule.items():
            adopted, dropped = baseline.take_counts()
            if adopted:
                notes.append(BaselineNote(BaselineEvent.NEW_NORMAL, rule_id, adopted))
            if dropped:
                notes.append(BaselineNote(BaselineEvent.DROPPED, rule_id, dropped))
        return notes

    def accept(self, rule_id: str, labels: Labels | None) -> int:
        """Take the present level of a group, or of all (None), for its usual one; return the number of groups."""
        baseline, rows = self._find_to_change(rule_id, labels)
        baseline.accept(rows)
        return len(rows)

    def hold(self, rule_id: str, labels: Labels | None, *, is_held: bool = True) -> int:
        """Never take a new level of a group, or of all (None), for its usual one by itself; return their number.

        `is_held` False: allow it again.
        """
        baseline, rows = self._find_to_change(rule_id, labels)
        baseline.columns.hold(rows, is_held=is_held)
        return len(rows)

    def forget(self, rule_id: str, labels: Labels | None) -> int:
        """Start anew with a group, or with the whole rule (None); return the number of forgotten groups."""
        baseline, rows = self._find_to_change(rule_id, labels)
        baseline.forget(rows)
        if labels is None:
            baseline.learnt_hours = 0
            baseline.set_limits()
        return len(rows)

    def describe(self, rule_id: str, labels: Labels) -> GroupBaseline | None:
        """Return the baseline of one group, None for an unknown one."""
        baseline, rows = self._find(rule_id, labels)
        return baseline.describe(int(rows[0])) if len(rows) else None

    def _find_to_change(self, rule_id: str, labels: Labels | None) -> tuple[RuleBaseline, RowNumbers]:
        """Return as `_find`, with the last hour closed for all groups, and the baseline due to be saved."""
        baseline = self._by_rule[rule_id]
        baseline.close_rows(len(baseline.groups))
        baseline.is_due = True
        return self._find(rule_id, labels)

    def _find(self, rule_id: str, labels: Labels | None) -> tuple[RuleBaseline, RowNumbers]:
        """Return the baseline of a rule, and the rows of a group, or of all groups (None).

        Raises:
            KeyError: the rule has no baseline, or no group can have these labels.
        """
        baseline = self._by_rule[rule_id]
        if labels is None:
            return baseline, np.arange(len(baseline.groups))
        row = baseline.row_of_labels(labels)
        return baseline, np.array([] if row == NO_ROW else [row], np.intp)
