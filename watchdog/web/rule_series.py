"""The series of `/metrics` that hold a metric of rules, and selectors of them for the conditions of a rule."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from watchdog.measure.catalogue import DIMENSIONS, HOST_METRICS, IMPOSSIBLE_PAIRS, METRICS, OWN_METRICS, MetricKind
from watchdog.measure.interning import OTHER_NAME
from watchdog.routing.label_matching import matches_condition
from watchdog.rules.language.rule import Condition, Rule
from watchdog.web import metric_names, promql

PAIR: Final = ("process", "unit")
_CHOICES: Final = ("direction", "state", "failure")
_EQUALS = ('process="', 'unit="')


class InexpressibleRule(ValueError):
    """PromQL over these series cannot express a rule; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Series:
    """The series of one metric.

    `name`: with its ending; of distributions without `_bucket`, `_sum` and `_count`. `labels`: dimensions that are
    labels. `is_permanent`: each pair of process and unit has one from its begin.
    """

    name: str
    labels: tuple[str, ...] = PAIR
    is_permanent: bool = True


def series_of(metric: str) -> Series:
    """Return the series of a metric of the catalogue."""
    kind = METRICS[metric].kind
    if metric in HOST_METRICS:
        return Series(metric_names.host_name(metric), ())
    if metric in OWN_METRICS:
        is_counter = kind is MetricKind.COUNTER
        return Series(
            f"{metric_names.own_name(metric)}_total" if is_counter else metric_names.own_gauge_name(metric), ()
        )
    if metric == "open":
        return Series(metric_names.OPEN_NAME, (*PAIR, "state"), is_permanent=False)
    match kind:
        case MetricKind.DISTRIBUTION:
            return Series(metric_names.histogram_name(metric), is_permanent=False)
        case MetricKind.GAUGE:
            return Series(metric_names.gauge_name(metric))
        case MetricKind.COUNTER:
            name = f"{metric_names.counter_name(metric)}_total"
            if metric == "connect_failures":
                return Series(name, (*PAIR, "failure"), is_permanent=False)
            return Series(name, is_permanent=not metric.startswith("udp_"))


@dataclass(frozen=True, slots=True)
class Selectors:
    """Selectors of the series of one metric for the rows that a rule counts.

    `counted`: matchers for `where`. `excluded`: for each exception its matchers, and the end of its last day, Unix
    time, None without one.
    """

    counted: tuple[str, ...]
    excluded: tuple[tuple[tuple[str, ...], int | None], ...]

    def with_matcher(self, matcher: str) -> Selectors:
        """Return the same with one more matcher."""
        return Selectors((*self.counted, matcher), self.excluded)

    def vector(self, build: Callable[[str], str]) -> str:
        """Return `build(selector)` without the series of the exceptions; `selector`: "{…}", "" without matchers."""
        text = build(_braces(self.counted))
        for matchers, until in self.excluded:
            excluded = build(_braces((*self.counted, *matchers)))
            if until is not None:
                excluded = f"({excluded} and on () (vector(time()) < {until}))"
            text = f"{text} unless {excluded}"
        return f"({text})" if self.excluded else text


def selectors(rule: Rule, metric: str) -> Selectors:
    """Return the selectors of the series of `metric` for the rows that `rule` counts.

    Raises:
        InexpressibleRule: the series lack a label that a condition needs.
    """
    labels = series_of(metric).labels
    counted = list(_matchers(metric, rule.where, "where"))
    reads_names = any(name in PAIR for name in (*rule.by, *(one.dimension for one in rule.where)))
    if reads_names and "process" in labels and not any(one.startswith(_EQUALS) for one in counted):
        counted.append(f"process!={promql.quote(OTHER_NAME)}")  # many processes, none of which is this large
    excluded = []
    for exception in rule.exceptions:
        if _can_meet(metric, exception.where):
            matchers = tuple(_matchers(metric, exception.where, "except"))
            excluded.append((matchers, exception.end_seconds))
    return Selectors(tuple(counted), tuple(excluded))


def _braces(matchers: Collection[str]) -> str:
    return f"{{{', '.join(matchers)}}}" if matchers else ""


def _matchers(metric: str, conditions: Sequence[Condition], key: str) -> Iterator[str]:
    series = series_of(metric)
    for condition in conditions:
        dimension = condition.dimension
        if dimension in PAIR and dimension in series.labels:
            yield from promql.name_matchers(dimension, condition.any_of, condition.none_of)
        elif dimension in series.labels:
            values = [one for one in METRICS[metric].possible_values(dimension) or () if _meets(condition, one)]
            if not values:
                raise InexpressibleRule(f"{key}: {series.name} never has this {dimension}")
            yield promql.value_matcher(dimension, values)
        elif not _is_met_anyway(metric, condition, conditions):
            raise InexpressibleRule(f"{key}: {series.name} has no label {dimension}")


def _is_met_anyway(metric: str, condition: Condition, conditions: Sequence[Condition]) -> bool:
    """Return whether all connections of `metric` that meet the other conditions on labels meet `condition` too."""
    if condition.dimension not in _CHOICES or condition.dimension in METRICS[metric].missing_dimensions:
        return False
    labels = series_of(metric).labels
    others = [one for one in conditions if one.dimension in labels and one.dimension in _CHOICES]
    return all(
        _meets(condition, row[condition.dimension])
        for row in _possible_rows(metric)
        if all(_meets(one, row[one.dimension]) for one in others)
    )


def _can_meet(metric: str, conditions: Sequence[Condition]) -> bool:
    chosen = [one for one in conditions if one.dimension in _CHOICES]
    return any(all(_meets(one, row[one.dimension]) for one in chosen) for row in _possible_rows(metric))


def _possible_rows(metric: str) -> Iterator[dict[str, str]]:
    """Yield the values of direction, state and failure that a connection of `metric` can have together."""
    columns = [METRICS[metric].possible_values(name) or ("",) for name in _CHOICES]
    for values in product(*columns):
        row = dict(zip(_CHOICES, values, strict=True))
        if not any(row[one] in ones and row[other] in others for one, ones, other, others in IMPOSSIBLE_PAIRS):
            yield row


def _meets(condition: Condition, value: str) -> bool:
    return matches_condition(condition, DIMENSIONS[condition.dimension].kind, value)
