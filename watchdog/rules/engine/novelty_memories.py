"""The memories of all rules with novelty: over reloads, and in parts that a store saves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from watchdog.rules.engine.novelty import PART_NAMES, NoveltyJudge, NoveltyMemory

SavedMemories = Mapping[str, Mapping[str, bytes]]
"""Saved parts by rule id and name of the part."""


class NoveltyMemories:
    """One memory for each rule with novelty, by its id."""

    def __init__(self) -> None:
        """Start without memories."""
        self._memories: dict[str, NoveltyMemory] = {}
        self._removed: set[str] = set()

    def assign(self, judges: Iterable[NoveltyJudge]) -> None:
        """Give each judge its memory; a rule with a changed definition starts anew, rules without a judge end."""
        before, self._memories = self._memories, {}
        for judge in judges:
            former = before.pop(judge.rule.id, None)
            if former is not None and former.definition == judge.memory.definition:
                judge.memory = former
            elif former is not None:
                judge.memory.mark_changed()
            self._memories[judge.rule.id] = judge.memory
        self._removed = (self._removed | before.keys()) - self._memories.keys()

    def restore(self, saved: SavedMemories) -> list[str]:
        """Take over what a former daemon saved; return the ids of the rules that have to learn anew."""
        anew = []
        for rule_id, memory in self._memories.items():
            parts = saved.get(rule_id, {})
            if parts and not memory.restore(parts):
                memory.mark_changed()
                anew.append(rule_id)
        self._removed |= saved.keys() - self._memories.keys()
        return anew

    def mark_changed(self) -> None:
        """Mark everything as changed: what was saved may be gone."""
        for memory in self._memories.values():
            memory.mark_changed()

    def take_changes(self) -> list[tuple[tuple[str, str], bytes | None]]:
        """Return the parts that changed since the last call, by rule and name; None for a part that is gone."""
        changes: list[tuple[tuple[str, str], bytes | None]] = [
            ((rule_id, name), None) for rule_id in sorted(self._removed) for name in PART_NAMES
        ]
        self._removed = set()
        for rule_id, memory in self._memories.items():
            changes += [((rule_id, name), content) for name, content in memory.take_changes().items()]
        return changes
