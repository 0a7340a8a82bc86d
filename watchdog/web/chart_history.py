"""The values of the rules over the last hours, for the charts of the status page.

Memory is bounded: `MAX_CHARTS` rules with `POINTS` points of 16 bytes, 1.7 MB; a rule has its share from its first
value on.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watchdog.clock import SECOND_NS

POINT_SECONDS: Final = 30
POINTS: Final = 360
"""Three hours."""
MAX_CHARTS: Final = 300
"""Rules with a chart: the first ones in the order of their files."""

_POINT_NS: Final = POINT_SECONDS * SECOND_NS
_COLUMNS = 4  # value, limit of a warning, limit of a critical alert, usual value


@dataclass(frozen=True, slots=True)
class RuleReading:
    """The worst group of a rule at one moment, in the metric's unit; NaN where there is no such number.

    `usual`: the reference of a baseline.
    """

    value: float
    warning: float = math.nan
    critical: float = math.nan
    usual: float = math.nan


@dataclass(frozen=True, slots=True)
class ChartSeries:
    """The points of one rule, (POINTS,) each, oldest first, the last one of the present `POINT_SECONDS`.

    NaN: nothing was measured, or no such limit. `above`: whether the rule fires above its limits.
    """

    above: bool
    values: NDArray[np.float32]
    warning: NDArray[np.float32]
    critical: NDArray[np.float32]
    usual: NDArray[np.float32]


class ChartHistory:
    """Keeps the worst value of each `POINT_SECONDS` for each rule. Any thread may call every method."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._tracks: dict[str, _Track] = {}

    def retain_only(self, rule_ids: Collection[str]) -> None:
        """Forget the rules that are not in `rule_ids`."""
        with self._lock:
            self._tracks = {rule_id: track for rule_id, track in self._tracks.items() if rule_id in rule_ids}

    def add(self, at_ns: int, rule_id: str, definition: object, reading: RuleReading, *, above: bool) -> None:
        """Add a reading at `at_ns` of CLOCK_BOOTTIME; a rule whose `definition` has changed begins anew."""
        with self._lock:
            track = self._tracks.get(rule_id)
            if track is None or track.definition != definition or track.above != above:
                if track is None and len(self._tracks) >= MAX_CHARTS:
                    return
                track = self._tracks[rule_id] = _Track(definition, at_ns // _POINT_NS, above=above)
            track.add(at_ns // _POINT_NS, reading)

    def series(self, rule_id: str, now_ns: int) -> ChartSeries | None:
        """Return the points until `now_ns`; None of a rule without any."""
        with self._lock:
            track = self._tracks.get(rule_id)
            return None if track is None else track.series(now_ns // _POINT_NS)


class _Track:
    # The ring of one rule: the point of number n, time divided by `_POINT_NS`, is at n % POINTS.

    def __init__(self, definition: object, number: int, *, above: bool) -> None:
        self.definition = definition
        self.above = above
        self._newest = number
        self._points = np.full((_COLUMNS, POINTS), np.nan, np.float32)

    def add(self, number: int, reading: RuleReading) -> None:
        self._move_to(number)
        column = self._points[:, self._newest % POINTS]
        is_worse = reading.value > column[0] if self.above else reading.value < column[0]
        if is_worse or math.isnan(column[0]):
            limits = (reading.warning, reading.critical, reading.usual)
            column[:] = reading.value, *(one if math.isfinite(one) else math.nan for one in limits)

    def series(self, number: int) -> ChartSeries:
        self._move_to(number)
        first = (self._newest + 1) % POINTS
        values, warning, critical, usual = np.concatenate([self._points[:, first:], self._points[:, :first]], axis=1)
        return ChartSeries(self.above, values, warning, critical, usual)

    def _move_to(self, number: int) -> None:
        missed = min(number - self._newest, POINTS)
        if missed > 0:
            self._points[:, np.arange(number - missed + 1, number + 1) % POINTS] = np.nan
            self._newest = number
