"""What is to be said of routes by those who read them: which no alert can take, and which overlap.

Of an alert to come, its rule and its severity are known, and that labels are empty that its rule is not `by`. What its
other labels are is not: a route that asks for one may take it or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from watchdog.errors import Problem
from watchdog.routing.label_matching import matches_condition
from watchdog.routing.routes import ROUTE_DIMENSIONS, SEVERITY_NAMES, Route
from watchdog.rules.language.rule import Condition, Rule

_SPECIAL = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class _PossibleAlert:
    """Alerts of one rule and severity: what is known of them before there are any."""

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
        values = ROUTE_DIMENSIONS[condition.dimension].kind
        return matches_condition(condition, values, self.known_values.get(condition.dimension, ""))


def check_routes(routes: Sequence[Route], rules: Sequence[Rule] | None) -> list[Problem]:
    """Return a note for each route that no alert takes, or that overlaps; `rules`: all there are, None: not known."""
    kinds = [_PossibleAlert({}, frozenset(ROUTE_DIMENSIONS))] if rules is None else list(_kinds(rules))
    notes = []
    for index, route in enumerate(routes):
        found = _unreached(route, routes[:index], kinds, rules or ()) or _overlap(route, routes[:index], kinds)
        if found:
            notes.append(Problem(route.file, route.line, "route", found))
    return notes


def _kinds(rules: Sequence[Rule]) -> Iterator[_PossibleAlert]:
    for rule in rules:
        if rule.receivers is None:
            for severity in rule.thresholds.fire:
                yield _PossibleAlert({"rule": rule.id, "severity": severity.label}, frozenset(rule.by))


def _unreached(
    route: Route, earlier: Sequence[Route], kinds: Sequence[_PossibleAlert], rules: Sequence[Rule]
) -> str | None:
    its_own = [kind for kind in kinds if kind.may_match(route)]
    if not its_own:
        named = [
            _PossibleAlert({"rule": rule.id, "severity": word}, frozenset(rule.by))
            for rule in rules
            for word in SEVERITY_NAMES
        ]
        if any(kind.may_match(route) for kind in named):
            return "no alert takes this route: the rules that it matches name their receivers, or have no such severity"
        return "no alert takes this route: it matches none of the rules"
    takers = [_taken_by(kind, route, earlier) for kind in its_own]
    if None in takers:
        return None
    lines = sorted({taker.line for taker in takers if taker is not None})
    return f"no alert takes this route: {_of_lines(lines)} all that it matches first"


def _taken_by(kind: _PossibleAlert, route: Route, earlier: Sequence[Route]) -> Route | None:
    for other in earlier:
        if not other.continues and kind.may_match(other):
            wanted = {condition.dimension: condition for condition in route.where}
            if all(_is_within(wanted.get(more.dimension), more) for more in kind.undecided_conditions(other)):
                return other
    return None


def _is_within(inner: Condition | None, outer: Condition) -> bool:
    # Whether what meets `inner` is sure to meet `outer`; where that is hard to say, it is not.
    if inner is None:
        return False
    if inner == outer:
        return True
    values = ROUTE_DIMENSIONS[outer.dimension].kind
    return bool(inner.any_of) and all(
        not _SPECIAL.intersection(word) and matches_condition(outer, values, word) for word in inner.any_of
    )


def _overlap(route: Route, earlier: Sequence[Route], kinds: Sequence[_PossibleAlert]) -> str | None:
    for other in earlier:
        shared = [name for name in route.receivers if name in other.receivers]
        differs = (other.group_timing, other.group_by) != (route.group_timing, route.group_by)
        both = any(kind.may_match(route) and kind.may_match(other) for kind in kinds)
        if other.continues and shared and differs and both:
            return f"where the route of line {other.line} matches too, its waits and group_by hold for {shared[0]}"
    return None


def _of_lines(lines: Sequence[int]) -> str:
    if len(lines) == 1:
        return f"that of line {lines[0]} takes"
    return f"those of lines {', '.join(map(str, lines[:-1]))} and {lines[-1]} take"
