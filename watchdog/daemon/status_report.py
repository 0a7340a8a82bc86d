"""The status of the running daemon: one screen for people, one document for configuration management.

It comes while a tick or the disk hangs, too: it is made from memory, and waits for the state file in a limited time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from watchdog import __version__
from watchdog.clock import SECOND_NS, Clock
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
from watchdog.daemon.delivery_record import DeliveryRecord, DeliveryRecordReader
from watchdog.daemon.heartbeat import Heartbeat
from watchdog.daemon.host_name import HostName
from watchdog.daemon.pipeline import Pipeline
from watchdog.kernel import privileges
from watchdog.receivers.base import Receiver
from watchdog.rules.language.rule import Severity
from watchdog.rules.language.ruleset_hash import ruleset_hash
from watchdog.scheduling.tick_loop import TickLoop
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
    ) -> None:
        """Read all of these at each request; the uptime counts from now."""
        self._pipeline = pipeline
        self._facts = facts
        self._delivery_record = DeliveryRecordReader(reader, facts.clock)
        self._started_ns = facts.clock.boottime_ns()
        self.reload = ReloadStatus("none")
        """The newest reload; replaced as a whole."""
        self.take_configuration(configuration)

    def take_configuration(self, configuration: Configuration) -> None:
        """Take the configuration in force."""
        self._configuration, self._rules_sha256 = configuration, ruleset_hash(configuration.rules)

    def read(self) -> DaemonStatus:
        """Return the status now."""
        record, problem = self._delivery_record.read()
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
                self._pipeline.unknown_rules,
            ),
            reload=self.reload,
            ticks=self._ticks(),
            quality=dict(self._pipeline.losses),
            alerts=self._alerts(),
            suppression=self._suppression(),
            receivers=self._receivers(configuration.receivers, record),
            problems=(*self._pipeline.problems(), *self._tick_problems(), *([problem] if problem else [])),
        )

    def _alerts(self) -> AlertCounts:
        firing = self._pipeline.firing.values()
        critical = sum(alert.severity is Severity.CRITICAL for alert in firing)
        return AlertCounts(self._pipeline.pending_count, critical, len(firing) - critical)

    def _tick_problems(self) -> list[str]:
        hanging = self._pipeline.hanging_stage()
        if hanging is None:
            return []
        stage, took_ns = hanging
        return [f"tick hangs: stage={stage} for={took_ns // SECOND_NS}s"]

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

    def _receivers(self, receivers: Mapping[str, Receiver], record: DeliveryRecord) -> tuple[ReceiverStatus, ...]:
        outages, down = self._pipeline.delivery.outages(), self._pipeline.down_receivers()
        found = []
        for name, receiver in receivers.items():
            outage, answer = outages.get(name), record.answers.get(name)
            queue = record.queues.get(name, QueueStatus())
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
                    lost={
                        cause.value: lost for (owner, cause), lost in record.losses.items() if owner == name and lost
                    },
                )
            )
        return tuple(found)
