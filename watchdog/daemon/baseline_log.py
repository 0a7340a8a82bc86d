"""Log lines on the life of baselines: one for all rules with the same event."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from watchdog.rules.engine.baselines import BaselineEvent, BaselineNote

_MAX_NAMES: Final = 10
_COUNTED: Final = {
    BaselineEvent.NEW_NORMAL: "groups",
    BaselineEvent.DROPPED: "groups",
    BaselineEvent.UNREADABLE: "parts",
    BaselineEvent.LEARNING: "learnt_hours",
    BaselineEvent.LEARNT: "learnt_hours",
    BaselineEvent.BACK: "learnt_hours",
}


def baseline_lines(notes: Iterable[BaselineNote]) -> list[str]:
    """Return a line for each event and count in `notes`, with the rules that have it, at most 10 of them by name."""
    rules: dict[tuple[BaselineEvent, int], list[str]] = {}
    for note in notes:
        rules.setdefault((note.event, note.count), []).append(note.rule)
    return [_line(event, count, names) for (event, count), names in rules.items()]


def _line(event: BaselineEvent, count: int, names: list[str]) -> str:
    counted = f" {_COUNTED[event]}={count}" if event in _COUNTED else ""
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"baseline: {event}: rules={','.join(names[:_MAX_NAMES])}{more}{counted}"
