"""Hours of local time, and which of them were measured whole.

The wall clock decides, because people and cron jobs live by it; it may step, and its zone may change. A stretch of
ticks in one hour is whole if ticks that follow each other closely cover nine tenths of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

HOUR_SECONDS: Final = 3_600
_MAX_STEP_SECONDS = 360  # between two ticks; more is a gap
_WHOLE_SECONDS = 0.9 * HOUR_SECONDS


@dataclass(frozen=True, slots=True)
class EndedHour:
    """An hour that ended: `number`, counted in local time since 1970, and whether it was measured whole."""

    number: int
    is_whole: bool


class HourClock:
    """The hour that the newest tick belongs to."""

    def __init__(self) -> None:
        """Start before the first tick."""
        self.number: int | None = None
        self.covered_seconds = 0.0
        self.seconds_into = 0.0
        self._local_seconds: float | None = None

    def resume(self, number: int, covered_seconds: float) -> None:
        """Go on in the hour `number`, of which `covered_seconds` were measured before a restart."""
        self.number, self.covered_seconds, self._local_seconds = number, covered_seconds, None

    def advance(self, local_seconds: float, *, is_measured: bool) -> EndedHour | None:
        """Take the time of a tick, in seconds of local time since 1970; return the hour that ended before it, if any.

        `is_measured`: the values of the tick count.
        """
        number = math.floor(local_seconds / HOUR_SECONDS)
        self.seconds_into = local_seconds - number * HOUR_SECONDS
        step = 0.0 if self._local_seconds is None else local_seconds - self._local_seconds
        counted = step if is_measured and 0 < step <= _MAX_STEP_SECONDS else 0.0
        self._local_seconds = local_seconds
        if number == self.number:
            self.covered_seconds += counted
            return None
        ended = None
        if self.number is not None:
            before = max(counted - self.seconds_into, 0.0)
            ended = EndedHour(self.number, self.covered_seconds + before >= _WHOLE_SECONDS)
        self.number, self.covered_seconds = number, min(counted, self.seconds_into)
        return ended
