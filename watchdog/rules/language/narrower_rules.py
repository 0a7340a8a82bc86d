"""Checks of `unless_firing` over all rules: the rules that it names exist, and no rule waits for itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from watchdog.config.suggestions import is_near, quote_value, unknown_name
from watchdog.errors import Problem
from watchdog.rules.language.overrides import Overrides
from watchdog.rules.language.rule import MAX_HOLD_NS, Rule

_KEY = "rule.unless_firing"


def check_narrower_rules(
    rules: Iterable[Rule], overrides: Overrides, interval_ns: int
) -> tuple[list[Problem], list[Problem]]:
    """Return problems and notes: circles of rules, which would never fire; pairs without effect; a `for` too short.

    Shipped rules count as present: an override or the settings decide which of them are in force.
    """
    rules = list(rules)
    present = {rule.id for rule in rules}
    notes = _find_equal_times(rules, interval_ns) + _find_without_ticks(rules)
    if all(present.issuperset(rule.unless_firing) for rule in rules):
        return _find_circles(rules, {}), notes
    shipped = {identity: table.texts("unless_firing", ()) for identity, table in overrides.shipped_tables.items()}
    return _find_circles(rules, shipped), notes + _find_unknown(rules, present | shipped.keys())


def _find_circles(rules: Iterable[Rule], shipped: Mapping[str, Collection[str]]) -> list[Problem]:
    by_id = {rule.id: rule for rule in rules}
    try:
        TopologicalSorter({**shipped, **{identity: rule.unless_firing for identity, rule in by_id.items()}}).prepare()
    except CycleError as error:
        circle = error.args[1][::-1]
        first = next(by_id[identity] for identity in circle if identity in by_id)
        return [Problem(first.file, first.line, _KEY, f"these rules mute each other: {', '.join(circle[1:])}")]
    return []


def _find_unknown(rules: Iterable[Rule], known: Collection[str]) -> list[Problem]:
    return [
        Problem(rule.file, rule.line, _KEY, _unknown_text(name, known))
        for rule in rules
        for name in rule.unless_firing
        if name not in known
    ]


def _unknown_text(name: str, known: Collection[str]) -> str:
    if is_near(name, known):
        return f"{unknown_name('rule', name, known)} It has no effect"
    return f"no rule {quote_value(name)}: it has no effect"


def _find_without_ticks(rules: Iterable[Rule]) -> list[Problem]:
    """Return a note for each pair with a rule whose groups are not compared tick by tick: nothing is muted then."""
    by_id = {rule.id: rule for rule in rules}
    return [
        Problem(rule.file, rule.line, _KEY, f"no effect with {name}: {one.id} {kind}")
        for rule in by_id.values()
        for name in rule.unless_firing
        for one in (rule, by_id.get(name))
        if one is not None and (kind := _kind_without_ticks(one))
    ]


def _kind_without_ticks(rule: Rule) -> str:
    if rule.has_long_window:
        return "has a window above an hour"
    return "" if rule.novelty is None else "has novelty"


def _find_equal_times(rules: Iterable[Rule], interval_ns: int) -> list[Problem]:
    """Return a note for each rule that can fire before a rule in its `unless_firing` has waited for its own `for`.

    It waits for `MAX_HOLD_NS` in any case.
    """
    by_id = {rule.id: rule for rule in rules}
    pending_ns = {
        rule.id: rule.for_ns if rule.hits is None else rule.hits.ticks * interval_ns for rule in by_id.values()
    }
    return [
        Problem(rule.file, rule.line, _KEY, f"both may fire: for should be longer than that of {name}, by two samples")
        for rule in by_id.values()
        for name in rule.unless_firing
        if max(pending_ns[rule.id], MAX_HOLD_NS) < pending_ns.get(name, 0) + 2 * interval_ns
    ]
