"""The times of an alert by CLOCK_BOOTTIME: the wall clock may step between its start, its end and a notification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from watchdog.clock import SECOND_NS, Now

_MAX_SLEW_SECONDS = 1.0  # a smaller difference is no step: the time that was noted stays, so that copies are equal


@dataclass(frozen=True, slots=True)
class Boottimes:
    """CLOCK_BOOTTIME in ns of `started`, `fired` and `resolved` of an alert, of the present boot."""

    started_ns: int
    fired_ns: int
    resolved_ns: int | None = None

    @property
    def duration_seconds(self) -> float | None:
        """Return the seconds from start to end, None without an end."""
        return None if self.resolved_ns is None else (self.resolved_ns - self.started_ns) / SECOND_NS

    def shifted(self, boottime_shift_ns: int) -> Self:
        """Return the times of a former boot as times of this one."""
        resolved_ns = None if self.resolved_ns is None else self.resolved_ns + boottime_shift_ns
        return type(self)(self.started_ns + boottime_shift_ns, self.fired_ns + boottime_shift_ns, resolved_ns)

    def to_json(self) -> list[int | None]:
        """Return a document for `json` and `from_json`."""
        return [self.started_ns, self.fired_ns, self.resolved_ns]

    @classmethod
    def from_json(cls, document: Sequence[Any] | None) -> Self | None:
        """Return the times that `to_json` wrote, None without any."""
        if document is None:
            return None
        started_ns, fired_ns, resolved_ns = document
        return cls(int(started_ns), int(fired_ns), None if resolved_ns is None else int(resolved_ns))


def wall_time(at_ns: int, noted: float, present: Now) -> float:
    """Return `at_ns` of CLOCK_BOOTTIME on the wall clock as it is at `present`; `noted`: as it was at that time."""
    derived = present.wall - (present.boottime_ns - at_ns) / SECOND_NS
    return noted if abs(derived - noted) <= _MAX_SLEW_SECONDS else derived
