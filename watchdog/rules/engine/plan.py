"""The evaluation plan: windows and other parts of rules, each made once for all rules that need it.

A part is kept over reloads while a rule needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar, cast

import numpy as np

from watchdog.measure.catalogue import LISTENING, METRICS, TRAFFIC_METRICS, MetricKind
from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers
from watchdog.rules.engine.aggregations import Aggregation, MetricAccumulator, MetricBounds
from watchdog.rules.engine.arithmetic import Bounds, evaluate_expression, time_power
from watchdog.rules.engine.counted_slots import CountedSlots
from watchdog.rules.engine.distinct import DistinctCount, DistinctValues
from watchdog.rules.engine.groups import GroupScope, GroupSlots
from watchdog.rules.engine.long_window import LongWindow
from watchdog.rules.engine.missing import MissingAccumulator, MissingAmounts, MissingSum
from watchdog.rules.engine.order_statistics import OrderStatistic, OrderStatisticWindow
from watchdog.rules.engine.view import View
from watchdog.rules.engine.window import RecentTicks, WindowCoverage, WindowSum, tick_weight_ms
from watchdog.rules.language.expression import (
    Expression,
    MetricReference,
    ValueCount,
    is_linear,
    leading_metric,
    metrics_of,
)
from watchdog.rules.language.rule import MAX_SHORT_WINDOW_NS, Condition, Rule, StatKind

_NEWEST_NS = 1  # a window that holds the newest tick and no other
_PER_SECOND = (StatKind.RATE, StatKind.MEAN, StatKind.LAST)  # of counters
_ORDER_STATISTICS = (StatKind.MAX, StatKind.MIN, StatKind.PERCENTILE)

_ENDPOINT = frozenset(("local", "local_port"))
_EACH_CONNECTION = ("closes", "open")  # every connection is open, or ends, in its tick
_SUMS, _CURRENT, _COUNTS = "sums", "current", "counts"  # parts of a metric; current: late traffic spread over time

_Part = TypeVar(
    "_Part",
    GroupSlots,
    View,
    WindowCoverage,
    WindowSum,
    RecentTicks,
    MetricAccumulator,
    OrderStatisticWindow,
    DistinctValues,
    DistinctCount,
    CountedSlots,
    LongWindow,
    Aggregation,
    MissingAccumulator,
    MissingSum,
)


_Accumulator = (
    MetricAccumulator | OrderStatisticWindow | DistinctValues | CountedSlots | LongWindow | MissingAccumulator
)
Evaluation = Aggregation | OrderStatistic | DistinctCount | LongWindow
"""The part with the values that a rule's levels are compared with."""


class EvaluationPlan:
    """Parts by their definition. A part without history is made anew at each reload, which is cheap."""

    def __init__(self, before: EvaluationPlan | None = None) -> None:
        """Start without parts; take them from the plan `before` where it has them."""
        self._before = before._made if before is not None else {}  # noqa: SLF001 - of its own kind
        self._made: dict[tuple[object, ...], object] = {}
        self._by_kind: dict[type, tuple[object, ...]] = {}  # of `parts_of_type`, which each tick asks often

    def evaluation(self, rule: Rule) -> Evaluation:
        """Return the part that holds the values of the rule's metric."""
        view = self._view(rule)
        if isinstance(rule.metric, MetricReference) and rule.stat.kind is StatKind.DISTINCT:
            return self._distinct_count(view, rule.metric.metric, rule.stat.dimension, rule.window_ns)
        if isinstance(rule.metric, MetricReference) and rule.stat.kind is StatKind.COUNT:
            return self._aggregation(view, ValueCount(rule.metric.metric), None, rule.window_ns)
        if rule.stat.kind in _ORDER_STATISTICS:
            window = self._order_statistic_window(rule, view)
            return OrderStatistic(window, rule.stat, self._coverage(rule.window_ns))
        window_ns = _NEWEST_NS if rule.stat.kind is StatKind.LAST else rule.window_ns
        return self._aggregation(view, rule.metric, rule.stat.kind, window_ns)

    def only_if_aggregation(self, rule: Rule) -> Aggregation | None:
        """Return the part with the left side of the rule's `only_if`: sums, newest gauges, numbers of values."""
        return self._aggregation(self._view(rule), rule.only_if.left, None, rule.window_ns) if rule.only_if else None

    def missing_rows(self, rule: Rule) -> MissingSum:
        """Return the part with the number of ticks in which rows of a group can be lost."""
        return self._missing_ticks(self._view(rule), _EACH_CONNECTION, min(rule.window_ns, MAX_SHORT_WINDOW_NS))

    def long_window(self, rule: Rule) -> LongWindow:
        """Return the part that holds the values of a rule with a long window."""
        view, read = self._view(rule), None
        if rule.stat.kind in _ORDER_STATISTICS:
            read = view.newest_values
        key = (LongWindow, rule.id, view, rule.evaluation_key)
        return self._get(
            key,
            lambda: LongWindow(rule, view, lambda: evaluate_expression(rule.metric, read or view.sums)),
            lasting=True,
        )

    def counted_slots(self, rule: Rule) -> CountedSlots:
        """Return the part with the groups that something of the rule's metric was measured for."""
        view, metric = self._view(rule), min(metrics_of(rule.metric))
        return self._get((CountedSlots, rule.id, view, metric), lambda: CountedSlots(view, metric), lasting=False)

    def drop_unused(self) -> None:
        """Drop the parts of the former plan that no rule needs."""
        self._before = {}

    def parts_of_type(self, kind: type[_Part]) -> Iterator[_Part]:
        """Yield every part of a kind, in the order in which they were made."""
        if kind not in self._by_kind:
            self._by_kind[kind] = tuple(part for part in self._made.values() if isinstance(part, kind))
        return iter(cast("tuple[_Part, ...]", self._by_kind[kind]))

    def accumulators(self) -> Iterator[_Accumulator]:
        """Yield the parts that take the newest tick from their views, each after those that it reads."""
        yield from self.parts_of_type(MetricAccumulator)
        yield from self.parts_of_type(OrderStatisticWindow)
        yield from self.parts_of_type(DistinctValues)
        yield from self.parts_of_type(CountedSlots)
        yield from self.parts_of_type(LongWindow)
        yield from self.parts_of_type(MissingAccumulator)

    def _get(self, key: tuple[object, ...], make: Callable[[], _Part], *, lasting: bool) -> _Part:
        if key not in self._made:
            self._made[key] = self._before[key] if lasting and key in self._before else make()
            self._by_kind.clear()
        return cast("_Part", self._made[key])

    def _view(self, rule: Rule) -> View:
        scope = _group_scope(rule)
        groups = self._get((GroupSlots, rule.by, scope), lambda: GroupSlots(rule.by, scope=scope), lasting=True)
        key = View, groups, rule.where, rule.exclusions
        return self._get(key, lambda: View(groups, rule.where, rule.exclusions), lasting=True)

    def _coverage(self, window_ns: int) -> WindowCoverage:
        return self._get((WindowCoverage, window_ns), lambda: WindowCoverage(window_ns), lasting=True)

    def _total(self, view: View, metric: str, part: str, window_ns: int) -> WindowSum:
        """Return the window sums of `metric`, or the numbers of its values."""
        key = (view, metric, part)
        read = {_SUMS: view.sums, _CURRENT: view.current_sums, _COUNTS: view.counts}[part]

        def make() -> MetricAccumulator:
            recent = self._recent(view, metric, part)
            if part == _CURRENT:
                return MetricAccumulator(view, lambda: read(metric), recent, lambda: view.earlier_sums(metric))
            return MetricAccumulator(view, lambda: read(metric), recent)

        accumulator = self._get((MetricAccumulator, *key), make, lasting=False)
        total = self._get((WindowSum, *key, window_ns), lambda: WindowSum(window_ns), lasting=True)
        accumulator.windows[window_ns] = total
        return total

    def _recent(self, view: View, metric: str, part: str) -> RecentTicks:
        return self._get((RecentTicks, view, metric, part), RecentTicks, lasting=True)

    def _missing(self, view: View, metrics: Iterable[str], window_ns: int) -> MissingSum:
        """Return the amounts of `metrics` that the window can miss: of gauges times the weight of each tick."""
        names = tuple(sorted(metrics))
        accumulator = self._get(
            (MissingAccumulator, view, names),
            lambda: MissingAccumulator(lambda: _missing_in_tick(view, names)),
            lasting=False,
        )
        total = self._get((MissingSum, view, names, window_ns), lambda: MissingSum(window_ns), lasting=True)
        accumulator.windows[window_ns] = total
        return total

    def _missing_ticks(self, view: View, metrics: Iterable[str], window_ns: int) -> MissingSum:
        """Return the number of ticks in the window that can miss something of `metrics`."""
        names = tuple(sorted(metrics))
        accumulator = self._get(
            (MissingAccumulator, "ticks", view, names),
            lambda: MissingAccumulator(lambda: _has_missing(view, names)),
            lasting=False,
        )
        total = self._get((MissingSum, "ticks", view, names, window_ns), lambda: MissingSum(window_ns), lasting=True)
        accumulator.windows[window_ns] = total
        return total

    def _order_statistic_window(self, rule: Rule, view: View) -> OrderStatisticWindow:
        counts = None
        if isinstance(rule.metric, MetricReference) and METRICS[rule.metric.metric].kind is MetricKind.DISTRIBUTION:
            counts = self._total(view, rule.metric.metric, _COUNTS, rule.window_ns)
        if counts is None:
            missing = self._missing_ticks(view, metrics_of(rule.metric), rule.window_ns)
        else:
            missing = self._missing(view, metrics_of(rule.metric), rule.window_ns)
        return self._get(
            (OrderStatisticWindow, view, rule.metric, rule.window_ns),
            lambda: OrderStatisticWindow(view, rule.metric, rule.window_ns, counts, missing),
            lasting=True,
        )

    def _distinct_count(self, view: View, metric: str, dimension: str, window_ns: int) -> DistinctCount:
        key = (view, metric, dimension)
        values = self._get((DistinctValues, *key), lambda: DistinctValues(view, metric, dimension), lasting=True)
        values.keep_for(window_ns)
        left_out = self._get(
            (MissingAccumulator, "distinct", *key),
            lambda: MissingAccumulator(lambda: (view.grouped.snapshot.at_ns, view.groups.capacity, values.missing)),
            lasting=False,
        )
        total = self._get((MissingSum, "distinct", *key, window_ns), lambda: MissingSum(window_ns), lasting=True)
        left_out.windows[window_ns] = total
        missing = (self._missing(view, (metric,), window_ns), total)
        return self._get(
            (DistinctCount, *key, window_ns),
            lambda: DistinctCount(values, self._coverage(window_ns), missing),
            lasting=False,
        )

    def _aggregation(
        self, view: View, expression: Expression, statistic: StatKind | None, window_ns: int
    ) -> Aggregation:
        """Return `expression` of the window's `statistic`; None: the volume, for `only_if`."""
        metrics = metrics_of(expression)
        power = time_power(expression) if statistic in _PER_SECOND and not any(map(_is_no_counter, metrics)) else None
        # A common power of time is divided once, at the end: ratios of whole numbers stay exact.
        each = statistic if power is None else StatKind.SUM
        parts = {
            metric: _CURRENT if statistic in _PER_SECOND and metric in TRAFFIC_METRICS else _SUMS for metric in metrics
        }
        readers = {metric: self._reader(view, metric, each, window_ns, parts[metric]) for metric in metrics}

        bounds_readers = {
            metric: self._bounds_reader(view, metric, each, window_ns, readers[metric]) for metric in metrics
        }
        bounds = MetricBounds(
            lambda metric, slots: bounds_readers[metric](slots),
            [self._missing(view, (metric,), window_ns) for metric in sorted(metrics)],
        )

        volume = self._volume(view, expression, statistic, window_ns, readers)

        def make() -> Aggregation:
            recents = {(metric, _COUNTS): self._recent(view, metric, _COUNTS) for metric in metrics}
            recents |= {(metric, _SUMS): self._recent(view, metric, parts[metric]) for metric in metrics}
            return Aggregation(
                view,
                expression,
                self._coverage(window_ns),
                lambda metric: readers[metric](),
                bounds,
                lambda metric, part: recents[metric, part],
                power or 0,
                "volume" if each is None else each.value,
                volume,
            )

        return self._get((Aggregation, view, expression, statistic, window_ns), make, lasting=False)

    def _volume(
        self,
        view: View,
        expression: Expression,
        statistic: StatKind | None,
        window_ns: int,
        readers: Mapping[str, Callable[[], Numbers]],
    ) -> Callable[[], Numbers] | None:
        """Return a function that reads the size behind each value: the part of a ratio, the number behind a mean."""
        leading = leading_metric(expression)
        if leading is None or statistic is None:
            return None
        if METRICS[leading].kind is MetricKind.DISTRIBUTION:
            counts = self._total(view, leading, _COUNTS, window_ns)
            return None if statistic is StatKind.SUM else lambda: counts.sums[: view.groups.size]
        return None if is_linear(expression) else readers[leading]

    def _reader(
        self, view: View, metric: str, statistic: StatKind | None, window_ns: int, part: str
    ) -> Callable[[], Numbers]:
        """Return a function that reads the statistic of one metric for each slot of the view."""
        match METRICS[metric].kind:
            case MetricKind.COUNTER:
                return self._counter(view, metric, statistic, window_ns, part)
            case MetricKind.GAUGE:
                return self._gauge(view, metric, _NEWEST_NS if statistic is None else window_ns)
            case MetricKind.DISTRIBUTION:
                return self._distribution(view, metric, statistic, window_ns)

    def _bounds_reader(
        self, view: View, metric: str, statistic: StatKind | None, window_ns: int, read: Callable[[], Numbers]
    ) -> Callable[[Slots], Bounds]:
        """Return a function that reads bounds of the statistic of one metric, for slots of the view."""
        if METRICS[metric].kind is MetricKind.DISTRIBUTION:
            return self._distribution_bounds(view, metric, statistic, window_ns, read)
        gauge = METRICS[metric].kind is MetricKind.GAUGE
        length_ns = _NEWEST_NS if gauge and statistic is None else window_ns
        missing, coverage = self._missing(view, (metric,), length_ns), self._coverage(length_ns)

        def bounds(slots: Slots) -> Bounds:
            low = read()[slots]
            summed = not gauge and (statistic is None or statistic is StatKind.SUM)
            divisor = coverage.mean_weight if gauge else 1 if summed else coverage.rate_seconds
            return low, low + missing.amounts(slots) / divisor

        return bounds

    def _distribution_bounds(
        self, view: View, metric: str, statistic: StatKind | None, window_ns: int, read: Callable[[], Numbers]
    ) -> Callable[[Slots], Bounds]:
        """Return a function that reads bounds of a distribution, where values of any size of 0 or more are missing."""
        missing, counts = self._missing(view, (metric,), window_ns), self._total(view, metric, _COUNTS, window_ns)

        def bounds(slots: Slots) -> Bounds:
            values, lost = read()[slots], missing.amounts(slots)
            if statistic is None:
                return values, values + lost
            n = counts.sums[slots]
            low = np.nan_to_num(values)
            if statistic is not StatKind.SUM:
                low = np.where(np.isinf(lost), 0, low * n / np.maximum(n + lost, 1))
            return np.where(lost > 0, low, values), np.where(lost > 0, np.inf, values)

        return bounds

    def _counter(
        self, view: View, metric: str, statistic: StatKind | None, window_ns: int, part: str
    ) -> Callable[[], Numbers]:
        total, coverage = self._total(view, metric, part, window_ns), self._coverage(window_ns)
        if statistic is None or statistic is StatKind.SUM:
            return lambda: total.sums[: view.groups.size]
        return lambda: total.sums[: view.groups.size] / coverage.rate_seconds

    def _gauge(self, view: View, metric: str, window_ns: int) -> Callable[[], Numbers]:
        total, coverage = self._total(view, metric, _SUMS, window_ns), self._coverage(window_ns)
        return lambda: total.sums[: view.groups.size] / coverage.mean_weight

    def _distribution(
        self, view: View, metric: str, statistic: StatKind | None, window_ns: int
    ) -> Callable[[], Numbers]:
        counts = self._total(view, metric, _COUNTS, window_ns)
        if statistic is None:
            return lambda: counts.sums[: view.groups.size]
        total = self._total(view, metric, _SUMS, window_ns)

        def read() -> Numbers:
            size = view.groups.size
            n = counts.sums[:size]
            values: Numbers = total.sums[:size] / 1e9 / np.where(statistic is StatKind.SUM, 1, np.maximum(n, 1))
            return np.where(n > 0, values, np.nan)

        return read


def _group_scope(rule: Rule) -> GroupScope | None:
    """Return the rows that can make groups for a rule, None for all: of novelty, and of the ports of listeners."""
    if rule.novelty is not None:
        return GroupScope(rule.where, min(metrics_of(rule.metric)))
    metrics = metrics_of(rule.metric) | (metrics_of(rule.only_if.left) if rule.only_if is not None else frozenset())
    if not _ENDPOINT.isdisjoint(rule.by) and all(METRICS[metric].states == LISTENING for metric in metrics):
        return GroupScope((Condition("state", any_of=LISTENING),))
    return None


def _missing_in_tick(view: View, metrics: tuple[str, ...]) -> tuple[int, int, MissingAmounts]:
    """Return the arguments of `MissingSum.push` for the newest tick."""
    snapshot, missing = view.grouped.snapshot, view.missing(metrics)
    if METRICS[metrics[0]].kind is MetricKind.GAUGE:
        weight = max(tick_weight_ms(snapshot.elapsed_ns), 1)
        missing = MissingAmounts(missing.slots, missing.amounts * weight, missing.everywhere * weight)
    return snapshot.at_ns, view.groups.capacity, missing


def _has_missing(view: View, metrics: tuple[str, ...]) -> tuple[int, int, MissingAmounts]:
    """Return the arguments of `MissingSum.push` for the newest tick: 1 for each slot that can miss something."""
    snapshot, missing = view.grouped.snapshot, view.missing(metrics)
    everywhere = float(missing.everywhere > 0) + snapshot.quality.lost_samples
    return snapshot.at_ns, view.groups.capacity, MissingAmounts(missing.slots, np.ones(len(missing.slots)), everywhere)


def _is_no_counter(metric: str) -> bool:
    return METRICS[metric].kind is not MetricKind.COUNTER
