"""The memories of rules that outlast windows: over reloads, and in parts that a store saves.

Rules with novelty keep the combinations that they have seen, rules with long windows their buckets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from watchdog.clock import SECOND_NS
from watchdog.rules.engine import long_window_table, novelty
from watchdog.rules.engine.long_window_judge import LongWindowJudge
from watchdog.rules.engine.long_window_table import LongWindowTable
from watchdog.rules.engine.novelty import NoveltyJudge, NoveltyMemory

SavedMemories = Mapping[str, Mapping[str, bytes]]
"""Saved parts by rule id and name of the part."""

_REPORT_NS = 3_600 * SECOND_NS
_PART_NAMES = (*novelty.PART_NAMES, *long_window_table.PART_NAMES)


class RuleMemories:
    """One memory for each such rule, by its id."""

    def __init__(self) -> None:
        """Start without memories."""
        self._memories: dict[str, NoveltyMemory | LongWindowTable] = {}
        self._reported: dict[str, int] = {}  # dropped entries by rule, as of the newest answer
        self._reported_ns: int | None = None
        self._outdated: set[str] = set()  # rules with saved parts of a former definition, or that are gone

    def assign(self, judges: Iterable[object]) -> None:
        """Give each judge of such a rule its memory; a rule with a changed definition starts anew."""
        before, self._memories = self._memories, {}
        for judge in judges:
            if not isinstance(judge, (NoveltyJudge, LongWindowJudge)):
                continue
            former = before.pop(judge.rule.id, None)
            if former is not None and not judge.take_memory(former):
                self._outdated.add(judge.rule.id)
            self._memories[judge.rule.id] = judge.memory
        self._outdated |= before.keys()

    def restore(self, saved: SavedMemories, boottime_shift_ns: int) -> list[str]:
        """Take over the parts that a former daemon saved; return the ids of the rules that have to start anew.

        `boottime_shift_ns`: difference of CLOCK_BOOTTIME to that of the boot that saved it.
        """
        anew = [
            rule_id
            for rule_id, memory in self._memories.items()
            if rule_id in saved and not memory.restore(saved[rule_id], boottime_shift_ns)
        ]
        self._outdated |= {*anew, *(saved.keys() - self._memories.keys())}
        self._reported = {rule_id: memory.dropped for rule_id, memory in self._memories.items()}
        return anew

    def take_dropped(self, at_ns: int) -> dict[str, int]:
        """Return by rule id how many entries were dropped for want of room since the last answer, once an hour."""
        if self._reported_ns is not None and at_ns - self._reported_ns < _REPORT_NS:
            return {}
        found = {
            rule_id: memory.dropped - self._reported.get(rule_id, 0)
            for rule_id, memory in self._memories.items()
            if memory.dropped > self._reported.get(rule_id, 0)
        }
        if found:
            self._reported_ns = at_ns
        self._reported = {rule_id: memory.dropped for rule_id, memory in self._memories.items()}
        return found

    def mark_changed(self) -> None:
        """Mark everything as changed: the saved parts may be gone."""
        for memory in self._memories.values():
            memory.mark_changed()

    def take_changes(self, *, at_once: bool = False) -> list[tuple[tuple[str, str], bytes | None]]:
        """Return the parts that changed since the last call, by rule and name; None for a part that is gone.

        `at_once`: also those that are saved once a minute only.
        """
        changes: dict[tuple[str, str], bytes | None] = {}
        for rule_id in self._outdated:
            changes |= dict.fromkeys(((rule_id, name) for name in _PART_NAMES), None)
            if rule_id in self._memories:
                self._memories[rule_id].mark_changed()
        self._outdated = set()
        for rule_id, memory in self._memories.items():
            changes |= {(rule_id, name): content for name, content in memory.take_changes(at_once=at_once).items()}
        return list(changes.items())
