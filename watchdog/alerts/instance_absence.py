"""Absence of an instance's group: since when it has no row that meets `where`, and the effect on the instance.

Unknown ticks count for no absence, like for the timers of severities. Times are CLOCK_BOOTTIME in ns.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from watchdog.rules.engine.judge import Verdict
from watchdog.rules.engine.presence import Presence
from watchdog.rules.engine.selection import can_select
from watchdog.rules.language.rule import OVERFLOW_LABELS, Absent, Condition, Labels, Rule


class AbsenceEffect(enum.Enum):
    """Effect of the presence of its group on an instance in one tick."""

    NONE = "none"  # its value decides
    HOLD = "hold"  # nothing changes
    FIRE = "fire"
    END = "end"


@dataclass(slots=True)
class Absence:
    """Absence of one group.

    `where`: `row_conditions` of the rule, None if unknown. `since_ns`: time of its newest row that met them, None while
    it has such rows. `has_where_changed`: they changed after that row, so that the group may be excluded now.
    `is_long`: it has lasted for a window; a shorter one is not worth saving.
    """

    where: tuple[Condition, ...] | None
    since_ns: int | None = None
    has_where_changed: bool = False
    is_long: bool = False

    def set_where(self, rule: Rule, labels: Labels) -> bool:
        """Apply the `where` of a reloaded rule; return whether it changed."""
        before, self.where = self.where, rule.row_conditions
        if before is None or before == self.where:
            return False
        # Where all conditions are on its labels, which meet them, the group is selected as before.
        certain = can_select(rule.where, labels) and {one.dimension for one in rule.where} <= dict(labels).keys()
        certain = certain and not any(can_select(exclusion, labels) for exclusion in rule.exclusions)
        self.has_where_changed |= not certain
        return True

    def update(self, verdict: Verdict, at_ns: int, passed_ns: int) -> bool:
        """Apply the presence in one tick, `passed_ns` after the previous one; return whether the state changed."""
        before = self.is_long, self.has_where_changed
        if verdict.group.presence is Presence.SELECTED:
            self.since_ns, self.has_where_changed = None, False
        elif not verdict.complete or verdict.group.presence is Presence.UNKNOWN:
            return self.skip_time(passed_ns)
        elif self.since_ns is None:
            known_ns = verdict.group.selected_ns
            self.since_ns = at_ns - passed_ns if known_ns is None else known_ns
        self.is_long = self.since_ns is not None and at_ns - self.since_ns >= verdict.rule.window_ns
        return before != (self.is_long, self.has_where_changed)

    def skip_time(self, passed_ns: int) -> bool:
        """Exclude `passed_ns` from the absence; return whether it is a long one."""
        if self.since_ns is not None:
            self.since_ns += passed_ns
        return self.is_long

    def effect(self, verdict: Verdict, at_ns: int, *, is_active: bool) -> AbsenceEffect:
        """Return the effect in the newest tick on the instance; `is_active`: it fires."""
        rule, presence = verdict.rule, verdict.group.presence
        if verdict.labels == OVERFLOW_LABELS or presence is Presence.SELECTED:
            return AbsenceEffect.NONE
        if self.has_where_changed and not is_active:
            return AbsenceEffect.END
        if self.since_ns is None or not verdict.complete:
            return AbsenceEffect.NONE
        if self.has_where_changed and presence is Presence.UNSELECTED:
            return AbsenceEffect.END
        if presence is Presence.UNKNOWN:
            return AbsenceEffect.NONE if rule.absent is Absent.RESOLVE else AbsenceEffect.HOLD
        is_over = at_ns - self.since_ns >= rule.absent_for_ns
        match rule.absent:
            case Absent.RESOLVE:
                is_cleared = verdict.breached is None and verdict.not_cleared is None
                return AbsenceEffect.END if is_over and not is_cleared else AbsenceEffect.NONE
            case Absent.FIRE:
                return AbsenceEffect.FIRE if is_over else AbsenceEffect.HOLD
            case Absent.KEEP:
                return AbsenceEffect.END if self.is_long and not is_active else AbsenceEffect.HOLD

    def to_json(self) -> dict[str, Any]:
        """Return a document for `json` and `from_json`."""
        where = None if self.where is None else [[one.dimension, one.any_of, one.none_of] for one in self.where]
        return {"where": where, "since_ns": self.since_ns, "has_where_changed": self.has_where_changed}

    @classmethod
    def from_json(cls, document: Mapping[str, Any], boottime_shift_ns: int) -> Self:
        """Return the absence that `to_json` wrote, its time moved by `boottime_shift_ns`."""
        where, since_ns = document["where"], document["since_ns"]
        return cls(
            None if where is None else tuple(Condition(name, tuple(yes), tuple(no)) for name, yes, no in where),
            None if since_ns is None else since_ns + boottime_shift_ns,
            document["has_where_changed"],
            since_ns is not None,
        )
