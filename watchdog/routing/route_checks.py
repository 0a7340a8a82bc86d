"""Checks of the routes: finds routes that no alert can reach, and routes that overlap.

Before an alert exists, its rule and severity are known, and that labels outside its rule's `by` are empty. The values
of its other labels are not known: a route with a condition on one of them may match or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from watchdog.errors import Problem
from watchdog.routing.alert_matching import ROUTE_DIMENSIONS, SEVERITY_NAMES, dimension_kind
from watchdog.routing.label_matching import matches_condition
from watchdog.routing.routes import Route
from watchdog.rules.language.rule import Condition, Labels, Rule

_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class _PossibleAlert:
    """The labels of all alerts of one rule and severity, as far as they are known before an alert exists."""

    known_values: dict[str, str]
    unknown_dimensions: frozenset[str]

    def may_match(self, route: Route) -> bool:
        return all(
            self._meets(condition) for condition in route.where if condition.dimension not in self.unknown_dimensions
        )

    def undecided_conditions(self, route: Route) -> list[Condition]:
        """Return the conditions of `route` that cannot be decided yet."""
        return [condition for condition in route.where if condition.dimension in self.unknown_dimensions]

    def _meets(self, condition: Condition) -> bool:
        kind = dimension_kind(condition.dimension)
        return matches_condition(condition, kind, self.known_values.get(condition.dimension, ""))


def check_routes(routes: Sequence[Route], rules: Sequence[Rule] | None, labels: Labels = ()) -> list[Problem]:
    """Return a note for each route that no alert can reach or that overlaps.

    `rules`: all rules, None: not known. `labels`: those of the settings.
    """
    named = {condition.dimension for route in routes for condition in route.where}
    candidates = (
        [_PossibleAlert({}, frozenset((*ROUTE_DIMENSIONS, *named)))]
        if rules is None
        else list(_possible_alerts(rules, labels))
    )
    any_severity = list(_of_any_severity(rules or (), labels)) if routes else []
    notes = []
    earlier: list[tuple[Route, set[int]]] = []  # with the numbers of the candidates that may match
    takers: list[list[Route]] = [[] for _ in candidates]  # of each candidate, the earlier routes that may take it
    for route in routes:
        matching = {number for number, alert in enumerate(candidates) if alert.may_match(route)}
        taken = [(candidates[number], takers[number]) for number in sorted(matching)]
        found = _unreachable(route, taken, any_severity) or _overlap(route, matching, earlier)
        if found:
            notes.append(Problem(route.file, route.line, "route", found))
        earlier.append((route, matching))
        for number in () if route.continues else matching:
            takers[number].append(route)
    return notes


def _possible_alerts(rules: Sequence[Rule], labels: Labels) -> Iterator[_PossibleAlert]:
    for rule in rules:
        if rule.receivers is None:
            for severity in rule.thresholds.fire:
                yield _possible_alert(rule, severity.label, labels)


def _of_any_severity(rules: Sequence[Rule], labels: Labels) -> Iterator[_PossibleAlert]:
    for rule in rules:
        for severity in SEVERITY_NAMES:
            yield _possible_alert(rule, severity, labels)


def _possible_alert(rule: Rule, severity: str, labels: Labels) -> _PossibleAlert:
    known = {**dict(labels), **dict(rule.labels), "rule": rule.id, "severity": severity}
    return _PossibleAlert(known, frozenset((*rule.by, "host")))


def _unreachable(
    route: Route, matching: Sequence[tuple[_PossibleAlert, Sequence[Route]]], any_severity: Sequence[_PossibleAlert]
) -> str | None:
    # `matching`: the alerts that `route` may match, each with the earlier routes that may take it.
    if not matching:
        if any(alert.may_match(route) for alert in any_severity):
            return "no alert can reach this route: its rules name their own receivers, or have no such severity"
        return "no alert can reach this route: it matches no rule"
    takers = [_route_before(alert, route, earlier) for alert, earlier in matching]
    if None in takers:
        return None
    lines = sorted({taker.line for taker in takers if taker is not None})
    return f"no alert can reach this route: {_routes_take(lines)} all its alerts first"


def _route_before(alert: _PossibleAlert, route: Route, earlier: Sequence[Route]) -> Route | None:
    # The first of `earlier`, which may take such alerts, that is certain to take each of them that `route` matches.
    own = {condition.dimension: condition for condition in route.where}
    for other in earlier:
        undecided = alert.undecided_conditions(other)
        if all(_is_within(own.get(condition.dimension), condition) for condition in undecided):
            return other
    return None


def _is_within(inner: Condition | None, outer: Condition) -> bool:
    # Whether each value that meets `inner` is certain to meet `outer`; False where that cannot be decided.
    if inner is None:
        return False
    if inner == outer:
        return True
    kind = dimension_kind(outer.dimension)
    return bool(inner.any_of) and all(
        not _WILDCARDS.intersection(value) and matches_condition(outer, kind, value) for value in inner.any_of
    )


def _overlap(route: Route, matching: AbstractSet[int], earlier: Sequence[tuple[Route, AbstractSet[int]]]) -> str | None:
    for other, others_matching in earlier:
        shared = [name for name in route.receivers if name in other.receivers]
        differs = (other.group_timing, other.group_by) != (route.group_timing, route.group_by)
        if other.continues and shared and differs and not matching.isdisjoint(others_matching):
            return (
                f"an alert that matches the route at line {other.line} too has its waits and group_by for {shared[0]}"
            )
    return None


def _routes_take(lines: Sequence[int]) -> str:
    if len(lines) == 1:
        return f"the route at line {lines[0]} takes"
    return f"the routes at lines {', '.join(map(str, lines[:-1]))} and {lines[-1]} take"
