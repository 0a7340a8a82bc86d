"""Novelty: verdicts of rules that fire when a combination of their `by` is seen for the first time.

A combination is seen in a tick in which a connection with it meets `where` and has something of the metric, and in
which `only_if` holds for it. While a rule learns, nothing fires. Of the combinations that are new within an hour, the
first `MAX_SINGLE` fire for themselves; the others are one alert with their number.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Final

import numpy as np

from watchdog.clock import SECOND_NS
from watchdog.errors import DocumentError, document_errors
from watchdog.measure.slot_table import Slots
from watchdog.rules.engine.aggregations import Aggregation
from watchdog.rules.engine.counted_slots import CountedSlots
from watchdog.rules.engine.judge import ActiveInstances, Judge, Measured, RuleTick, Verdict
from watchdog.rules.engine.missing import MissingSum
from watchdog.rules.engine.plan import Evaluation
from watchdog.rules.engine.seen_combinations import CHUNKS, Keys, SeenCombinations, combination_key
from watchdog.rules.engine.selection import Mask
from watchdog.rules.language.rule import OVERFLOW_LABELS, Labels, Novelty, Rule
from watchdog.rules.language.ruleset_hash import definition_digest

MAX_SINGLE: Final = 10
_MAX_LOOKED_UP = 4_096  # combinations in a tick: the others wait
NO_LONGER_NEW: Final = "no longer new"

_HOUR_NS = 3600 * SECOND_NS
_MINUTE_NS = 60 * SECOND_NS  # in which observed time is saved, and combinations are forgotten
_HEADER = "novelty"


class NoveltyMemory:
    """What one rule has seen: over reloads and restarts while its definition is the same."""

    def __init__(self, rule: Rule, novelty: Novelty) -> None:
        """Start to learn."""
        self.definition = definition_of(rule)
        self.seen = SeenCombinations()
        self.seen.set_forget(novelty.forget_ns // SECOND_NS)
        self.observed_ns = 0
        self.single: deque[int] = deque()  # observed time of those that fired for themselves in the last hour …
        self.others: deque[tuple[int, int]] = deque()  # … and time and number of the others, by minutes
        self._saved_ns: int | None = None
        self._must_save = True

    @property
    def dropped(self) -> int:
        """Return the number of combinations that were dropped for want of room."""
        return self.seen.dropped

    @property
    def second(self) -> int:
        """Return the second of observed time."""
        return max(self.observed_ns, 0) // SECOND_NS

    @property
    def other_count(self) -> int:
        """Return the number of combinations that did not fire for themselves, of the last hour."""
        return sum(count for _, count in self.others)

    def observe(self, elapsed_ns: int) -> bool:
        """Add the measured time of a tick; return whether a minute has begun."""
        before = self.observed_ns // _MINUTE_NS
        self.observed_ns += elapsed_ns
        has_begun = self.observed_ns // _MINUTE_NS > before
        since_ns = self.observed_ns - _HOUR_NS
        while self.single and self.single[0] <= since_ns:
            self.single.popleft()
        while self.others and self.others[0][0] <= since_ns:
            self.others.popleft()
        return has_begun

    def add_fired(self, count: int) -> bool:
        """Note `count` combinations that are new in this tick; return whether each fires for itself."""
        self._must_save = True
        if not self.others and len(self.single) + count <= MAX_SINGLE:
            self.single.extend([self.observed_ns] * count)
            return True
        former_ns, former = self.others[-1] if self.others else (-_MINUTE_NS, 0)
        if former_ns // _MINUTE_NS == self.observed_ns // _MINUTE_NS:
            self.others.pop()  # one entry a minute: all of them are saved at each change
            count += former
        self.others.append((self.observed_ns, count))
        return False

    def mark_changed(self) -> None:
        """Mark everything as changed: the saved parts may be gone."""
        self.seen.mark_all_changed()
        self._must_save = True

    def take_changes(self, *, at_once: bool = False) -> dict[str, bytes | None]:
        """Return the changed parts, by name; nothing while only time has passed since the last minute.

        `at_once`: in any case.
        """
        is_due = self._saved_ns is None or self.observed_ns - self._saved_ns >= _MINUTE_NS
        if not (self._must_save or is_due or at_once):
            return {}
        self._must_save, self._saved_ns = False, self.observed_ns
        header = {
            "definition": self.definition,
            "observed_ns": self.observed_ns,
            "dropped": self.seen.dropped,
            "single": list(self.single),
            "others": list(self.others),
        }
        chunks = {_chunk_name(number): content for number, content in self.seen.take_changes().items()}
        return {_HEADER: json.dumps(header).encode(), **chunks}

    def restore(self, parts: Mapping[str, bytes], boottime_shift_ns: int) -> bool:  # noqa: ARG002 - observed time has no boot
        """Take the saved `parts` over; return False if there are none of this definition, or they are damaged."""
        try:
            with document_errors():
                header = json.loads(parts[_HEADER])
                if header["definition"] != self.definition:
                    return False
                seen = SeenCombinations.restore(content for name, content in parts.items() if name in _CHUNK_NAMES)
                seen.dropped, seen.saved_seconds = int(header["dropped"]), self.seen.saved_seconds
                observed_ns = int(header["observed_ns"])
                single = deque(int(at_ns) for at_ns in header["single"])
                others = deque((int(at_ns), int(count)) for at_ns, count in header["others"])
        except DocumentError:
            return False
        # All or nothing: the time to learn without what was seen in it would make everything new.
        self.observed_ns, self.single, self.others = observed_ns, single, others
        self.seen, self._saved_ns, self._must_save = seen, self.observed_ns, False
        return True


def _chunk_name(number: int) -> str:
    return f"{_HEADER}:{number}"


_CHUNK_NAMES = frozenset(map(_chunk_name, range(CHUNKS)))
PART_NAMES: Final = (_HEADER, *sorted(_CHUNK_NAMES))
"""Names of the saved parts of a memory."""


def definition_of(rule: Rule) -> str:
    """Return a digest of the keys that decide on the combinations a rule sees."""
    return definition_digest(rule.metric, rule.by, rule.where, rule.only_if)


class NoveltyJudge(Judge):
    """Judges a rule with novelty."""

    def __init__(
        self,
        rule: Rule,
        novelty: Novelty,
        evaluation: Evaluation,
        only_if: Aggregation | None,
        missing_rows: MissingSum,
        counted: CountedSlots,
    ) -> None:
        """Judge by `memory`, which the caller sets. `counted`: the slots of the newest tick."""
        super().__init__(rule, evaluation, only_if, missing_rows)
        self.memory = NoveltyMemory(rule, novelty)
        self._novelty = novelty
        self._counted = counted
        self._keys: Keys = np.zeros(0, np.uint64)  # by slot
        self._is_known: Mask = np.zeros(0, np.bool_)  # by slot: it has a key, which the memory contains
        self._seconds = np.zeros(0, np.uint32)  # by slot: when it was last seen
        self._waiting: Slots = np.zeros(0, np.int32)  # slots of earlier ticks that are not looked up yet

    def take_memory(self, former: object) -> bool:
        """Go on with the memory of before a reload; return False if it is of another definition."""
        if not isinstance(former, NoveltyMemory) or former.definition != self.memory.definition:
            return False
        former.seen.saved_seconds = self.memory.seen.saved_seconds
        self.memory = former
        return True

    def may_fire_unseen(self, tick: RuleTick) -> bool:  # noqa: ARG002 - a combination that was lost is new when it is seen
        """Return False."""
        return False

    def learning_ns(self) -> int:
        """Return the measured time until a new combination fires; 0 once it does."""
        return max(self._novelty.learn_ns - self.memory.observed_ns, 0)

    def verdicts(self, tick: RuleTick, instances: ActiveInstances) -> list[Verdict]:
        """Return a verdict for each new combination or for all of them, and for each of `instances`."""
        memory = self.memory
        if memory.observe(tick.snapshot.elapsed_ns):
            self._update_times()
            memory.seen.forget_before(max(memory.second - self._novelty.forget_ns // SECOND_NS, 0))
            self._refresh_known()
        new = self._take_new(tick)
        fired: dict[Labels, float] = {}
        self.left_out = new[:0]
        if len(new) and memory.observed_ns > self._novelty.learn_ns:
            if memory.add_fired(len(new)):
                values = self.evaluation.values(new, window_filled=tick.window_filled).tolist()
                groups = self.evaluation.view.groups
                fired = {
                    groups.labels(slot, tick.snapshot): value for slot, value in zip(new.tolist(), values, strict=True)
                }
            else:
                self.left_out = new
                fired = {OVERFLOW_LABELS: float(memory.other_count)}
        quiet = [labels for labels in instances.labels if labels not in fired]
        severity = self._novelty.severity
        return [
            *(Verdict(self.rule, labels, True, value, severity, severity, "") for labels, value in fired.items()),
            *(Verdict(self.rule, labels, True, float("nan"), None, None, NO_LONGER_NEW) for labels in quiet),
        ]

    def verdict_on(self, slot: int, labels: Labels, tick: RuleTick, *, is_active: bool) -> tuple[Verdict, Measured]:  # noqa: ARG002 - it fires in one tick only
        """Return the verdict on the group of `slot` after the newest tick: it is new no longer."""
        [measured] = self._measure(np.array([slot], dtype=np.int32), tick)
        return Verdict(self.rule, labels, True, measured.value, None, None, NO_LONGER_NEW), measured

    def _take_new(self, tick: RuleTick) -> Slots:
        """Return the slots of the newest tick with a combination that was never seen, and keep these as seen."""
        slots, new_slots = self._counted.take()
        self._grow()
        self._is_known[new_slots] = False
        slots = slots[self._only_if_bounds(slots)[0]]
        self._seconds[slots] = self.memory.second
        waiting = np.union1d(np.setdiff1d(self._waiting, new_slots), slots)
        unknown = waiting[~self._is_known[waiting]]
        unknown, self._waiting = unknown[:_MAX_LOOKED_UP], unknown[_MAX_LOOKED_UP:]
        if not len(unknown):
            return unknown
        texts = self.evaluation.view.groups.texts
        keys = np.array([combination_key(texts(slot, tick.snapshot)) for slot in unknown.tolist()], np.uint64)
        self._keys[unknown] = keys
        self._is_known[unknown] = True
        distinct, first = np.unique(keys, return_index=True)
        is_new = ~self.memory.seen.contain(distinct)
        if is_new.any():
            if len(self.memory.seen) + int(is_new.sum()) > self.memory.seen.max_combinations:
                self._update_times()  # those that are in use are not the oldest
            self.memory.seen.add(distinct[is_new], self.memory.second)
            self._refresh_known()
        return np.sort(unknown[first[is_new]])

    def _update_times(self) -> None:
        known = self._is_known
        self.memory.seen.mark_seen(self._keys[known], self._seconds[known])

    def _refresh_known(self) -> None:
        """Note the slots whose combinations the memory has dropped."""
        self._is_known[self._is_known] = self.memory.seen.contain(self._keys[self._is_known])

    def _grow(self) -> None:
        missing = self.evaluation.view.groups.capacity - len(self._keys)
        if missing > 0:
            self._keys = np.concatenate([self._keys, np.zeros(missing, np.uint64)])
            self._is_known = np.concatenate([self._is_known, np.zeros(missing, np.bool_)])
            self._seconds = np.concatenate([self._seconds, np.zeros(missing, np.uint32)])
