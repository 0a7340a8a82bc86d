"""Values of `direction`, `state` and `failure` that the connections of a rule's metrics can never have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import product

from watchdog.config.document import Table
from watchdog.config.permissions import ACCOUNT
from watchdog.config.suggestions import quote_value
from watchdog.measure.catalogue import DIMENSIONS, IMPOSSIBLE_PAIRS, METRICS, Metric
from watchdog.rules.language.expression import metrics_of
from watchdog.rules.language.rule import Condition, Rule

_DIMENSIONS = ("direction", "state", "failure")
_METRIC_OF_STATE = {"TIME_WAIT": "time_wait", "NEW_SYN_RECV": "half_open"}

Values = tuple[str, ...]


def check_possible_values(table: Table, rule: Rule) -> None:
    """Note a problem for each condition that no connection of a metric can meet, in the rule's `table`.

    A dimension of `by` with a single possible value gets a note.
    """
    names = metrics_of(rule.metric)
    if rule.only_if is not None:
        names |= metrics_of(rule.only_if.left)
    where = table.table("where")
    for metric in (METRICS[name] for name in sorted(names)):
        conditions = [one for one in rule.where if _possible(metric, one.dimension) is not None]
        if all(_is_possible(where, metric, one) for one in conditions):
            _check_together(where, metric, conditions)
        _check_own_process(where, metric, rule)
    for index, dimension in enumerate(rule.by):
        _note_single_value(table, rule, dimension, index)


def _check_own_process(where: Table, metric: Metric, rule: Rule) -> None:
    """Note a problem for a process that a count of the watchdog about itself never has."""
    if len(metric.missing_dimensions) < len(DIMENSIONS) - 1:
        return
    for condition in rule.where:
        if condition.dimension == "process" and not _meets(condition, ACCOUNT):
            where.add_problem("process", f"{metric.name} is in one row, of process {quote_value(ACCOUNT)}")


def _possible(metric: Metric, dimension: str) -> Values | None:
    return None if dimension in metric.missing_dimensions else metric.possible_values(dimension)


def _is_possible(where: Table, metric: Metric, condition: Condition) -> bool:
    """Return whether connections of `metric` can meet `condition`; note each of its patterns that they cannot."""
    name, possible = condition.dimension, _possible(metric, condition.dimension) or ()
    value = where.value(name)
    never = [one for one in condition.any_of if not any(fnmatchcase(choice, one) for choice in possible)]
    for pattern in never:
        if any(fnmatchcase(choice, pattern) for choice in DIMENSIONS[name].choices):  # else a problem already
            index = value.index(pattern) if isinstance(value, list) else None
            where.add_problem(name, _never(metric.name, name, pattern, possible), index=index)
    if not never and not _selected(condition, possible):
        where.add_problem(name, f"excludes every {name} that {metric.name} can have: {_listed(possible)}")
        return False
    return not never


def _never(metric: str, dimension: str, pattern: str, possible: Values) -> str:
    message = f"{metric} never has {dimension} {quote_value(pattern)}: possible are {_listed(possible)}"
    if dimension == "state":
        for state, other in _METRIC_OF_STATE.items():
            if fnmatchcase(state, pattern):
                message += f"; {state} has a metric of its own: {other}"
    return message


def _listed(values: Values) -> str:
    return ", ".join(value or '""' for value in values)


def _selected(condition: Condition, values: Values) -> Values:
    return tuple(value for value in values if _meets(condition, value))


def _meets(condition: Condition, value: str) -> bool:
    wanted = not condition.any_of or any(fnmatchcase(value, pattern) for pattern in condition.any_of)
    return wanted and not any(fnmatchcase(value, pattern) for pattern in condition.none_of)


def _check_together(where: Table, metric: Metric, conditions: list[Condition]) -> None:
    """Note conditions that are possible one by one, and not together."""
    if conditions and not any(_combinations(metric, {one.dimension: one for one in conditions})):
        names = " and ".join(one.dimension for one in conditions)
        where.add_problem(conditions[-1].dimension, f"{metric.name} never has this {names} together")


def _combinations(metric: Metric, conditions: Mapping[str, Condition]) -> Iterator[Values]:
    columns = []
    for name in _DIMENSIONS:
        possible = _possible(metric, name) or ("",)
        columns.append(_selected(conditions[name], possible) if name in conditions else possible)
    for values in product(*columns):
        row = dict(zip(_DIMENSIONS, values, strict=True))
        if not any(row[one] in ones and row[other] in others for one, ones, other, others in IMPOSSIBLE_PAIRS):
            yield values


def _note_single_value(table: Table, rule: Rule, dimension: str, index: int) -> None:
    if dimension not in _DIMENSIONS:
        return
    values = {value for name in metrics_of(rule.metric) for value in _possible(METRICS[name], dimension) or _DIMENSIONS}
    if len(values) == 1:
        table.add_note("by", f'"{dimension}" has one value only here, {quote_value(values.pop())}', index=index)
