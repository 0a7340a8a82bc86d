"""The timers of one severity of one instance: `for` (or `hits`) and `keep_firing_for`.

    inactive ──true──► pending ──true for `for`──► active ──false for `keep_firing_for`──► inactive
        ▲                 │                          ▲  │
        └──── false ──────┘                          └──┘ true: `keep_firing_for` starts again

With `hits` the condition is true while enough of the newest ticks are hits, and pending is left with the last of them.

Unknown is neither true nor false: the state stays, and the time until the next complete tick counts for neither timer.
An unknown tick is none of the ticks of `hits`.
The time between two ticks belongs to the later one. Times are CLOCK_BOOTTIME in ns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from watchdog.rules.language.rule import Hits


@dataclass(slots=True)
class SeverityTimer:
    """Timer of a severity that is pending or active; an inactive severity has none.

    `breached_since_ns`: when the condition became true; `cleared_ns`: when it became false while active, None while it
    is true. `recent_hits`: one bit for each of the newest ticks of a rule with `hits`, the newest in bit 0.
    """

    breached_since_ns: int
    is_active: bool = False
    cleared_ns: int | None = None
    recent_hits: int = 0

    @property
    def has_running_timer(self) -> bool:
        """Return whether `for` or `keep_firing_for` is running."""
        return not self.is_active or self.cleared_ns is not None

    def skip_time(self, passed_ns: int) -> bool:
        """Exclude `passed_ns`, the time since the previous tick, from both timers; return whether one is running."""
        if not self.is_active:
            self.breached_since_ns += passed_ns
        elif self.cleared_ns is not None:
            self.cleared_ns += passed_ns
        else:
            return False
        return True

    def mark_breached(self, at_ns: int, for_ns: int, *, is_held: bool = False) -> None:
        """Record that the condition is true: a pending severity may become active, an active one stops clearing.

        `is_held`: a pending severity stays pending, however long it is true.
        """
        self.cleared_ns = None
        self.is_active = self.is_active or (at_ns - self.breached_since_ns >= for_ns and not is_held)

    def add_tick(self, hits: Hits, *, is_hit: bool) -> bool:
        """Add a tick of a rule with `hits`; return whether enough of its newest ticks are hits."""
        self.recent_hits = (self.recent_hits << 1 | is_hit) & ((1 << hits.ticks) - 1)
        return hits.are_met(self.recent_hits)

    def mark_cleared(self, at_ns: int, keep_firing_for_ns: int) -> bool:
        """Record that the condition is false; return whether the severity is inactive now."""
        if not self.is_active:
            return not self.recent_hits
        if self.cleared_ns is None:
            self.cleared_ns = at_ns
        return at_ns - self.cleared_ns >= keep_firing_for_ns

    def to_json(self) -> dict[str, Any]:
        """Return a document for `json` and `from_json`."""
        return {
            "breached_since_ns": self.breached_since_ns,
            "is_active": self.is_active,
            "cleared_ns": self.cleared_ns,
            "recent_hits": self.recent_hits,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any], boottime_shift_ns: int) -> Self:
        """Return the timer that `to_json` wrote, its times moved by `boottime_shift_ns`."""
        cleared_ns = document["cleared_ns"]
        return cls(
            document["breached_since_ns"] + boottime_shift_ns,
            document["is_active"],
            None if cleared_ns is None else cleared_ns + boottime_shift_ns,
            document.get("recent_hits", 0),  # not in files of version 0.1.0
        )
