"""The metrics of the daemon for Prometheus, and its status page, served by the web server.

Imported only where `[web]` sets an address.
"""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from watchdog.alerts.alert import AlertState
from watchdog.clock import SECOND_NS, Clock
from watchdog.config.web_settings import WebSettings
from watchdog.control.alert_handlers import ActiveAlert
from watchdog.control.status_handlers import DaemonStatus
from watchdog.daemon.control_api import ControlApi
from watchdog.daemon.host_name import HostName
from watchdog.daemon.pipeline import Pipeline
from watchdog.kernel.collector import ProgramRuns
from watchdog.kernel.quality import LOSS_CAUSES, PRESENT_LOSSES
from watchdog.measure.snapshot import Snapshot
from watchdog.routing.suppression import SuppressionKind
from watchdog.rules.language.rule import Severity
from watchdog.state.losses import LossCause
from watchdog.web.exposition import Exposition
from watchdog.web.own_health import OwnHealth, ReceiverMetrics, TickDurations
from watchdog.web.traffic_totals import TrafficTotals
from watchdog.web.web_page import Pages, WebPage, WebRequest
from watchdog.web.web_server import WebError, WebServer

if TYPE_CHECKING:  # loaded with the status page only
    from watchdog.daemon.status_source import StatusSource

_SHOWN_STATES = (AlertState.PENDING, AlertState.FIRING)
_SEVERITIES = (Severity.WARNING.label, Severity.CRITICAL.label)


class MetricsEndpoint:
    """Counts from its creation on; serves from `start` until `stop`. `durations`: of ticks, the daemon adds them."""

    def __init__(
        self,
        settings: WebSettings,
        pipeline: Pipeline,
        api: ControlApi,
        host: HostName,
        clock: Clock,
        log: logging.Logger,
        program_runs: Callable[[], Mapping[str, ProgramRuns]] | None = None,
    ) -> None:
        """Count the snapshots of `pipeline`. `program_runs`: of BPF programs, None where they are not counted."""
        self._log = log
        self._program_runs = program_runs
        self.durations = TickDurations()
        self._settings = settings
        self._pipeline = pipeline
        self._api = api
        self._host = host
        self._clock = clock
        self._alerts = api.alerts
        self._server: WebServer | None = None
        totals = TrafficTotals(settings.max_series)
        pipeline.observe_snapshot = totals.add
        self._exposition = Exposition(totals, self.durations, self.read_health)
        self._source: StatusSource | None = None
        self._pages: Pages = {"/metrics": self._metrics}
        if settings.status_page:
            self._add_status_page(totals)

    def _add_status_page(self, totals: TrafficTotals) -> None:
        from watchdog.daemon.status_source import StatusSource
        from watchdog.web.status_page import StatusPage

        shows_commands = self._settings.is_for_members
        source = self._source = StatusSource(self._pipeline, self._api, self._clock, shows_commands=shows_commands)

        def observe(snapshot: Snapshot) -> None:
            totals.add(snapshot)
            source.traffic.add(snapshot)

        self._pipeline.observe_snapshot, self._pipeline.observe_verdicts = observe, source.add_verdicts
        self._pages = {"/": StatusPage(source.read).page, **self._pages}

    def _metrics(self, request: WebRequest) -> WebPage:
        return self._exposition.page(request.accept)

    def start(self) -> None:
        """Start the server; where it cannot listen, that is logged, and the daemon goes on."""
        try:
            self._server = WebServer(self._settings, self._names, self._pages)
        except WebError as error:
            self._log.error("metrics not served: error=%s", error)
            return
        self._server.start()
        if self._source is not None:
            self._source.start()
        port = "" if self._settings.port is None else f" port {self._settings.port}"
        page = "" if self._source is None else ", status page at /"
        self._log.info("metrics for Prometheus at %s%s%s", self._settings.listen, port, page)

    def stop(self) -> None:
        """Stop the server, and the history of the status page."""
        if self._server is not None:
            self._server.stop()
            if self._source is not None:
                self._source.stop()

    def _names(self) -> tuple[str, ...]:
        return self._host.current, socket.gethostname()

    def read_health(self) -> OwnHealth:
        """Return the health of the daemon now."""
        status, alerts = self._api.status.read(), self._alerts.list_without_receivers()
        return OwnHealth(
            version=status.version,
            kernel=status.kernel,
            configured_seconds=status.ticks.configured_seconds,
            interval_seconds=status.ticks.interval_seconds,
            age_seconds=status.ticks.age_seconds,
            # With 0 for the rest: increase() does not see the first value of a series.
            losses={cause: status.quality.get(cause, 0) for cause in LOSS_CAUSES if cause not in PRESENT_LOSSES},
            sockmap_connections=status.quality.get("sockmap_connections", 0),
            rules=_rules_by_state({rule.id for rule in self._api.configuration.rules}, status, alerts),
            alerts=_alerts_by_state(alerts),
            oldest_firing_seconds=_oldest_firing(alerts, self._clock.wall()),
            suppressed_alerts=status.suppression.suppressed_alerts,
            withheld={**dict.fromkeys(map(str, SuppressionKind), 0), **status.suppression.withheld},
            receivers=self._receivers(status),
            reload_succeeded=status.reload.result != "refused",
            reload_at=status.reload.at,
            program_runs=self._read_program_runs(),
        )

    def _read_program_runs(self) -> Mapping[str, tuple[int, float]]:
        runs = {} if self._program_runs is None else self._program_runs()
        return {name: (one.count, one.time_ns / SECOND_NS) for name, one in runs.items()}

    def _receivers(self, status: DaemonStatus) -> tuple[ReceiverMetrics, ...]:
        delivered, failed_attempts = self._pipeline.delivery.delivered(), self._pipeline.delivery.failed_attempts()
        return tuple(
            ReceiverMetrics(
                name=one.name,
                state=one.state,
                pending=one.pending,
                oldest_seconds=one.oldest_seconds,
                delivered=delivered.get(one.name, 0),
                failed={cause.value: one.lost.get(cause.value, 0) for cause in LossCause},
                failed_attempts={
                    str(reason): count for (receiver, reason), count in failed_attempts.items() if receiver == one.name
                },
            )
            for one in status.receivers
        )


def _alerts_by_state(alerts: list[ActiveAlert]) -> Mapping[tuple[str, str], int]:
    counts = Counter({(str(state), severity): 0 for state in _SHOWN_STATES for severity in _SEVERITIES})
    counts.update((str(alert.state), alert.severity) for alert in alerts)
    return counts


def _oldest_firing(alerts: list[ActiveAlert], now: float) -> Mapping[str, float]:
    ages = dict.fromkeys(_SEVERITIES, 0.0)
    for alert in alerts:
        if alert.fired is not None and not alert.suppressed_by:
            ages[alert.severity] = max(ages[alert.severity], now - alert.fired)
    return ages


def _rules_by_state(rules: AbstractSet[str], status: DaemonStatus, alerts: list[ActiveAlert]) -> Mapping[str, int]:
    # Alerts of the daemon about itself have no rule in the files.
    firing = rules & {alert.rule for alert in alerts if alert.state == AlertState.FIRING}
    pending = (rules & {alert.rule for alert in alerts}) - firing
    unknown = (rules & set(status.rules.unknown)) - firing - pending
    ok = rules - firing - pending - unknown
    return {"firing": len(firing), "pending": len(pending), "unknown": len(unknown), "ok": len(ok)}
