"""The way through the house, once per tick: collect, measure, judge, alert, commit, deliver."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence

from watchdog import sanitize
from watchdog.alerts.alert import Alert, Transition
from watchdog.alerts.evidence_collector import EvidenceCollector
from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import Clock, Now
from watchdog.daemon.configuration import Configuration
from watchdog.delivery.delivery import Delivery
from watchdog.delivery.escalation import OutageHandler
from watchdog.delivery.receiver_down import Outage
from watchdog.errors import StoreError
from watchdog.kernel.collector import Collector
from watchdog.measure.catalogue import ON_DEMAND_METRICS
from watchdog.measure.meter import Meter, TickCounts
from watchdog.measure.procfs import read_process
from watchdog.routing.grouping import Grouping
from watchdog.routing.jitter import hash_to_share
from watchdog.routing.notification import Notification
from watchdog.rules.engine.engine import Engine
from watchdog.scheduling.scheduler import ScheduledTick
from watchdog.state.store import Store
from watchdog.storage.folder import STATE_FILE_NAME
from watchdog.systemd import machine_id

# Of the five seconds that SIGTERM has, were it to come in the middle of a reload; one more is the scheduler's.
_STOP_SECONDS = 2.5
_RELOAD_SECONDS = 1.0
_TICK_SECONDS = 0.25


class RuleErrors(ExceptionGroup[Exception]):
    """Some rules could not be judged, or their alerts not be updated: defects of ours, each with its rule."""


class Pipeline:
    """Owns the stages and moves one snapshot through them; a reload swaps rules and receivers between two ticks."""

    def __init__(self, collector: Collector, store: Store, setup: Configuration, host: str, clock: Clock) -> None:
        """Take back what the store holds of a former daemon: what was firing fires on, and is not news."""
        self._collector = collector
        self._store = store
        self._host = host
        self._clock = clock
        self._log = logging.getLogger("watchdog")
        self._between_ticks = threading.Lock()
        self._meter = Meter()
        self._engine = Engine(setup.rules)
        self._follow()
        self._lifecycle = Lifecycle(host)
        self._taking = EvidenceCollector(self._engine, self._meter.process_start_ns, read_process, clock)
        self._taking.with_command = setup.settings.evidence.command_line
        self._outages = OutageHandler(store.database, setup.settings, setup.receivers, host, self._log)
        share, is_escalated_to = hash_to_share(host, machine_id()), self._outages.was_notified
        self._grouping = Grouping(setup.settings.routing, host, setup.routes, share, is_escalated_to)
        saved = store.load()
        now = Now.read(clock)
        alerts = [state for state in saved.alerts if "down_receiver" not in state]
        groups = [state for state in saved.groups if "is_escalation" not in state]
        forgotten = self._lifecycle.restore(
            alerts, setup.rules, now.boottime_ns, saved.boottime_shift_ns, saved.downtime_ns
        )
        forgotten += self._outages.restore(saved, self._lifecycle.firing_alerts(), now)
        firing = self._firing()
        told = [
            (receiver, alert) for receiver, alert in saved.notified if not self._outages.owes_resolved(receiver, alert)
        ]
        forgotten += self._grouping.restore(groups, firing, set(setup.receivers), now, saved.boottime_shift_ns, told)
        if forgotten:
            self._log.error(
                "%s: %d entries cannot be read and are left out; what they were about is announced anew",
                STATE_FILE_NAME,
                forgotten,
            )
        self.restored_alert_count = len(firing)
        self._unwritten: list[Notification] = []
        self._failed_ticks = self._lost_samples = 0  # since the newest tick that judged its sample
        self._hire(setup)

    def start(self) -> int:
        """Read the baseline and begin to deliver what a former daemon left; return the number of open connections."""
        snapshot = self._meter.advance(self._collector.read(), self._clock.wall())
        self._engine.evaluate(snapshot, self._lifecycle.active_keys())
        self._deliver()
        return int(snapshot.metrics["open"].sum())

    def run_tick(self, tick: ScheduledTick) -> None:
        """Move one snapshot from the kernel to the outbox.

        Raises:
            StoreError: it could not be written; the sample was good, and the next tick writes what this one could not.
            RulesFailed: some rules could not be judged; all the rest was done.
            Exception: whatever went wrong; nothing that people have to hear of is lost, the next tick tells it.
        """
        with self._between_ticks:
            try:
                self._move(tick)
            except BaseException:
                self._failed_ticks += 1
                self._grouping.request_reconcile()
                self._outages.request_reconcile()
                raise

    def _move(self, tick: ScheduledTick) -> None:
        wall = self._clock.wall()
        ticks = TickCounts(tick.late_seconds, tick.missed, self._failed_ticks, self._lost_samples)
        self._lost_samples += 1  # until it has been judged
        snapshot = self._meter.advance(self._collector.read(), wall, ticks)
        now = Now(snapshot.at_ns, wall)
        verdicts = self._engine.evaluate(snapshot, self._lifecycle.active_keys())
        self._failed_ticks = self._lost_samples = 0
        failing = self._delivery.outages()
        transitions = self._lifecycle.advance(verdicts, now)
        transitions = self._taking.collect(snapshot, self._lifecycle, transitions)
        transitions = [*transitions, *self._outages.update_alerts(failing, now)]
        try:
            self._write(transitions, failing, now)
        finally:
            self._tell(transitions)
        self._deliver()
        failures = [*self._engine.take_failures(), *self._lifecycle.take_failures(), *self._taking.take_failures()]
        if failures:
            raise RuleErrors("some rules could not be judged", failures)

    def _write(self, transitions: Sequence[Transition], failing: Mapping[str, Outage], now: Now) -> None:
        firing = self._firing()
        self._unwritten += self._grouping.advance(transitions, firing, now)
        escalated = self._outages.escalate(failing, transitions, firing, self._grouping.is_routed_to, now)
        if escalated:
            self._grouping.request_reconcile()  # who hears of it there is not to be told that it is over for them
        self._unwritten += escalated
        if self._store.take_recreated():
            self._lifecycle.mark_all_changed()
            self._grouping.mark_all_changed()
            self._outages.mark_all_changed()
        groups = [*self._grouping.take_changes(), *self._outages.take_group_changes()]
        told = self._told() if groups else None
        if told is not None:
            self._delivery.limit_refresh_to(told)
        try:
            self._store.commit(
                alerts=[*self._lifecycle.take_changes(), *self._outages.take_alert_changes()],
                groups=groups,
                notifications=self._unwritten,
                timers_running=self._lifecycle.has_running_timer,
            )
        except StoreError:
            self._unwritten.clear()  # the store has them, and bounds what waits
            raise
        self._unwritten.clear()
        if told is not None:
            self._delivery.set_refreshed_alerts(told, self._host)

    def _firing(self) -> dict[str, Alert]:
        return {**self._lifecycle.firing_alerts(), **self._outages.firing_alerts()}

    def _told(self) -> dict[str, list[Alert]]:
        told = self._grouping.notified_alerts(self._refreshed)
        return {receiver: alerts + self._outages.notified_alerts(receiver) for receiver, alerts in told.items()}

    def _tell(self, transitions: Iterable[Transition]) -> None:
        for transition in transitions:
            alert = transition.alert
            labels = "".join(f" {name}={value or '-'}" for name, value in alert.labels)
            self._log.info(
                "%s", sanitize.escape_unprintable(f"{transition.kind}: {alert.rule}{labels}: {alert.reason}")
            )

    def reload(self, setup: Configuration) -> None:
        """Judge by the rules of `setup` and tell its receivers from now on; alerts and timers go on."""
        with self._between_ticks:
            now = Now.read(self._clock)
            self._engine.replace_rules(setup.rules)
            self._taking.with_command = setup.settings.evidence.command_line
            self._follow()
            self._lifecycle.replace_rules(setup.rules)
            self._outages.reload(setup.settings, setup.receivers, self._lifecycle.firing_alerts(), now)
            firing, routing = self._firing(), setup.settings.routing
            self._grouping.reload(routing, firing, now, set(setup.receivers), setup.routes)
        # While ticks go on: a receiver that hangs is none of their business.
        self._delivery.stop(_RELOAD_SECONDS)
        with self._between_ticks:
            self._hire(setup)
            self._deliver()

    def _hire(self, setup: Configuration) -> None:
        self._delivery = Delivery(self._store, setup.receivers.values(), self._clock, self._log)
        self._delivering = False
        self._refreshed = [
            name for name, receiver in setup.receivers.items() if receiver.refresh_interval_seconds is not None
        ]
        self._delivery.set_refreshed_alerts(self._told(), self._host)

    def _follow(self) -> None:
        self._meter.names.set_retention(self._engine.retention_ns)
        # Programs that run at every message are attached only while a rule reads what they measure.
        wanted = ON_DEMAND_METRICS & self._engine.required_columns
        if wanted and not self._collector.enable_message_probes(True):
            self._log.error(
                "rules read %s, which stay empty: %s", sorted(wanted), self._collector.message_probes_problem
            )
        elif not wanted:
            self._collector.enable_message_probes(False)

    def stop(self) -> None:
        """Deliver what is due, for some seconds at most, and let go of everything; the outbox keeps the rest."""
        self._delivery.stop(_STOP_SECONDS)
        if self._between_ticks.acquire(timeout=_TICK_SECONDS):  # one that hangs ends with the process
            self._store.close()
            self._collector.close()
            self._between_ticks.release()

    def _deliver(self) -> None:
        # At every tick: a commit that failed may have left notices to this one, as a reload on a full disk the start.
        if self._delivering:
            self._delivery.wake_workers()
            return
        try:
            self._delivery.start()
        except StoreError as error:
            self._log.error("the outbox: %s; deliveries wait", error)
        else:
            self._delivering = True
