"""How a rule's `stat` of its `metric` is had from windows, for all groups at once.

`rate`, `sum`, `mean` and `last` are taken of each metric first and combined after: the rate of `a / b` is the rate of
a by the rate of b, so time cancels. `last` is the mean over the newest tick alone; the mean of a counter is its rate,
that of a gauge weighs ticks by their length. The others are in `ranking.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from watchdog.measure.catalogue import METRICS, MetricKind
from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers
from watchdog.rules.engine.arithmetic import evaluate_expression
from watchdog.rules.engine.view import View
from watchdog.rules.engine.window import RecentTicks, WindowCoverage, WindowSum, pack_tick_values, tick_weight_ms
from watchdog.rules.language.expression import Expression, metrics_of


class MetricAccumulator:
    """What one metric of a view adds up to, tick by tick, and over each window that someone reads."""

    def __init__(self, view: View, per_tick: Callable[[], Numbers], recent: RecentTicks) -> None:
        """Make one; `per_tick` gives a whole number for each group that the view's newest snapshot holds."""
        self.view = view
        self._per_tick = per_tick
        self._recent = recent
        self.windows: dict[int, WindowSum] = {}

    def add_newest_tick(self) -> None:
        """Take in the newest tick."""
        frame, groups = self.view.grouped, self.view.groups
        new = pack_tick_values(frame.snapshot.at_ns, frame.present_slots, self._per_tick())
        self._recent.push(new)
        for window in self.windows.values():
            window.push(new, groups.capacity)


class Aggregation:
    """`rate`, `sum`, `mean`, `last`, and the number of values: window sums of each metric, arithmetic after."""

    def __init__(
        self,
        view: View,
        expression: Expression,
        span: WindowCoverage,
        read: Callable[[str], Numbers],
        recent: Callable[[str, str], RecentTicks],
        time_power: int = 0,
    ) -> None:
        """Make one; `read` gives a metric's statistic for each slot of the view, to be divided by time^`time_power`.

        `recent` gives the newest ticks of a metric's "sums" or "counts".
        """
        self.view = view
        self.coverage = span
        self._expression = expression
        self._read = read
        self._recent = recent
        self._time_power = time_power
        self._all: Numbers | None = None

    def release(self) -> None:
        """Forget the values: the next tick has others, and their memory is wanted by other rules."""
        self._all = None

    def slots_beyond(self, threshold: float, *, above: bool, window_filled: bool) -> Slots:  # noqa: ARG002 - sums divide right anyway
        """Return the slots whose value is above (below) `threshold`."""
        values = self._current()
        return np.flatnonzero(values > threshold if above else values < threshold).astype(np.int32)

    def values(self, slots: Slots, *, window_filled: bool) -> Numbers:  # noqa: ARG002 - as above
        """Return the values of `slots`; NaN where there was nothing to measure."""
        return self._current()[slots]

    def history(self, slot: int, elapsed_ns: Mapping[int, int]) -> Numbers:
        """Return what `slot` measured in each of the newest ticks alone, the oldest first; NaN where it was nothing.

        `elapsed_ns`: the measured time of each tick to be told, by the tick's time.
        """
        levels = {metric: self._levels(metric, slot, elapsed_ns) for metric in metrics_of(self._expression)}
        reach = min(len(level) for level in levels.values())
        if not reach:
            return np.zeros(0)
        values = evaluate_expression(self._expression, lambda metric: levels[metric][-reach:])
        return np.broadcast_to(values, (reach,))

    def _levels(self, metric: str, slot: int, elapsed_ns: Mapping[int, int]) -> Numbers:
        def read(what: str) -> Numbers:
            return np.array(
                [one.value_of(slot) for one in self._recent(metric, what).entries if one.at_ns in elapsed_ns]
            )

        sums = read("sums")
        if METRICS[metric].kind is MetricKind.DISTRIBUTION:
            counts = read("counts")
            return np.where(counts > 0, sums / 1e9 / np.maximum(counts, 1), np.nan)
        times = [elapsed_ns[one.at_ns] for one in self._recent(metric, "sums").entries if one.at_ns in elapsed_ns]
        gauge = METRICS[metric].kind is MetricKind.GAUGE
        return np.asarray(sums / np.array([max(tick_weight_ms(one), 1) if gauge else one / 1e9 for one in times]))

    def _current(self) -> Numbers:
        if self._all is None:
            values = evaluate_expression(self._expression, self._read)
            if self._time_power:
                values = values / self.coverage.rate_seconds**self._time_power
            self._all = np.broadcast_to(values, (self.view.groups.size,))
        return self._all


def value_without_rows(expression: Expression) -> float:
    """Return the value of `expression` without any rows: distributions have none, all else is 0."""

    def read(metric: str) -> Numbers:
        return np.array([np.nan if METRICS[metric].kind is MetricKind.DISTRIBUTION else 0.0])

    return float(evaluate_expression(expression, read)[0])
