"""Routes: the receivers of an alert, and the timing of their groups, by the `[[route]]` tables of watchdog.toml.

A rule that names receivers itself needs no route. Otherwise the routes are tried in order and the first that matches
decides; after one with `continue` the next routes are tried too. An alert that no route matches goes to the receivers
of `[routing] default`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from watchdog.config.document import Table
from watchdog.config.settings import GroupTiming, RoutingSettings, Settings, SettingsDocument, read_group_timing
from watchdog.measure.catalogue import Dimension
from watchdog.routing.alert_matching import alert_values, matches_alert, readable_dimensions
from watchdog.rules.language.conditions import read_where
from watchdog.rules.language.rule import Condition, Labels, Rule

if TYPE_CHECKING:  # this import loads numpy, which reading routes does not need
    from watchdog.alerts.alert import Alert

DEFAULT_GROUP_BY: Final = ("rule",)
_MAX_CACHED_DESTINATIONS = 10_000


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
        """Return whether the route matches `alert`; a label that the alert does not have counts as empty."""
        return matches_alert(self.where, alert)


@dataclass(frozen=True, slots=True)
class Destination:
    """One receiver of an alert, the alert's group there, and the timing of that group.

    `group_labels`: the labels that the group's alerts share; None: grouped by rule, and `group_key` is the rule's id.
    """

    receiver: str
    group_key: str
    group_labels: Labels | None
    group_timing: GroupTiming

    @property
    def key(self) -> tuple[str, str]:
        """Return the `ReceiverGroupKey` of the group."""
        return self.receiver, self.group_key


class Router:
    """Decides the destinations of alerts; caches them by alert, severity and the receivers that the rule names."""

    def __init__(
        self, routing: RoutingSettings, routes: Sequence[Route], existing_receivers: Collection[str] | None = None
    ) -> None:
        """Use `routes`, then the default of `routing`; leave out receivers that do not exist (None: all exist)."""
        self.default_timing = routing.group_timing
        self._default = routing.default
        self.routes = tuple(routes)
        self.existing_receivers = existing_receivers
        self._cache: dict[tuple[object, ...], tuple[Destination, ...]] = {}

    def destinations(self, alert: Alert) -> tuple[Destination, ...]:
        """Return the destinations of `alert`; a receiver of several routes appears once, with the first of them."""
        key = alert.fingerprint, alert.severity, alert.receivers, alert.identity
        if key not in self._cache:
            if len(self._cache) >= _MAX_CACHED_DESTINATIONS:
                self._cache.clear()
            found: dict[str, Destination] = {}
            for destination in self._decide(alert):
                if self.existing_receivers is None or destination.receiver in self.existing_receivers:
                    found.setdefault(destination.receiver, destination)
            self._cache[key] = tuple(found.values())
        return self._cache[key]

    def group_timing_of(self, receiver: str, alert: Alert) -> GroupTiming:
        """Return the wait and intervals for notifications of `alert` to `receiver`."""
        for destination in self.destinations(alert):
            if destination.receiver == receiver:
                return destination.group_timing
        return self.default_timing

    def _decide(self, alert: Alert) -> Iterator[Destination]:
        if alert.receivers is not None:
            yield from _destinations(alert.receivers, alert, DEFAULT_GROUP_BY, self.default_timing)
            return
        matched = False
        for route in self.routes:
            if route.matches_alert(alert):
                matched = True
                yield from _destinations(route.receivers, alert, route.group_by, route.group_timing)
                if not route.continues:
                    return
        if not matched:
            yield from _destinations(self._default, alert, DEFAULT_GROUP_BY, self.default_timing)


def _destinations(
    receivers: Sequence[str], alert: Alert, group_by: tuple[str, ...], timing: GroupTiming
) -> Iterator[Destination]:
    group_labels: Labels | None = None
    group_key = alert.rule
    if group_by != DEFAULT_GROUP_BY:
        values = alert_values(alert)
        group_labels = tuple((name, values.get(name, "")) for name in group_by)
        group_key = "{" + ",".join(f"{name}={_quoted(value)}" for name, value in group_labels) + "}"
    for receiver in receivers:
        yield Destination(receiver, group_key, group_labels, timing)


def _quoted(value: str) -> str:
    # The group key is stored in the state file as UTF-8; a name on the host may hold any bytes.
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').encode("utf-8", "backslashreplace").decode() + '"'


def read_routes(settings: SettingsDocument, rules: Iterable[Rule] | None = None) -> tuple[Route, ...]:
    """Return the routes of `settings`, in order; problems are added to its document.

    Routes can read the labels of `settings` and of `rules`; None: the rules are not known, so that a name that is no
    misspelled one can be a label of theirs.
    """
    named = (name for table in settings.routes for name in _names_in_route(table))
    known = readable_dimensions(dict(settings.values.labels), rules, named)
    return tuple(_read_route(table, settings.values, known) for table in settings.routes)


def _names_in_route(table: Table) -> Iterator[str]:
    where, group_by = table.data.get("where"), table.data.get("group_by")
    yield from where if isinstance(where, dict) else ()
    yield from (name for name in group_by if isinstance(name, str)) if isinstance(group_by, list) else ()


def _read_route(table: Table, settings: Settings, known: Mapping[str, Dimension]) -> Route:
    receivers = table.names("receivers", kind="receiver", known=settings.receiver_names)
    if not receivers and not table.has_problem("receivers"):
        table.add_problem("receivers", "must name at least one receiver: its notifications would not be sent")
    group_by = table.names("group_by", DEFAULT_GROUP_BY, kind="label", known=known)
    route = Route(
        where=read_where(table, known),
        receivers=receivers,
        continues=table.boolean("continue", default=False),
        group_timing=read_group_timing(table, settings.routing.group_timing),
        group_by=group_by,
        file=table.document.file,
        line=table.line,
    )
    table.reject_unknown_keys()
    return route
