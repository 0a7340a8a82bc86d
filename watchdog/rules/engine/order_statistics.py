"""Order statistics: `max`, `min` and percentiles of the single values in a window.

A value is a connection's (distributions) or a tick's (counters per second, gauges; arithmetic is done tick by tick,
and a tick in which a group had no row counts as 0). Percentiles are by nearest rank: the smallest value that at least p
% of the values do not exceed, always one that was measured.

Which groups are beyond a threshold is known from running counts of the values beyond it, so that a tick costs only what
it carries; the value itself is looked up for the few groups that someone will hear of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers
from watchdog.rules.engine.aggregations import value_without_rows
from watchdog.rules.engine.arithmetic import evaluate_expression
from watchdog.rules.engine.view import View
from watchdog.rules.engine.window import (
    SampleWindow,
    TickSamples,
    TickValues,
    WindowCoverage,
    WindowSum,
    pack_tick_values,
)
from watchdog.rules.language.expression import Expression, MetricReference
from watchdog.rules.language.rule import Stat, StatKind

_ROUNDING = 1e-9  # of n * p / 100, which may come out a little above the whole number that it is


class OrderStatisticWindow:
    """The single values of one window that order statistics look at, and how many of them lie beyond each threshold."""

    def __init__(self, view: View, expression: Expression, window_ns: int, counts: WindowSum | None) -> None:
        """Make one; `counts` has the number of values by slot if they are a distribution's, else each tick is one."""
        self.view = view
        self.value_counts = counts
        self.absent_value = value_without_rows(expression)
        self.samples = SampleWindow(window_ns)
        self._expression = expression
        self._hits: dict[tuple[float, bool], WindowSum] = {}

    def add_newest_tick(self) -> None:
        """Take in the newest tick."""
        new = self._newest()
        self.samples.push(new)
        for (threshold, above), window in self._hits.items():
            window.push(self._count(new, threshold, above=above), self.view.groups.capacity)

    def set_thresholds(self, thresholds: Iterable[tuple[float, bool]]) -> None:
        """Count the values above (True) or below (False) each of `thresholds`, back over the window, and no others."""
        before, self._hits = self._hits, {}
        for threshold, above in thresholds:
            self._hits[threshold, above] = before.get((threshold, above)) or self._counted(threshold, above=above)

    def _counted(self, threshold: float, *, above: bool) -> WindowSum:
        window = WindowSum(self.samples.window_ns)
        for samples in self.samples.entries:
            window.push(self._count(samples, threshold, above=above), self.view.groups.capacity)
        return window

    def count_beyond(self, threshold: float, ticks: int, *, above: bool) -> Numbers:
        """Return for each slot how many values of the window are above (below) `threshold`, which is being watched."""
        hits = self._hits[threshold, above].sums[: self.view.groups.size]
        return hits + ticks if self.is_absent_value_beyond(threshold, above=above) else hits

    def _newest(self) -> TickSamples:
        frame = self.view.grouped
        if isinstance(self._expression, MetricReference) and self.value_counts is not None:
            return TickSamples(frame.snapshot.at_ns, *self.view.samples(self._expression.metric))
        values = np.broadcast_to(
            evaluate_expression(self._expression, self.view.newest_values), (len(frame.present_slots),)
        )
        return TickSamples(frame.snapshot.at_ns, frame.present_slots, values)

    def is_absent_value_beyond(self, threshold: float, *, above: bool) -> bool:
        """Tell whether a tick without rows of a group is beyond the threshold too."""
        return self.absent_value > threshold if above else self.absent_value < threshold

    def _count(self, samples: TickSamples, threshold: float, *, above: bool) -> TickValues:
        """Count the hits of one tick by slot, relative to those of a group that was not there."""
        beyond = samples.values > threshold if above else samples.values < threshold
        if self.is_absent_value_beyond(threshold, above=above):
            slots = samples.slots[~beyond]
            return pack_tick_values(samples.at_ns, slots, np.full(len(slots), -1.0))
        slots, hits = _runs(samples.slots[beyond])
        return pack_tick_values(samples.at_ns, slots, hits)


def _runs(slots: Slots) -> tuple[Slots, Numbers]:
    """Return the distinct ones of `slots`, which are in rising order, and how often each is there."""
    firsts = np.flatnonzero(np.diff(slots, prepend=-1))
    return slots[firsts], np.diff(firsts, append=len(slots)).astype(np.float64)


class OrderStatistic:
    """`max`, `min` and percentiles: the k-th smallest of the n values in the window."""

    def __init__(self, ranking: OrderStatisticWindow, stat: Stat, span: WindowCoverage) -> None:
        """Make one over `ranking`, whose window is that of `span`."""
        self.view = ranking.view
        self.coverage = span
        self.ranking = ranking
        self._stat = stat

    def slots_beyond(self, threshold: float, *, above: bool, window_filled: bool) -> Slots:
        """Return the slots whose value is above (below) `threshold`."""
        hits = self.ranking.count_beyond(threshold, self.coverage.tick_count, above=above)
        counts = self.ranking.value_counts
        if counts is None:
            # Ticks before the first one count as a tick without rows.
            hits = hits + (not window_filled) * self.ranking.is_absent_value_beyond(threshold, above=above)
        slots = np.flatnonzero(hits).astype(np.int32)  # k is 1 at least, and so are the hits of those who reach it
        n = (
            counts.sums[slots]
            if counts is not None
            else np.full(len(slots), float(self.coverage.tick_count + (not window_filled)))
        )
        k = self._rank(n)
        return slots[hits[slots] > n - k if above else hits[slots] >= k]

    def values(self, slots: Slots, *, window_filled: bool) -> Numbers:
        """Return the values of `slots`; NaN where there was nothing to measure."""
        owner, values = self.ranking.samples.values_of(slots)
        counts = np.bincount(owner, minlength=len(slots))
        first = np.cumsum(counts) - counts
        found = np.full(len(slots), np.nan)
        some = counts > 0
        rank = self._rank(counts[some].astype(np.float64)).astype(np.int64)
        found[some] = values[first[some] + rank - 1]
        if self.ranking.value_counts is not None:
            return found
        missed = (counts < self.coverage.tick_count) | (not window_filled)
        worst = np.fmax if self._stat.kind is StatKind.MAX else np.fmin
        return np.where(missed, worst(found, self.ranking.absent_value), found)

    def history(self, slot: int, elapsed_ns: Mapping[int, int]) -> Numbers:
        """Return the statistic of `slot` in each tick of the window alone, as `Combined.history` does."""
        found = []
        for samples in self.ranking.samples.entries:
            if samples.at_ns in elapsed_ns:
                _, values = samples.values_of(np.array([slot], dtype=np.int32))
                rank = int(self._rank(np.array([float(len(values))]))[0])
                found.append(float(np.sort(values)[rank - 1]) if len(values) else self.ranking.absent_value)
        return np.array(found)

    def _rank(self, n: Numbers) -> Numbers:
        """Return k, counted from 1, of the value that the statistic takes out of n."""
        match self._stat.kind:
            case StatKind.MAX:
                return n
            case StatKind.MIN:
                return np.ones(len(n))
            case _:
                return np.maximum(np.ceil(n * self._stat.percentile / 100 - _ROUNDING), 1)
