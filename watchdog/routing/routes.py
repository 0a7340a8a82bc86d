"""Who is told of an alert, and how its notices are spaced: the `[[route]]` tables of watchdog.toml, tried in order.

A rule that names receivers itself needs no route. Else the first route that matches decides; one with `continue` lets
the routes after it decide too. What no route matches goes to the receivers of `[routing] default`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from watchdog.config.document import Table
from watchdog.config.settings import GroupTiming, RoutingSettings, Settings, SettingsDocument, read_group_timing
from watchdog.measure.catalogue import DIMENSIONS, Dimension, DimensionKind
from watchdog.routing.label_matching import matches_condition
from watchdog.rules.language.conditions import read_where
from watchdog.rules.language.rule import Condition, Labels, Severity

if TYPE_CHECKING:  # it brings numpy with it, which those who only read routes do without
    from watchdog.alerts.alert import Alert

DEFAULT_GROUP_BY: Final = ("rule",)
SEVERITY_NAMES: Final = tuple(severity.label for severity in Severity)
ROUTE_DIMENSIONS: Final = {
    "rule": Dimension("rule", DimensionKind.NAME, "the rule's id"),
    "severity": Dimension("severity", DimensionKind.CHOICE, "how bad it is", choices=SEVERITY_NAMES),
    **DIMENSIONS,
}
_MOST_ANSWERS = 10_000


@dataclass(frozen=True, slots=True)
class Route:
    """One `[[route]]`, with its position in watchdog.toml."""

    where: tuple[Condition, ...]
    receivers: tuple[str, ...]
    continues: bool
    group_timing: GroupTiming
    group_by: tuple[str, ...]
    file: str = field(compare=False, repr=False)
    line: int = field(compare=False, repr=False)

    def matches_alert(self, alert: Alert) -> bool:
        """Tell whether the route is for `alert`; what a rule is not `by` counts as empty."""
        values = {**dict(alert.labels), "rule": alert.rule, "severity": alert.severity.label}
        return all(
            matches_condition(
                condition, ROUTE_DIMENSIONS[condition.dimension].kind, values.get(condition.dimension, "")
            )
            for condition in self.where
        )


@dataclass(frozen=True, slots=True)
class Destination:
    """One receiver of an alert, the group there that it belongs to, and when that is told.

    `by`: what the group's alerts have in common; None: the rule, whose id is the group's name then.
    """

    receiver: str
    group_key: str
    group_labels: Labels | None
    group_timing: GroupTiming


class Router:
    """Decides where alerts go. Answers are kept: there is one for each alert, severity and set of receivers."""

    def __init__(
        self, routing: RoutingSettings, routes: Sequence[Route], existing_receivers: Collection[str] | None = None
    ) -> None:
        """Go by `routes`, then by `routing`; of the receivers only `existing_receivers` ones are told, None: all."""
        self.default_timing = routing.group_timing
        self._default = routing.default
        self.routes = tuple(routes)
        self.existing_receivers = existing_receivers
        self._answers: dict[tuple[str, Severity, tuple[str, ...] | None], tuple[Destination, ...]] = {}

    def destinations(self, alert: Alert) -> tuple[Destination, ...]:
        """Return where `alert` goes, each receiver once: by the first route that names it."""
        key = alert.fingerprint, alert.severity, alert.receivers
        if key not in self._answers:
            if len(self._answers) >= _MOST_ANSWERS:
                self._answers.clear()
            found: dict[str, Destination] = {}
            for destination in self._decide(alert):
                if self.existing_receivers is None or destination.receiver in self.existing_receivers:
                    found.setdefault(destination.receiver, destination)
            self._answers[key] = tuple(found.values())
        return self._answers[key]

    def group_timing_of(self, receiver: str, alert: Alert) -> GroupTiming:
        """Return how notices about `alert` to `receiver` are spaced."""
        for destination in self.destinations(alert):
            if destination.receiver == receiver:
                return destination.group_timing
        return self.default_timing

    def _decide(self, alert: Alert) -> Iterator[Destination]:
        if alert.receivers is not None:
            yield from _to(alert.receivers, alert, DEFAULT_GROUP_BY, self.default_timing)
            return
        matched = False
        for route in self.routes:
            if route.matches_alert(alert):
                matched = True
                yield from _to(route.receivers, alert, route.group_by, route.group_timing)
                if not route.continues:
                    return
        if not matched:
            yield from _to(self._default, alert, DEFAULT_GROUP_BY, self.default_timing)


def _to(receivers: Sequence[str], alert: Alert, group_by: tuple[str, ...], waits: GroupTiming) -> Iterator[Destination]:
    by: Labels | None = None
    group = alert.rule
    if group_by != DEFAULT_GROUP_BY:
        values = {**dict(alert.labels), "rule": alert.rule, "severity": alert.severity.label}
        by = tuple((name, values.get(name, "")) for name in group_by)
        group = "{" + ",".join(f"{name}={_plain(value)}" for name, value in by) + "}"
    for receiver in receivers:
        yield Destination(receiver, group, by, waits)


def _plain(value: str) -> str:
    # A key of the state file, which holds UTF-8; names of the host may hold anything.
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').encode("utf-8", "backslashreplace").decode() + '"'


def read_routes(settings: SettingsDocument) -> tuple[Route, ...]:
    """Return the routes of `settings`, in order; problems are added to its document."""
    return tuple(_read_route(table, settings.values) for table in settings.routes)


def _read_route(table: Table, settings: Settings) -> Route:
    receivers = table.names("receivers", kind="receiver", known=settings.receiver_names)
    if not receivers and not table.has_problem("receivers"):
        table.add_problem("receivers", "must name at least one receiver: its notifications would not be sent")
    group_by = table.names("group_by", DEFAULT_GROUP_BY, kind="label", known=ROUTE_DIMENSIONS)
    route = Route(
        where=read_where(table, ROUTE_DIMENSIONS),
        receivers=receivers,
        continues=table.boolean("continue", default=False),
        group_timing=read_group_timing(table, settings.routing.group_timing),
        group_by=group_by,
        file=table.document.file,
        line=table.line,
    )
    table.reject_unknown_keys()
    return route
