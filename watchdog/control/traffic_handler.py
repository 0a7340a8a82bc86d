"""Control socket request `traffic`: rates of connections, processes, units or peers in the newest tick, for `top`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

from watchdog.clock import SECOND_NS
from watchdog.control.alert_handlers import ActiveAlert
from watchdog.control.arguments import RequestArguments
from watchdog.control.server import Handler
from watchdog.errors import document_errors
from watchdog.measure.catalogue import HOST_DIMENSIONS
from watchdog.measure.snapshot import Snapshot
from watchdog.measure.traffic_rows import MAX_ROWS, Cell, TrafficQuery, traffic_table
from watchdog.measure.traffic_view import TopView
from watchdog.routing.silencing import parse_matchers
from watchdog.rules.engine.selection import Selection
from watchdog.rules.language.rule import Condition

MAX_WORST_ALERTS: Final = 5
MAX_MATCHERS: Final = 50
_MAX_ALERT_SHARE = 0.01  # of the time, for the list of all alerts


@dataclass(frozen=True, slots=True)
class WorstAlert:
    """A pending or firing alert in one line; `since`: wall-clock seconds."""

    state: str
    severity: str
    rule: str
    labels: Mapping[str, str]
    value_text: str
    limit_text: str
    since: float


@dataclass(frozen=True, slots=True)
class AlertSummary:
    """Alerts by state; `critical` and `warning` are firing. `worst`: the first ones, the worst first."""

    critical: int
    warning: int
    pending: int
    worst: tuple[WorstAlert, ...]


@dataclass(frozen=True, slots=True)
class Traffic:
    """The rows of one tick, as in `TrafficTable`.

    `at_ns`: CLOCK_BOOTTIME of the tick, `wall`: wall-clock seconds. `elapsed_seconds`: time since the former tick.
    `interval_seconds`: until the next one. `losses`: of the tick, by cause. `alerts`: None without a daemon.
    """

    host: str
    at_ns: int
    wall: float
    elapsed_seconds: float
    interval_seconds: float
    rows: list[list[Cell]]
    row_count: int
    totals: dict[str, float]
    losses: dict[str, int]
    alerts: AlertSummary | None

    def to_json(self) -> dict[str, Any]:
        """Return the answer to a request; the rows are not copied."""
        document = {field.name: getattr(self, field.name) for field in fields(self)}
        return document | {"alerts": None if self.alerts is None else asdict(self.alerts)}

    @classmethod
    @document_errors()
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the answer to a request.

        Raises:
            DocumentError: `document` is no such answer.
        """
        alerts = document["alerts"]
        summary = None
        if alerts is not None:
            worst = tuple(WorstAlert(**one) for one in alerts["worst"])
            summary = AlertSummary(int(alerts["critical"]), int(alerts["warning"]), int(alerts["pending"]), worst)
        return cls(**{**document, "alerts": summary})


class TrafficReader:
    """Makes the rows of snapshots that meet conditions. Use it from one thread."""

    def __init__(self) -> None:
        """Start without conditions."""
        self._selection = Selection()

    def read(
        self,
        snapshot: Snapshot,
        query: TrafficQuery,
        where: Sequence[Condition],
        host: str,
        interval_seconds: float,
        alerts: AlertSummary | None,
    ) -> Traffic:
        """Return the rows of a snapshot, which has the columns of `keep_columns`."""
        mask = self._selection.mask(snapshot, where)
        self._selection.release()
        self._selection.retain_only(where)
        table = traffic_table(snapshot, query, mask)
        return Traffic(
            host=host,
            at_ns=snapshot.at_ns,
            wall=snapshot.wall,
            elapsed_seconds=snapshot.elapsed_ns / SECOND_NS,
            interval_seconds=interval_seconds,
            rows=table.rows,
            row_count=table.row_count,
            totals=table.totals,
            losses={cause: count for cause, count in snapshot.quality.losses().items() if count},
            alerts=alerts,
        )


def parse_where(matchers: Sequence[str]) -> tuple[Condition, ...]:
    """Return the conditions of matchers, which are those of `sample --where`.

    Raises:
        UsageError: as `parse_matchers`.
    """
    return parse_matchers(matchers, HOST_DIMENSIONS) if matchers else ()


def traffic_handlers(
    newest: Callable[[], Snapshot | None],
    list_alerts: Callable[[], Sequence[ActiveAlert]],
    host: Callable[[], str],
    interval_seconds: Callable[[], float],
) -> dict[str, Handler]:
    """Return the handler of `traffic`; `newest`: returns the newest snapshot, None while there is none."""
    reader, alerts, reading = TrafficReader(), _AlertSummaries(list_alerts), threading.Lock()

    def show(given: Mapping[str, Any]) -> dict[str, Any] | None:
        arguments = RequestArguments(given)
        view = TopView(arguments.text("view", choices=list(TopView)) or TopView.PROCESSES)
        sort = arguments.text("sort", choices=("", *view.columns)) or ""
        reverse = arguments.text("order", choices=("first", "last")) == "last"
        limit = arguments.integer("limit", MAX_ROWS, maximum=MAX_ROWS)
        matchers = arguments.texts("where", max_count=MAX_MATCHERS) if given.get("where") else ()
        known_ns = arguments.integer("known_ns", 1, maximum=2**63)
        arguments.reject_unknown_arguments()
        where = parse_where(matchers)
        snapshot = newest()
        if snapshot is None or snapshot.at_ns == known_ns:
            return None
        query = TrafficQuery(view, sort, reverse, limit)
        with reading:
            return reader.read(snapshot, query, where, host(), interval_seconds(), alerts.read()).to_json()

    return {"traffic": Handler(show, in_background=True)}


class _AlertSummaries:
    # A list of ten thousand alerts takes a tenth of a second: it is made again after a hundred times its time.
    def __init__(self, list_alerts: Callable[[], Sequence[ActiveAlert]]) -> None:
        self._list_alerts = list_alerts
        self._summary = AlertSummary(0, 0, 0, ())
        self._due = 0.0

    def read(self) -> AlertSummary:
        began = time.monotonic()
        if began >= self._due:
            self._summary = _summarise(self._list_alerts())
            now = time.monotonic()
            self._due = now + (now - began) / _MAX_ALERT_SHARE
        return self._summary


def _summarise(alerts: Sequence[ActiveAlert]) -> AlertSummary:
    firing = [alert.severity for alert in alerts if alert.state == "firing"]
    worst = tuple(
        WorstAlert(one.state, one.severity, one.rule, one.labels, one.value_text, one.limit_text, one.since)
        for one in alerts[:MAX_WORST_ALERTS]
    )
    return AlertSummary(firing.count("critical"), firing.count("warning"), len(alerts) - len(firing), worst)
