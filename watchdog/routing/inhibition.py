"""Inhibition: while a source alert fires, notifications of its targets are withheld: one cause makes one notification.

As in Alertmanager, an alert that matches both sides is not inhibited by another such one, and an inhibited alert
inhibits others. In a circle of alerts that inhibit each other, which Alertmanager withholds altogether, the most severe
one is notified. Source: Alertmanager, inhibit/inhibit.go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from watchdog.config.document import Table
from watchdog.config.suggestions import unknown_name
from watchdog.errors import Problem
from watchdog.measure.catalogue import Dimension
from watchdog.routing.alert_matching import alert_values, matches_values
from watchdog.rules.language.conditions import read_where
from watchdog.rules.language.rule import OVERFLOW_LABELS, Condition, Labels, Rule

if TYPE_CHECKING:  # this import loads numpy, which reading settings does not need
    from watchdog.alerts.alert import Alert


@dataclass(frozen=True, slots=True)
class Inhibition:
    """One `[[inhibit]]`, or the `inhibits` of a rule.

    `equal`: labels that source and target must have alike, a missing one counts as empty; None: those that both have.
    """

    source: tuple[Condition, ...]
    target: tuple[Condition, ...]
    equal: tuple[str, ...] | None = ()


def find_inhibited(inhibitions: Sequence[Inhibition], firing: Mapping[str, Alert]) -> dict[str, Alert]:
    """Return the source of each inhibited alert of `firing`, by the fingerprint of the target.

    `firing`: by fingerprint.
    """
    sources = _sources(inhibitions, firing)
    inhibited: dict[str, Alert] = {}
    notified = firing.keys() - sources.keys()
    while len(inhibited) + len(notified) < len(firing):
        found = {
            target: firing[min(known)]
            for target, its_sources in sources.items()
            if target not in inhibited
            and target not in notified
            and (known := its_sources & (notified | inhibited.keys()))
        }
        inhibited |= found
        if not found:  # the rest is in circles, or behind one
            rest = sources.keys() - inhibited.keys() - notified
            notified.add(min(_circle(rest, sources), key=lambda key: _rank(firing[key])))
    return inhibited


def _circle(rest: Collection[str], sources: Mapping[str, set[str]]) -> set[str]:
    """Return alerts of `rest` that inhibit each other, and that no alert outside of them inhibits."""
    own = {key: sources[key].intersection(rest) for key in rest}
    targets: dict[str, set[str]] = {key: set() for key in rest}
    for key, its_sources in own.items():
        for source in its_sources:
            targets[source].add(key)
    key = min(rest)
    found = _reachable(key, own)
    while outside := found - _reachable(key, targets):  # these inhibit it, and it does not inhibit them
        key = min(outside)
        found = _reachable(key, own)
    return found


def _reachable(key: str, edges: Mapping[str, Collection[str]]) -> set[str]:
    """Return the alerts to which `edges` lead from `key`, itself if one leads back."""
    found: set[str] = set()
    pending = [key]
    while pending:
        for other in edges[pending.pop()]:
            if other not in found:
                found.add(other)
                pending.append(other)
    return found


def _rank(alert: Alert) -> tuple[int, float, str]:
    return -alert.severity, alert.fired, alert.fingerprint


def _sources(inhibitions: Sequence[Inhibition], firing: Mapping[str, Alert]) -> dict[str, set[str]]:
    """Return the fingerprints of the alerts that inhibit an alert, by its fingerprint; only of those that have any."""
    values = {key: alert_values(alert) for key, alert in firing.items()}
    found: dict[str, set[str]] = {}
    for inhibition in inhibitions:
        sources = {key for key in firing if matches_values(inhibition.source, values[key])}
        if not sources:
            continue
        targets = {key for key in firing if matches_values(inhibition.target, values[key])}
        labels = {key: _compared_labels(inhibition, firing[key], values[key]) for key in sources | targets}
        by_labels = _by_labels(sources - targets, labels), _by_labels(sources & targets, labels)
        for key in targets:
            for candidates in by_labels[:1] if key in sources else by_labels:
                found.setdefault(key, set()).update(_alike(inhibition, candidates, labels[key]))
    return {key: sources for key, sources in found.items() if sources}


_ByLabels = Mapping[Labels, Sequence[str]]
"""Fingerprints of sources, by the labels that are compared."""


def _by_labels(keys: Iterable[str], labels: Mapping[str, Labels]) -> _ByLabels:
    found: dict[Labels, list[str]] = {}
    for key in keys:
        found.setdefault(labels[key], []).append(key)
    return found


def _compared_labels(inhibition: Inhibition, alert: Alert, values: Mapping[str, str]) -> Labels:
    if inhibition.equal is None:
        return alert.labels
    return tuple((name, values.get(name, "")) for name in inhibition.equal)


def _alike(inhibition: Inhibition, sources: _ByLabels, labels: Labels) -> Iterator[str]:
    if inhibition.equal is not None:
        yield from sources.get(labels, ())
        return
    values, is_overflow = dict(labels), labels == OVERFLOW_LABELS
    for others, keys in sources.items():
        if (others == OVERFLOW_LABELS) is is_overflow and all(
            values.get(name, value) == value for name, value in others
        ):
            yield from keys


def read_inhibitions(tables: Iterable[Table], dimensions: Mapping[str, Dimension]) -> tuple[Inhibition, ...]:
    """Return the `[[inhibit]]` tables as values; problems are noted in them. `dimensions`: of the alerts."""
    return tuple(_read_inhibition(table, dimensions) for table in tables)


def _read_inhibition(table: Table, dimensions: Mapping[str, Dimension]) -> Inhibition:
    sides = {}
    for side in ("source", "target"):
        sides[side] = read_where(table, dimensions, key=side)
        if not (sides[side] or table.has_problem(side) or table.table(side).data):
            table.add_problem(side, "needs at least one condition: every alert would match")
    equal = table.names("equal", (), kind="label", known=dimensions)
    if "equal" not in table:
        table.add_note(
            "equal",
            "missing: one such source withholds all targets of the host; "
            'name the labels to be alike, as equal = ["unit"], or write equal = [] if that is meant',
        )
    table.reject_unknown_keys()
    return Inhibition(sides["source"], sides["target"], equal)


def inhibitions_of_rules(rules: Iterable[Rule]) -> tuple[Inhibition, ...]:
    """Return the inhibitions by the key `inhibits` of rules."""
    return tuple(
        Inhibition((Condition("rule", (rule.id,)),), (Condition("rule", rule.inhibits),), None)
        for rule in rules
        if rule.inhibits
    )


def check_inhibits(rules: Sequence[Rule], disabled: Iterable[str] = ()) -> list[Problem]:
    """Return a problem for each name in `inhibits` that no rule has.

    `rules`: all that are in force. `disabled`: ids of others that are known, and need not be in force.
    """
    known = {*(rule.id for rule in rules), *disabled}
    return [
        Problem(rule.file, rule.line, "rule.inhibits", unknown_name("rule", name, known))
        for rule in rules
        for name in rule.inhibits
        if name not in known
    ]
