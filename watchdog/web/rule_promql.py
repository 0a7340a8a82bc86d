"""One rule as PromQL over the series of `/metrics`.

The value of a rule over its window is a query. Where Prometheus can only come near it, `notes` has the difference.
Prometheus has no levels to clear: an alert that fires is found in its own series `ALERTS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final

from watchdog.clock import SECOND_NS
from watchdog.measure.catalogue import METRICS, MetricKind
from watchdog.rules.language.expression import (
    Constant,
    Expression,
    MetricReference,
    Operation,
    ValueCount,
    is_share_of_same_ticks,
    leading_metric,
    metrics_of,
    value_without_rows,
)
from watchdog.rules.language.rule import Absent, Rule, Severity, StatKind
from watchdog.web import promql
from watchdog.web.rule_series import PAIR, InexpressibleRule, Selectors, selectors, series_of
from watchdog.web.traffic_totals import BOUNDS

_RATE_SCRAPES: Final = 4  # in the range of a rate, as Prometheus recommends: two can be missing
_GAUGE_SCRAPES: Final = 2
_MUTING_SHARE: Final = "0.5"  # as `rules/engine/muting.py`
_LIFE_LABELS: Final = ("alertname", "alertstate", "severity")
_Operand = Callable[[str], str]
_EXTREMES: Final = {StatKind.MAX: "max_over_time", StatKind.MIN: "min_over_time"}


class RuleQuery:
    """The queries of one rule for a server that scrapes each `scrape_ns`. `notes`: differences from the rule."""

    def __init__(self, rule: Rule, scrape_ns: int) -> None:
        """Translate the value of `rule`.

        Raises:
            InexpressibleRule: with the reason.
        """
        self.rule = rule
        self._scrape_ns = scrape_ns
        self._notes: dict[str, None] = {}
        self._refuse_memory()
        gate = frozenset[str]() if rule.only_if is None else metrics_of(rule.only_if.left)
        for metric in sorted(metrics_of(rule.metric) | gate):
            self._refuse_missing_labels(metric)
        self._value = "" if self._is_extreme_of_values else self._translate_value()

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the differences between rule and queries so far, in the order in which they were found."""
        return tuple(self._notes)

    def condition(self, severity: Severity, narrower: Sequence[Rule] = ()) -> str:
        """Return the query for the groups that fire with `severity`.

        `narrower`: the rules of `unless_firing` that are evaluated beside it.

        Raises:
            InexpressibleRule: with the reason.
        """
        fire, clear = self.rule.thresholds.fire[severity], self.rule.thresholds.clear[severity]
        query = self._beyond(fire, or_equal=False)
        if share := self._reported_share(narrower):
            query = f"{query}\nunless {share}"
        above = self.rule.thresholds.above
        if clear != math.nextafter(fire, math.inf if above else -math.inf):
            firing = _firing(self.rule, f', severity="{severity.label}"')
            labels = ", ".join(_life_labels(self.rule))
            query = f"({query})\nor ({self._beyond(clear, or_equal=True)} and ignoring ({labels}) {firing})"
        if not above and self.rule.by:
            query = f"({query})\nand {self._presence}"
        if self.rule.only_if is not None:
            gate = self._combine(self.rule.only_if.left, self._gate_operand)
            query = f"({query})\nand {gate} {self.rule.only_if.operator} {promql.number(self.rule.only_if.right)}"
        return query

    # ----------------------------------------------------------------------------------------------- what is refused

    def _refuse_memory(self) -> None:
        rule = self.rule
        if rule.baseline is not None:
            raise InexpressibleRule("baseline: its limits are learnt by the daemon")
        if rule.novelty is not None:
            raise InexpressibleRule("novelty: the daemon remembers the combinations of values")
        if rule.hits is not None:
            raise InexpressibleRule("hits: it counts ticks, of which Prometheus sees one per scrape")
        if rule.by and rule.absent is not Absent.RESOLVE:
            raise InexpressibleRule(f"absent: after {rule.absent.value} a restart of the daemon would end the alert")
        if rule.has_long_window and rule.stat.kind in _EXTREMES:
            raise InexpressibleRule(f"stat: {rule.stat.text} over more than 1h costs Prometheus too much")

    def _refuse_missing_labels(self, metric: str) -> None:
        series = series_of(metric)
        missing = [name for name in self.rule.by if name not in series.labels]
        if missing:
            raise InexpressibleRule(f"by: {series.name} has no label {missing[0]}")

    # ------------------------------------------------------------------------------------------- the value of a rule

    @property
    def _is_extreme_of_values(self) -> bool:
        """Return whether the value is the greatest or least of a distribution: known by the bounds of buckets only."""
        return self._distribution is not None and self.rule.stat.kind in _EXTREMES

    @cached_property
    def _distribution(self) -> str | None:
        match self.rule.metric:
            case MetricReference(name) if METRICS[name].kind is MetricKind.DISTRIBUTION:
                return name
            case _:
                return None

    def _translate_value(self) -> str:
        stat = self.rule.stat
        if stat.kind is StatKind.DISTINCT:
            return self._distinct(stat.dimension)
        if self._distribution is not None:
            return self._of_distribution(self._distribution)
        match stat.kind:
            case StatKind.MAX | StatKind.MIN:
                self._note("the greatest or least value of a scrape, not of a tick")
                window = self._window(_GAUGE_SCRAPES)
                return self._over_time(_EXTREMES[stat.kind], self._combine(self.rule.metric, self._moment), window)
            case StatKind.LAST:
                return self._combine(self.rule.metric, self._moment)
            case StatKind.SUM:
                return self._combine(self.rule.metric, self._amount)
            case _:
                return self._combine(self.rule.metric, self._mean)

    def _of_distribution(self, metric: str) -> str:
        stat, name = self.rule.stat, series_of(metric).name
        match stat.kind:
            case StatKind.PERCENTILE:
                bounds = ", ".join(map(promql.number, BOUNDS[metric]))
                self._note(f"percentiles are interpolated between the bounds {bounds}")
                rates = self._aggregate(metric, f"rate({name}_bucket%s[{self._range}])")
                return f"histogram_quantile({promql.number(stat.percentile / 100)}, {rates})"
            case StatKind.COUNT:
                return self._aggregate(metric, *self._increase(f"{name}_count"))
            case StatKind.SUM:
                return self._aggregate(metric, *self._increase(f"{name}_sum"))
            case _:
                sums, counts = (
                    self._aggregate(metric, f"rate({name}_{end}%s[{self._range}])") for end in ("sum", "count")
                )
                return f"({sums} / {counts})"

    def _distinct(self, dimension: str) -> str:
        metric = leading_metric(self.rule.metric) or ""
        series = series_of(metric)
        if not isinstance(self.rule.metric, MetricReference) or dimension not in series.labels:
            raise InexpressibleRule(f"stat: {series.name} has no label {dimension}")
        if METRICS[metric].kind is MetricKind.DISTRIBUTION:
            vector = f"increase({series.name}_count%s[{self._range}])"
        elif METRICS[metric].kind is MetricKind.GAUGE:
            vector = f"max_over_time({series.name}%s[{self._window(_GAUGE_SCRAPES)}])"
        else:
            vector = f"increase({series.name}%s[{self._range}])"
        kept = (*self.rule.by, dimension)
        present = f"{self._sum_without(self._selectors(metric).vector(lambda one: vector % one), metric, kept)} > 0"
        return self._with_zeros(f"count without ({dimension}) ({present})", metric)

    def _combine(self, expression: Expression, operand: _Operand) -> str:
        """Return an expression with each metric translated by `operand(metric)`."""
        match expression:
            case MetricReference(metric):
                return operand(metric)
            case ValueCount(metric):
                return self._aggregate(metric, *self._increase(f"{series_of(metric).name}_count"))
            case Constant(value):
                return promql.number(value)
        left, right = self._combine(expression.left, operand), self._combine(expression.right, operand)
        if expression.operator == "/":
            right = self._divisor(expression, right)
        return f"({left} {expression.operator} {right})"

    def _divisor(self, quotient: Operation, text: str) -> str:
        """Return the divisor `text` of a quotient, which counts as 1 where it is 0."""
        if not metrics_of(quotient.right):
            return promql.number(value_without_rows(quotient.right) or 1.0)
        if is_share_of_same_ticks(quotient) and self.rule.thresholds.above:
            return text  # 0 of 0 is NaN, which breaches no level either
        return f"({text} != 0 or {text} + 1)"

    # -------------------------------------------------------------------------------------- the series of one metric

    def _moment(self, metric: str) -> str:
        """Return the present value of a gauge, or the rate of a counter between the newest two scrapes."""
        name = series_of(metric).name
        if METRICS[metric].kind is MetricKind.GAUGE:
            return self._aggregate(metric, f"{name}%s")
        self._note("rates of one tick are those between two scrapes")
        return self._aggregate(metric, f"irate({name}%s[{promql.duration(_RATE_SCRAPES * self._scrape_ns)}])")

    def _mean(self, metric: str) -> str:
        name = series_of(metric).name
        if METRICS[metric].kind is MetricKind.GAUGE:
            return self._over_time("avg_over_time", self._moment(metric), self._window(_GAUGE_SCRAPES))
        return self._aggregate(metric, f"rate({name}%s[{self._range}])")

    def _amount(self, metric: str) -> str:
        return self._aggregate(metric, *self._increase(series_of(metric).name))

    def _gate_operand(self, metric: str) -> str:
        return self._moment(metric) if METRICS[metric].kind is MetricKind.GAUGE else self._amount(metric)

    def _increase(self, name: str) -> tuple[str, str]:
        """Return the increase of a counter in the window, and its factor where the range is longer."""
        if self._window(_RATE_SCRAPES) == promql.duration(self.rule.window_ns):
            return f"increase({name}%s[{self._range}])", ""
        return f"rate({name}%s[{self._range}])", f" * {promql.number(self.rule.window_ns / SECOND_NS)}"

    def _aggregate(self, metric: str, vector: str, factor: str = "") -> str:
        """Return the sum of a vector, with "%s" for its selector, over the labels that are not in `by`."""
        text = self._sum_without(self._selectors(metric).vector(lambda one: vector % one), metric, self.rule.by)
        text = f"({text}{factor})" if factor else text
        return self._with_zeros(text, metric)

    def _sum_without(self, text: str, metric: str, kept: Sequence[str], more: Sequence[str] = ()) -> str:
        dropped = [*(label for label in series_of(metric).labels if label not in kept), *more]
        return f"sum without ({', '.join(dropped)}) ({text})" if dropped else text

    def _with_zeros(self, text: str, metric: str) -> str:
        """Return `text` with 0 for groups that have no series of `metric` yet, where 0 can decide."""
        is_read = isinstance(self.rule.metric, Operation) or self.rule.only_if is not None
        if series_of(metric).is_permanent or not set(self.rule.by) <= set(PAIR):
            return text
        if METRICS[metric].kind is MetricKind.DISTRIBUTION or (self.rule.thresholds.above and not is_read):
            return text
        return f"({text} or 0 * {self._permanent})"

    @cached_property
    def _permanent(self) -> str:
        """Return a vector with an element for each group that has a series at all."""
        return self._of_names("listeners", lambda one: one)

    def _of_names(self, metric: str, vector: _Operand) -> str:
        """Return the sum of `vector(series)` by group, of all series that meet the conditions on process and unit."""
        counted = selectors(self.rule, leading_metric(self.rule.metric) or "").counted
        names = Selectors(tuple(one for one in counted if one.startswith(PAIR)), ())
        text = names.vector(lambda one: vector(f"{series_of(metric).name}{one}"))
        return self._sum_without(text, metric, self.rule.by)

    # ------------------------------------------------------------------------------------------------ the conditions

    def _beyond(self, level: float, *, or_equal: bool) -> str:
        """Return the groups with a value beyond `level`, and their values."""
        mark = (">" if self.rule.thresholds.above else "<") + ("=" if or_equal else "")
        if self._distribution is None:
            return f"{self._value} {mark} {promql.number(level)}"
        bounds = BOUNDS[self._distribution]
        if self.rule.stat.kind in _EXTREMES:
            return self._extreme_beyond(self._distribution, self._bound(level, bounds, is_exact=not or_equal))
        if self.rule.stat.kind is StatKind.PERCENTILE and level >= bounds[-1] and mark == ">":
            raise InexpressibleRule(f"fire_above: the last bound of the buckets is {promql.number(bounds[-1])}")
        return f"{self._value} {mark} {promql.number(level)}"

    def _bound(self, level: float, bounds: Sequence[float], *, is_exact: bool) -> float:
        """Return the bound of a bucket for a level of the greatest or least value."""
        kind, above = self.rule.stat.kind, self.rule.thresholds.above
        if above is not (kind is StatKind.MAX):
            raise InexpressibleRule(f"stat: buckets know the {kind.value} of values on one side of a level only")
        if is_exact and level not in bounds:
            listed = ", ".join(map(promql.number, bounds))
            raise InexpressibleRule(f"stat: {promql.number(level)} is no bound of the buckets: {listed}")
        return min(one for one in bounds if one >= level) if above else max(one for one in bounds if one <= level)

    def _extreme_beyond(self, metric: str, bound: float) -> str:
        """Return the groups with values beyond the bound of a bucket in the window; their values are bounds too."""
        self._note("the greatest or least value is the bound of its bucket")
        name, window = series_of(metric).name, self._window(_RATE_SCRAPES)
        rates = self._aggregate(metric, f"rate({name}_bucket%s[{self._range}])")
        whole = promql.number(bound)
        up_to = self._selectors(metric).with_matcher(f'le=~"{whole.replace(".", "[.]")}([.]0)?"')
        within = self._sum_without(up_to.vector(lambda one: f"{name}_bucket{one}"), metric, self.rule.by, ("le",))
        if self.rule.thresholds.above:
            count = self._selectors(metric).vector(lambda one: f"{name}_count{one}")
            within = f"{self._sum_without(count, metric, self.rule.by)} - {within}"
        quantile = 1 if self.rule.thresholds.above else 0
        # Of one counter, so that the extrapolation of two rates makes no difference where there is none.
        values = f"increase(({within})[{window}:{promql.duration(self._scrape_ns)}])"
        return f"(histogram_quantile({quantile}, {rates}) and {values} > 0)"

    def _reported_share(self, narrower: Sequence[Rule]) -> str:
        """Return the groups of which at least half belongs to alerts of `narrower`, "" without such rules."""
        metric = leading_metric(self.rule.metric) or ""
        series = series_of(metric)
        parts = []
        for rule in narrower:
            labels = [*_life_labels(rule), *(label for label in series.labels if label not in rule.by)]
            parts.append(f"({self._amounts(metric)} and ignoring ({', '.join(labels)}) {_firing(rule)})")
        if not parts:
            return ""
        reported = self._sum_without(" or ".join(parts), metric, self.rule.by)
        return f"{reported} >= {_MUTING_SHARE} * {self._sum_without(self._amounts(metric), metric, self.rule.by)}"

    def _amounts(self, metric: str) -> str:
        """Return the amount of each series in the window."""
        name, kind = series_of(metric).name, METRICS[metric].kind
        if kind is MetricKind.GAUGE:
            return self._selectors(metric).vector(
                lambda one: f"avg_over_time({name}{one}[{self._window(_GAUGE_SCRAPES)}])"
            )
        end = "_count" if kind is MetricKind.DISTRIBUTION else ""
        return self._selectors(metric).vector(lambda one: f"rate({name}{end}{one}[{self._range}])")

    @property
    def _presence(self) -> str:
        """Return the groups that had connections or listeners lately: their series go on after them."""
        rule = self.rule
        names = {*rule.by, *(one.dimension for one in rule.where)}
        if not names <= set(PAIR) or rule.exceptions:
            raise InexpressibleRule("fire_below: with these conditions, the series do not show which groups exist")
        window = promql.duration(max(rule.absent_for_ns, _RATE_SCRAPES * self._scrape_ns))
        self._note(f"a group ends when no scrape has shown a connection for {window}")
        listeners, connections = (
            self._of_names(metric, lambda one: f"max_over_time({one}[{window}])") for metric in ("listeners", "open")
        )
        ended = self._of_names("closes", lambda one: f"increase({one}[{window}])")
        return f"{listeners} + ({connections} or 0 * {self._permanent}) + {ended} > 0"

    # ------------------------------------------------------------------------------------------------------- windows

    @property
    def _range(self) -> str:
        return self._window(_RATE_SCRAPES)

    def _window(self, scrapes: int) -> str:
        """Return the window of the rule, or the time of so many scrapes where that is longer."""
        window_ns = max(self.rule.window_ns, scrapes * self._scrape_ns)
        if window_ns > self.rule.window_ns:
            window, scrape = promql.duration(self.rule.window_ns), promql.duration(self._scrape_ns)
            self._note(f"window {promql.duration(window_ns)} instead of {window}: {scrapes} scrapes, one each {scrape}")
        return promql.duration(window_ns)

    def _over_time(self, function: str, text: str, window: str) -> str:
        return f"{function}(({text})[{window}:{promql.duration(self._scrape_ns)}])"

    def _selectors(self, metric: str) -> Selectors:
        return selectors(self.rule, metric)

    def _note(self, text: str) -> None:
        self._notes[text] = None


def _life_labels(rule: Rule) -> list[str]:
    """Return the labels of the alerts of a rule that its groups do not have."""
    return [*_LIFE_LABELS, *(name for name, _ in rule.labels)]


def _firing(rule: Rule, matcher: str = "") -> str:
    return f'ALERTS{{alertname="{rule.id}", alertstate="firing"{matcher}}}'
