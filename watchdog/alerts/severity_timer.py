"""The timers of one severity of one instance: `for` and `keep_firing_for`.

    inactive ──true──► pending ──true for `for`──► active ──false for `keep_firing_for`──► inactive
        ▲                 │                          ▲  │
        └──── false ──────┘                          └──┘ true: `keep_firing_for` starts again

Unknown is neither true nor false: the state stays, and the time until the next complete tick counts for neither timer.
The time between two ticks belongs to the later one. Times are CLOCK_BOOTTIME in ns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self


@dataclass(slots=True)
class SeverityTimer:
    """Timer of a severity that is pending or active; an inactive severity has none.

    `breached_since_ns`: when the condition became true; `cleared_ns`: when it became false while active, None while it
    is true.
    """

    breached_since_ns: int
    is_active: bool = False
    cleared_ns: int | None = None

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

    def mark_breached(self, at_ns: int, for_ns: int) -> None:
        """Record that the condition is true: a pending severity may become active, an active one stops clearing."""
        self.cleared_ns = None
        self.is_active = self.is_active or at_ns - self.breached_since_ns >= for_ns

    def mark_cleared(self, at_ns: int, keep_firing_for_ns: int) -> bool:
        """Record that the condition is false; return whether the severity is inactive now."""
        if not self.is_active:
            return True
        if self.cleared_ns is None:
            self.cleared_ns = at_ns
        return at_ns - self.cleared_ns >= keep_firing_for_ns

    def to_json(self) -> dict[str, Any]:
        """Return a document for `json` and `from_json`."""
        return {"breached_since_ns": self.breached_since_ns, "is_active": self.is_active, "cleared_ns": self.cleared_ns}

    @classmethod
    def from_json(cls, document: dict[str, Any], boottime_shift_ns: int) -> Self:
        """Return the timer that `to_json` wrote, its times moved by `boottime_shift_ns`."""
        cleared_ns = document["cleared_ns"]
        return cls(
            document["breached_since_ns"] + boottime_shift_ns,
            document["is_active"],
            None if cleared_ns is None else cleared_ns + boottime_shift_ns,
        )
