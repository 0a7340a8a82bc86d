"""Order statistics: `max`, `min` and percentiles of the single values in a window.

A value belongs to a connection (distributions) or to a tick (counters per second, gauges; arithmetic is done tick by
tick, and a tick without a row of the group counts as 0). Percentiles are by nearest rank: the smallest value that at
least p % of the values do not exceed, always a measured one.

Running counts of the values beyond a threshold give the groups beyond it, so that a tick costs only its own values; the
value itself is computed only for groups with a verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers
from watchdog.rules.engine.aggregations import MetricReading
from watchdog.rules.engine.arithmetic import Bounds, evaluate_expression, never_overestimates
from watchdog.rules.engine.missing import MissingSum
from watchdog.rules.engine.selection import Mask
from watchdog.rules.engine.view import View
from watchdog.rules.engine.window import (
    SampleWindow,
    TickSamples,
    TickValues,
    WindowCoverage,
    WindowSum,
    pack_tick_values,
)
from watchdog.rules.language.expression import (
    Expression,
    MetricReference,
    metrics_of,
    never_negative,
    value_without_rows,
)
from watchdog.rules.language.rule import Stat, StatKind

_MAX_SORTED_VALUES = 50_000  # to find the worst group exactly: some ms, which no tick waits for longer
_MAX_CANDIDATES = 256
_WITHOUT_BOUND = 2.0**40  # more values than a window can have
_ROUNDING = 1e-9  # of n * p / 100, which may exceed its whole number a little


class OrderStatisticWindow:
    """The single values of one window, and the number of them beyond each threshold."""

    def __init__(
        self, view: View, expression: Expression, window_ns: int, counts: WindowSum | None, missing: MissingSum
    ) -> None:
        """Start empty; `counts`: the number of values by slot for a distribution, None where each tick is one value.

        `missing`: the number of values that are lost, or of ticks with a value that can be too low.
        """
        self.metrics = tuple(sorted(metrics_of(expression)))
        self.missing = missing
        self.least_value = 0.0 if never_negative(expression) else -np.inf
        self.never_overestimates = counts is None and never_overestimates(expression)
        self.view = view
        self.value_counts = counts
        self.absent_value = value_without_rows(expression)
        self.samples = SampleWindow(window_ns)
        self._expression = expression
        self._beyond: dict[tuple[float, bool], WindowSum] = {}

    def add_newest_tick(self) -> None:
        """Add the newest tick."""
        new = self._newest()
        self.samples.push(new)
        for (threshold, above), window in self._beyond.items():
            window.push(self._count(new, threshold, above=above), self.view.groups.capacity)

    def set_thresholds(self, thresholds: Iterable[tuple[float, bool]]) -> None:
        """Count the values above (True) or below (False) each of `thresholds`, back over the window, and no others."""
        before, self._beyond = self._beyond, {}
        for threshold, above in thresholds:
            self._beyond[threshold, above] = before.get((threshold, above)) or self._counted(threshold, above=above)

    def _counted(self, threshold: float, *, above: bool) -> WindowSum:
        window = WindowSum(self.samples.window_ns)
        for samples in self.samples.entries:
            window.push(self._count(samples, threshold, above=above), self.view.groups.capacity)
        return window

    def count_beyond(self, threshold: float, ticks: int, *, above: bool) -> Numbers:
        """Return for each slot the number of values above (below) `threshold`, one of those in `set_thresholds`."""
        hits = self._beyond[threshold, above].sums[: self.view.groups.size]
        return hits + ticks if self.is_absent_value_beyond(threshold, above=above) else hits

    def _newest(self) -> TickSamples:
        grouped = self.view.grouped
        if isinstance(self._expression, MetricReference) and self.value_counts is not None:
            return TickSamples(grouped.snapshot.at_ns, *self.view.samples(self._expression.metric))
        values = np.broadcast_to(
            evaluate_expression(self._expression, self.view.newest_values), (len(grouped.present_slots),)
        )
        return TickSamples(grouped.snapshot.at_ns, grouped.present_slots, values)

    def is_absent_value_beyond(self, threshold: float, *, above: bool) -> bool:
        """Return whether a tick without rows of a group is beyond the threshold."""
        return self.absent_value > threshold if above else self.absent_value < threshold

    def _count(self, samples: TickSamples, threshold: float, *, above: bool) -> TickValues:
        """Count the values of one tick beyond `threshold` by slot, relative to a group without rows."""
        beyond = samples.values > threshold if above else samples.values < threshold
        if self.is_absent_value_beyond(threshold, above=above):
            slots = samples.slots[~beyond]
            return pack_tick_values(samples.at_ns, slots, np.full(len(slots), -1.0))
        slots, hits = _runs(samples.slots[beyond])
        return pack_tick_values(samples.at_ns, slots, hits)


def _runs(slots: Slots) -> tuple[Slots, Numbers]:
    """Return the distinct `slots`, which are in rising order, and the number of each."""
    firsts = np.flatnonzero(np.diff(slots, prepend=-1))
    return slots[firsts], np.diff(firsts, append=len(slots)).astype(np.float64)


def _greatest(values: Numbers) -> NDArray[np.intp]:
    """Return the indices of the greatest of `values`, in any order."""
    if len(values) <= _MAX_CANDIDATES:
        return np.arange(len(values))
    return np.argpartition(-values, _MAX_CANDIDATES)[:_MAX_CANDIDATES]


class OrderStatistic:
    """`max`, `min` and percentiles: the k-th smallest of the n values in the window."""

    def __init__(self, window: OrderStatisticWindow, stat: Stat, coverage: WindowCoverage) -> None:
        """Read `window`, which is as long as the window of `coverage`."""
        self.view = window.view
        self.coverage = coverage
        self.window = window
        self._stat = stat

    def slots_beyond(self, threshold: float, *, above: bool, window_filled: bool) -> Slots:
        """Return the slots with a value above (below) `threshold`."""
        hits = self.window.count_beyond(threshold, self.coverage.tick_count, above=above)
        counts = self.window.value_counts
        if counts is None:
            # Ticks before the first one count as a tick without rows.
            hits = hits + (not window_filled) * self.window.is_absent_value_beyond(threshold, above=above)
        slots = np.flatnonzero(hits).astype(
            np.int32
        )  # k is at least 1, so each slot that reaches it has a value beyond
        n = (
            counts.sums[slots]
            if counts is not None
            else np.full(len(slots), float(self.coverage.tick_count + (not window_filled)))
        )
        k = self._rank(n)
        return slots[hits[slots] > n - k if above else hits[slots] >= k]

    def values(self, slots: Slots, *, window_filled: bool) -> Numbers:
        """Return the values of `slots`; NaN where nothing was measured."""
        owner, values = self.window.samples.values_of(slots)
        counts = np.bincount(owner, minlength=len(slots))
        first = np.cumsum(counts) - counts
        found = np.full(len(slots), np.nan)
        some = counts > 0
        rank = self._rank(counts[some].astype(np.float64)).astype(np.int64)
        found[some] = values[first[some] + rank - 1]
        if self.window.value_counts is not None:
            return found
        missed = (counts < self.coverage.tick_count) | (not window_filled)
        worst = np.fmax if self._stat.kind is StatKind.MAX else np.fmin
        return np.where(missed, worst(found, self.window.absent_value), found)

    def volumes(self, slots: Slots) -> Numbers | None:
        """Return the number of values of a distribution behind those of `slots`; None for values of ticks."""
        counts = self.window.value_counts
        return None if counts is None else counts.sums[slots]

    @property
    def is_exact(self) -> bool:
        """Return whether nothing is missing in the window: bounds are the values."""
        return self.window.missing.is_empty

    def bounds(self, slots: Slots, *, window_filled: bool) -> Bounds:
        """Return the least and the greatest values that `slots` can have, as the window may miss something.

        m lost values shift the rank by at most m.
        """
        found = self.values(slots, window_filled=window_filled)
        if self.is_exact:
            return found, found
        lost = self._lost(slots)
        owner, values = self.window.samples.values_of(slots)
        low, high = found.copy(), found.copy()
        for index in np.flatnonzero(lost).tolist():
            of_slot = self._with_absent_ticks(values[owner == index], window_filled=window_filled)
            low[index], high[index] = self._shifted(of_slot, lost[index])
        return low, high

    def _lost(self, slots: Slots) -> Numbers:
        """Return for each of `slots` the number of lost values, or of ticks with a value that can be too low."""
        return np.minimum(self.window.missing.amounts(slots), _WITHOUT_BOUND)

    def _with_absent_ticks(self, values: Numbers, *, window_filled: bool) -> Numbers:
        """Return `values`, in rising order, with the value of each tick without rows."""
        if self.window.value_counts is not None:
            return values
        if np.isnan(self.window.absent_value):
            return values
        absent = self.coverage.tick_count + (not window_filled) - len(values)
        return np.sort(np.concatenate([values, np.full(max(absent, 0), self.window.absent_value)]))

    def _shifted(self, values: Numbers, lost: float) -> tuple[float, float]:
        """Return the least and the greatest possible statistic of `values`, in rising order, and `lost` other ones."""
        n = len(values)
        least, greatest = self._lost_ranks(np.array([float(n)]), np.array([lost]))
        low = float(values[int(least[0]) - 1]) if least[0] >= 1 else self.window.least_value
        high = float(values[int(greatest[0]) - 1]) if greatest[0] <= n else np.inf
        return low, high

    def _lost_ranks(self, n: Numbers, lost: Numbers) -> tuple[Numbers, Numbers]:
        """Return the least and the greatest rank among the n known values that the statistic can have.

        Below 1: less than all known values; above n: more than all. Values of a distribution come on top of the known
        ones, those of ticks are among them.
        """
        if self.window.value_counts is not None:
            rank = self._rank(n + lost)
            return rank - lost, rank
        rank = self._rank(n)
        return rank if self.window.never_overestimates else rank - lost, rank + lost

    def slots_maybe_beyond(self, threshold: float, *, above: bool, window_filled: bool) -> Slots:
        """Return the slots with a value that may be above (below) `threshold`, one of those in `set_thresholds`."""
        ticks = self.coverage.tick_count + (not window_filled)
        hits = self.window.count_beyond(threshold, ticks, above=above)
        counts = self.window.value_counts
        n = np.full(len(hits), float(ticks)) if counts is None else counts.sums[: len(hits)]
        lost = self._lost(np.arange(len(hits), dtype=np.int32))
        least, greatest = self._lost_ranks(n, lost)
        beyond = (hits > n - greatest) | (greatest > n) if above else (hits >= least)
        return np.flatnonzero(beyond & ((n > 0) | (lost > 0))).astype(np.int32)

    def readings(self, slot: int, tick: Mapping[int, int]) -> list[MetricReading]:
        """Return the number of values of `slot` in the window, as `Aggregation.readings`."""
        _, values = self.window.samples.values_of(np.array([slot], dtype=np.int32))
        newest = self.history(slot, tick)
        value = float(newest[-1]) if len(newest) else None
        return [
            MetricReading(
                metric, "number of values", float(len(values)), value if len(self.window.metrics) == 1 else None
            )
            for metric in self.window.metrics
        ]

    def has_values(self, slots: Slots, threshold: float, *, above: bool) -> Mask:
        """Return a mask of the slots with values in the window; where ticks are values, with those beyond `threshold`.

        `threshold`: one of those in `set_thresholds`.
        """
        if self.window.value_counts is not None:
            return np.asarray(self.window.value_counts.sums[slots] > 0)
        return np.asarray(self.window.count_beyond(threshold, 0, above=above)[slots] > 0)

    def narrow(self, slots: Slots, threshold: float, *, above: bool) -> Slots:
        """Return those of `slots` among which the worst is sought: a few, where the window has very many values.

        They are those with the most values beyond `threshold`, one of those in `set_thresholds`, and those with the
        worst single values of the newest ticks.
        """
        entries = list(self.window.samples.entries)
        if sum(len(entry.slots) for entry in entries) <= _MAX_SORTED_VALUES:
            return slots
        hits = self.window.count_beyond(threshold, self.coverage.tick_count, above=above)[slots]
        chosen = [slots[_greatest(hits)]]
        read = 0
        for entry in reversed(entries):
            chosen.append(entry.slots[_greatest(entry.values if above else -entry.values)])
            read += len(entry.slots)
            if read > _MAX_SORTED_VALUES:
                break
        candidates = np.concatenate(chosen)
        is_candidate = np.zeros(max(slots.max(initial=0), candidates.max(initial=0)) + 1, dtype=np.bool_)
        is_candidate[candidates] = True
        return slots[is_candidate[slots]]

    def history(self, slot: int, elapsed_ns: Mapping[int, int]) -> Numbers:
        """Return the statistic of `slot` in each tick of the window alone, as `Aggregation.history`."""
        found = []
        for samples in self.window.samples.entries:
            if samples.at_ns in elapsed_ns:
                _, values = samples.values_of(np.array([slot], dtype=np.int32))
                rank = int(self._rank(np.array([float(len(values))]))[0])
                found.append(float(np.sort(values)[rank - 1]) if len(values) else self.window.absent_value)
        return np.array(found)

    def _rank(self, n: Numbers) -> Numbers:
        """Return k, counted from 1, of the statistic's value among n."""
        match self._stat.kind:
            case StatKind.MAX:
                return n
            case StatKind.MIN:
                return np.ones(len(n))
            case _:
                return np.maximum(np.ceil(n * self._stat.percentile / 100 - _ROUNDING), 1)
