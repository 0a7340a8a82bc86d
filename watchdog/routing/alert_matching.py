"""Matching of alerts against the conditions of a `where` outside rules: routes, silences, mute times, inhibition.

A label that the alert does not have counts as empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from watchdog.config.suggestions import is_near
from watchdog.measure.catalogue import DIMENSIONS, Dimension, DimensionKind
from watchdog.routing.label_matching import matches_condition
from watchdog.rules.language.rule import Condition, Rule, Severity

if TYPE_CHECKING:  # this import loads numpy, which reading routes does not need
    from watchdog.alerts.alert import Alert

SEVERITY_NAMES: Final = tuple(severity.label for severity in Severity)
ROUTE_DIMENSIONS: Final = {
    "rule": Dimension("rule", DimensionKind.NAME, "the rule's id"),
    "severity": Dimension("severity", DimensionKind.CHOICE, "how bad it is", choices=SEVERITY_NAMES),
    "host": Dimension("host", DimensionKind.NAME, "name of this host"),
    **DIMENSIONS,
}
"""Labels that conditions on alerts can read, beside those of the user."""


def dimension_kind(name: str) -> DimensionKind:
    """Return the kind of a label in `where`; labels of the user's own are names."""
    return ROUTE_DIMENSIONS[name].kind if name in ROUTE_DIMENSIONS else DimensionKind.NAME


def alert_values(alert: Alert) -> dict[str, str]:
    """Return the values of `alert` that conditions read, by name."""
    own = {"rule": alert.rule, "severity": alert.severity.label, "host": alert.identity.host}
    return {**dict(alert.identity.labels), **dict(alert.labels), **own}


def matches_alert(where: Iterable[Condition], alert: Alert) -> bool:
    """Return whether `alert` meets every condition of `where`."""
    return matches_values(where, alert_values(alert))


def matches_values(where: Iterable[Condition], values: Mapping[str, str]) -> bool:
    """Return whether the values of an alert, as `alert_values` returns them, meet every condition of `where`."""
    return all(matches_condition(one, dimension_kind(one.dimension), values.get(one.dimension, "")) for one in where)


def readable_dimensions(
    labels: Iterable[str], rules: Iterable[Rule] | None, named: Iterable[str] = ()
) -> dict[str, Dimension]:
    """Return the dimensions that conditions on alerts can read, by name.

    `labels`: names of the settings' own labels. `rules`: their labels can be read too; None: they are not known, so
    that a name of `named` that is no misspelled one can be a label of theirs.
    """
    own = {*labels}
    if rules is None:
        own.update(name for name in named if not is_near(name, ROUTE_DIMENSIONS))
    else:
        own.update(name for rule in rules for name, _ in rule.labels)
    added = {name: Dimension(name, DimensionKind.NAME, "a label of your own") for name in sorted(own)}
    return {**ROUTE_DIMENSIONS, **added}
