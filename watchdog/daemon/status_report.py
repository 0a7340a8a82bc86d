"""The status of the running daemon: one screen for people, one document for configuration management."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from watchdog import __version__
from watchdog.alerts.alert import AlertState
from watchdog.clock import SECOND_NS, Clock
from watchdog.control.alert_handlers import ActiveAlert
from watchdog.control.status_handlers import (
    AlertCounts,
    DaemonStatus,
    ReceiverStatus,
    ReloadStatus,
    RulesStatus,
    SuppressionStatus,
    TickStatus,
)
from watchdog.daemon.configuration import Configuration
from watchdog.daemon.heartbeat import Heartbeat
from watchdog.daemon.host_name import HostName
from watchdog.daemon.pipeline import Pipeline
from watchdog.errors import StoreError
from watchdog.kernel import privileges
from watchdog.receivers.base import Receiver
from watchdog.rules.language.rule import Severity
from watchdog.rules.language.ruleset_hash import ruleset_hash
from watchdog.scheduling.tick_loop import TickLoop
from watchdog.state import audit
from watchdog.state.audit import AttemptRecord
from watchdog.state.losses import LossCause
from watchdog.state.outbox import QueueStatus
from watchdog.storage.reader import StateReader


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """The parts of the process beside the pipeline that the status shows."""

    tick_loop: TickLoop
    heartbeat: Heartbeat
    host: HostName
    clock: Clock


class StatusReport:
    """Makes the answer to `status`."""

    def __init__(
        self,
        pipeline: Pipeline,
        facts: DaemonFacts,
        configuration: Configuration,
        reader: StateReader,
        list_alerts: Callable[[], list[ActiveAlert]],
    ) -> None:
        """Read all of these at each request; the uptime counts from now."""
        self._pipeline = pipeline
        self._facts = facts
        self._reader = reader
        self._list_alerts = list_alerts
        self._started_ns = facts.clock.boottime_ns()
        self.reload = ReloadStatus("none")
        """The newest reload; replaced as a whole."""
        self.take_configuration(configuration)

    def take_configuration(self, configuration: Configuration) -> None:
        """Take the configuration in force."""
        self._configuration, self._rules_sha256 = configuration, ruleset_hash(configuration.rules)

    def read(self) -> DaemonStatus:
        """Return the status now."""
        with self._pipeline.view() as view:
            unknown, quality = view.engine.unknown_rules, dict(view.losses)
        alerts = self._list_alerts()
        firing = [alert for alert in alerts if alert.state == AlertState.FIRING]
        critical = sum(alert.severity == Severity.CRITICAL.label for alert in firing)
        configuration = self._configuration
        return DaemonStatus(
            version=__version__,
            host=self._facts.host.current,
            pid=os.getpid(),
            account=privileges.current_account_name(),
            uptime_seconds=round((self._facts.clock.boottime_ns() - self._started_ns) / SECOND_NS, 1),
            kernel=os.uname().release,
            rules=RulesStatus(
                len(configuration.rules),
                self._rules_sha256,
                configuration.rules_origin,
                configuration.shipped_rules,
                unknown,
            ),
            reload=self.reload,
            ticks=self._ticks(),
            quality=quality,
            alerts=AlertCounts(len(alerts) - len(firing), critical, len(firing) - critical),
            suppression=self._suppression(),
            receivers=self._receivers(configuration.receivers),
            problems=tuple(self._pipeline.problems()),
        )

    def _suppression(self) -> SuppressionStatus:
        silences = self._pipeline.silences.current
        acknowledgements = sum(silence.acknowledged is not None for silence in silences)
        return SuppressionStatus(
            silences=len(silences) - acknowledgements,
            acknowledgements=acknowledgements,
            mute_times=tuple(mute_time.name for mute_time in self._pipeline.muting),
            suppressed_alerts=len(self._pipeline.suppressed),
            withheld={kind.value: count for kind, count in self._pipeline.withheld.items()},
        )

    def _ticks(self) -> TickStatus:
        duration, age = self._facts.tick_loop.newest_tick_seconds, self._facts.heartbeat.last_good_tick_age_seconds()
        return TickStatus(
            self._facts.tick_loop.configured_ns / SECOND_NS,
            self._facts.tick_loop.interval_ns / SECOND_NS,
            None if duration is None else round(duration, 4),
            None if age is None else round(age, 3),
        )

    def _receivers(self, receivers: Mapping[str, Receiver]) -> tuple[ReceiverStatus, ...]:
        with self._pipeline.view() as view:
            delivery, handler = view.delivery, view.outage_handler
        queues: Mapping[str, QueueStatus] = {}
        losses: Mapping[tuple[str, LossCause], int] = {}
        answers: Mapping[str, AttemptRecord] = {}
        with contextlib.suppress(StoreError):  # the status must come without a state file too
            counters = delivery.counters()
            queues, losses, answers = counters.queues, counters.losses, audit.newest_attempts(self._reader)
        outages = delivery.outages()
        down = handler.down_receivers(outages, self._facts.clock.boottime_ns())
        found = []
        for name, receiver in receivers.items():
            outage, queue, answer = outages.get(name), queues.get(name, QueueStatus()), answers.get(name)
            found.append(
                ReceiverStatus(
                    name=name,
                    destination=receiver.destination(),
                    state="down" if name in down else "ok" if outage is None else "failing",
                    since=None if outage is None else outage.since,
                    reason=None if outage is None else outage.reason,
                    pending=queue.pending,
                    oldest_seconds=round(queue.oldest_seconds, 1),
                    answer=None if answer is None else answer.result,
                    answered_at=None if answer is None else answer.ended_at,
                    lost={cause.value: count for (owner, cause), count in losses.items() if owner == name and count},
                )
            )
        return tuple(found)
