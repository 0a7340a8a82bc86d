"""Aggregations: a rule's `stat` of its `metric` from window sums, for all groups at once.

`rate`, `sum`, `mean` and `last` are taken of each metric first and combined after: the rate of `a / b` is the rate of
a divided by the rate of b, so time cancels. `last` is the mean over the newest tick alone. The mean of a counter is its
rate; the mean of a gauge weighs ticks by their length. `order_statistics.py` has the other stats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from watchdog.clock import SECOND_NS
from watchdog.measure.catalogue import METRICS, MetricKind
from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers
from watchdog.rules.engine.arithmetic import Bounds, evaluate_bounds, evaluate_expression
from watchdog.rules.engine.missing import MissingSum
from watchdog.rules.engine.selection import Mask
from watchdog.rules.engine.view import View
from watchdog.rules.engine.window import (
    RecentTicks,
    TickValues,
    WindowCoverage,
    WindowSum,
    has_begun,
    pack_tick_values,
    tick_weight_ms,
)
from watchdog.rules.language.expression import Expression, ValueCount, metrics_of


@dataclass(frozen=True, slots=True)
class MetricBounds:
    """`read` returns the bounds of a metric's stat for slots; they are wider than a point where `missing` has sums."""

    read: Callable[[str, Slots], Bounds]
    missing: Sequence[MissingSum]


@dataclass(frozen=True, slots=True)
class MetricReading:
    """One metric in one group, as it enters the rule's value.

    `window`: its `statistic` over the rule's window. `newest`: in the newest tick alone, a counter per second; None if
    unknown.
    """

    metric: str
    statistic: str
    window: float
    newest: float | None


class MetricAccumulator:
    """Adds one metric of a view into its windows, tick by tick."""

    def __init__(
        self,
        view: View,
        per_tick: Callable[[], Numbers],
        recent: RecentTicks,
        earlier: Callable[[], Sequence[TickValues]] = tuple,
    ) -> None:
        """Start without windows; `per_tick` returns a whole number for each group present in the newest snapshot.

        `earlier` returns values that the newest snapshot adds to ticks before it.
        """
        self._earlier = earlier
        self.view = view
        self._per_tick = per_tick
        self._recent = recent
        self.windows: dict[int, WindowSum] = {}

    def add_newest_tick(self) -> None:
        """Add the newest tick to each window."""
        grouped, groups = self.view.grouped, self.view.groups
        new = pack_tick_values(grouped.snapshot.at_ns, grouped.present_slots, self._per_tick())
        self._recent.push(new)
        earlier = self._earlier()
        for window in self.windows.values():
            window.push(new, groups.capacity, earlier)


class Aggregation:
    """`rate`, `sum`, `mean`, `last`, and the number of values: window sums of each metric, arithmetic after."""

    def __init__(
        self,
        view: View,
        expression: Expression,
        coverage: WindowCoverage,
        read: Callable[[str], Numbers],
        bounds: MetricBounds,
        recent: Callable[[str, str], RecentTicks],
        time_power: int = 0,
        statistic: str = "sum",
        volume: Callable[[], Numbers] | None = None,
    ) -> None:
        """Combine metrics by `expression`.

        `read` returns `statistic` of a metric for each slot of the view, to be divided by time^`time_power`; `bounds`
        its bounds. `recent` returns the newest ticks of a metric's "sums" or "counts". `volume`: see `volumes`.
        """
        self._statistic = statistic
        self.view = view
        self.coverage = coverage
        self._expression = expression
        self._read = read
        self._bounds = bounds
        self._recent = recent
        self._time_power = time_power
        self._volume = volume
        self._values: Numbers | None = None

    def release(self) -> None:
        """Release the values of this tick: other rules need their memory."""
        self._values = None

    def slots_beyond(self, threshold: float, *, above: bool, window_filled: bool) -> Slots:  # noqa: ARG002 - sums divide right anyway
        """Return the slots with a value above (below) `threshold`."""
        values = self._current()
        return np.flatnonzero(values > threshold if above else values < threshold).astype(np.int32)

    def values(self, slots: Slots, *, window_filled: bool) -> Numbers:  # noqa: ARG002 - as above
        """Return the values of `slots`; NaN where nothing was measured."""
        return self._current()[slots]

    def values_by_slot(self) -> Numbers:
        """Return the values of all slots below the size of the groups, as `values`."""
        return self._current()

    def volumes(self, slots: Slots) -> Numbers | None:
        """Return the size behind the values of `slots`; None where the values are sizes themselves."""
        return None if self._volume is None else self._volume()[slots]

    @property
    def is_exact(self) -> bool:
        """Return whether nothing is missing in the window: bounds are the values."""
        return all(missing.is_empty for missing in self._bounds.missing)

    def bounds(self, slots: Slots, *, window_filled: bool) -> Bounds:
        """Return the least and the greatest values that `slots` can have, as the window may miss something."""
        if self.is_exact:
            values = self.values(slots, window_filled=window_filled)
            return values, values
        low, high = evaluate_bounds(self._expression, lambda metric: self._bounds.read(metric, slots))
        divisor = self.coverage.rate_seconds**self._time_power
        return np.broadcast_to(low / divisor, len(slots)), np.broadcast_to(high / divisor, len(slots))

    def slots_maybe_beyond(self, threshold: float, *, above: bool, window_filled: bool) -> Slots:
        """Return the slots with a value that may be above (below) `threshold`."""
        low, high = self.bounds(np.arange(self.view.groups.size, dtype=np.int32), window_filled=window_filled)
        return np.flatnonzero(high > threshold if above else low < threshold).astype(np.int32)

    def readings(self, slot: int, tick: Mapping[int, int]) -> list[MetricReading]:
        """Return the parts of the value of `slot`; `tick`: as `elapsed_ns` of `history`, of the newest tick alone."""
        readings = []
        for metric in sorted(metrics_of(self._expression)):
            newest = self._tick_values(metric, slot, tick)
            window = float(self._read(metric)[slot])
            readings.append(MetricReading(metric, self._statistic, window, float(newest[-1]) if len(newest) else None))
        return readings

    def history(self, slot: int, elapsed_ns: Mapping[int, int]) -> Numbers:
        """Return the value of `slot` in each of the newest ticks alone, the oldest first; NaN for no measurement.

        `elapsed_ns`: the measured time in ns of each tick to return, by the tick's time.
        """
        values_of = {metric: self._tick_values(metric, slot, elapsed_ns) for metric in metrics_of(self._expression)}
        reach = min(len(values) for values in values_of.values())
        if not reach:
            return np.zeros(0)
        values = evaluate_expression(self._expression, lambda metric: values_of[metric][-reach:])
        return np.broadcast_to(values, (reach,))

    def newest_alone(self, elapsed_ns: int) -> Numbers:
        """Return by slot the value if every tick of the window was like the newest one, which took `elapsed_ns`."""
        rate_seconds, is_count = self.coverage.rate_seconds, isinstance(self._expression, ValueCount)
        ticks = rate_seconds * SECOND_NS / elapsed_ns

        def read(metric: str) -> Numbers:
            if is_count:
                return self._newest(metric, "counts") * ticks
            sums, kind = self._newest(metric, "sums"), METRICS[metric].kind
            if kind is MetricKind.GAUGE:
                return sums / max(tick_weight_ms(elapsed_ns), 1)
            is_sum = self._statistic == "sum"
            if kind is MetricKind.COUNTER:
                return sums * ticks if is_sum else sums * SECOND_NS / elapsed_ns
            counts = self._newest(metric, "counts")
            return sums / SECOND_NS * ticks if is_sum else sums / SECOND_NS / np.maximum(counts, 1)

        values = evaluate_expression(self._expression, read) / rate_seconds**self._time_power
        return np.broadcast_to(values, (self.view.groups.size,))

    def has_begun(self) -> Mask:
        """Return a mask by slot: groups with something of the metrics in the newest tick, and none in that before."""
        part = "counts" if isinstance(self._expression, ValueCount) else "sums"
        ticks = [self._recent(metric, part) for metric in sorted(metrics_of(self._expression))]
        return has_begun(ticks, self.view.groups.size)

    def _newest(self, metric: str, part: str) -> Numbers:
        return self._recent(metric, part).by_slot(self.view.groups.size)

    def _tick_values(self, metric: str, slot: int, elapsed_ns: Mapping[int, int]) -> Numbers:
        def read(part: str) -> Numbers:
            return np.array(
                [one.value_of(slot) for one in self._recent(metric, part).entries if one.at_ns in elapsed_ns]
            )

        if isinstance(self._expression, ValueCount):
            return read("counts")
        sums = read("sums")
        if METRICS[metric].kind is MetricKind.DISTRIBUTION:
            counts = read("counts")
            return np.where(counts > 0, sums / 1e9 / np.maximum(counts, 1), np.nan)
        times = [elapsed_ns[one.at_ns] for one in self._recent(metric, "sums").entries if one.at_ns in elapsed_ns]
        gauge = METRICS[metric].kind is MetricKind.GAUGE
        return np.asarray(sums / np.array([max(tick_weight_ms(one), 1) if gauge else one / 1e9 for one in times]))

    def _current(self) -> Numbers:
        if self._values is None:
            values = evaluate_expression(self._expression, self._read)
            if self._time_power:
                values = values / self.coverage.rate_seconds**self._time_power
            self._values = np.broadcast_to(values, (self.view.groups.size,))
        return self._values
