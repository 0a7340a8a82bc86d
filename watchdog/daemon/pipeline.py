"""The pipeline: moves one snapshot per tick through collector, meter, rules, alerts, routing, state and delivery."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from watchdog import sanitize
from watchdog.alerts.alert import Alert, Transition, TransitionKind
from watchdog.alerts.evidence_collector import EvidenceCollector
from watchdog.alerts.identity import HostIdentity
from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import SECOND_NS, Clock, Now
from watchdog.daemon.baseline_log import baseline_lines
from watchdog.daemon.configuration import Configuration
from watchdog.daemon.exception_watch import ExceptionWatch
from watchdog.daemon.host_name import HostName
from watchdog.daemon.late_evidence import HOLD_NS, LateEvidence
from watchdog.daemon.left_out_log import MAX_NAMED_PER_TICK, log_dropped, log_left_out
from watchdog.daemon.newest_traffic import NewestTraffic
from watchdog.daemon.reload_alert import RELOAD_REFUSED_RULE, RESTARTED, Refusal, ReloadAlert
from watchdog.daemon.stages import Stage, Stages
from watchdog.daemon.tick_lock import TickLock
from watchdog.delivery.delivery import Delivery
from watchdog.delivery.health import Outage
from watchdog.delivery.outage_handler import OutageHandler
from watchdog.delivery.receiver_down import RECEIVER_DOWN_RULE
from watchdog.delivery.recipient_refused import RECIPIENT_REFUSED_RULE
from watchdog.delivery.reconciliation import Reconciliation
from watchdog.errors import StoreError
from watchdog.kernel.collector import Collector
from watchdog.kernel.quality import total_losses
from watchdog.measure.catalogue import ON_DEMAND_METRICS
from watchdog.measure.lost_samples import LostSamples
from watchdog.measure.meter import Meter, TickCounts
from watchdog.measure.process_reader import ProcessReader
from watchdog.measure.procfs import UnreadReason, read_process
from watchdog.measure.program_file import ProgramFile
from watchdog.measure.program_notes import describe_executable
from watchdog.measure.snapshot import Snapshot
from watchdog.routing.alert_matching import readable_dimensions
from watchdog.routing.grouping import Grouping
from watchdog.routing.jitter import hash_to_share
from watchdog.routing.mute_times import MuteTime
from watchdog.routing.notification import Notification
from watchdog.routing.suppression import Suppression, SuppressionKind
from watchdog.routing.suppressor import Suppressor
from watchdog.rules.engine.baseline_blobs import BaselinePart
from watchdog.rules.engine.engine import Engine, Verdict
from watchdog.scheduling.scheduler import ScheduledTick
from watchdog.state.outbox import Outbox
from watchdog.state.rule_history import RuleHistory
from watchdog.state.saved_baselines import SavedBaselines
from watchdog.state.silences import Silences
from watchdog.state.store import Store
from watchdog.storage.folder import STATE_FILE_NAME
from watchdog.systemd import machine_id
from watchdog.thread_edge import thread_problems

# A stop begins attempts for the first of these times and lets those under way end within the second. With the last tick
# and one second of the scheduler it stays below TimeoutStopSec of the unit.
_STOP_BEGIN_SECONDS = 2.5
_STOP_SECONDS = 15.0
_TICK_SECONDS = 0.25

OWN_ALERTS = (RECEIVER_DOWN_RULE, RECIPIENT_REFUSED_RULE, RELOAD_REFUSED_RULE)
"""Rule ids of the daemon's alerts about itself that no rule file makes; docs/runbooks.md has a section on each."""
_END_REASONS = {RELOAD_REFUSED_RULE: RESTARTED}  # an alert of this rule is not saved


class RuleErrors(ExceptionGroup[Exception]):
    """Rules that could not be evaluated, or whose alerts could not be updated: one defect of ours per rule."""


@dataclass(frozen=True, slots=True)
class PipelineView:
    """The stages, for a copy of their state between two ticks; `losses`: by cause as from `total_losses`."""

    engine: Engine
    lifecycle: Lifecycle
    grouping: Grouping
    outage_handler: OutageHandler
    reload_alert: ReloadAlert
    delivery: Delivery
    identity: HostIdentity
    suppressed: Mapping[str, tuple[Suppression, ...]]
    losses: Mapping[str, int]
    history: RuleHistory
    message_probes_problem: str


class Pipeline:
    """Owns the stages and moves a snapshot through them per tick; a reload swaps rules and receivers between ticks."""

    observe_snapshot: Callable[[Snapshot], object] | None = None
    """Called with the snapshot of each tick before the rules are judged, not with the daemon's first snapshot."""
    observe_verdicts: Callable[[Sequence[Verdict]], object] | None = None
    """Called with the verdicts of each tick."""

    def __init__(
        self,
        collector: Collector,
        store: Store,
        configuration: Configuration,
        host: HostName,
        clock: Clock,
        report_progress: Callable[[], object] = bool,
    ) -> None:
        """Restore the state of a former daemon: its firing alerts stay firing, without a new notification.

        `report_progress`: is called after each stage of a long tick.
        """
        self._report_progress = report_progress
        self._collector = collector
        self._store = store
        self._host = host
        self._host.configure(configuration.settings.host)
        self._set_identity(configuration)
        self._clock, self._log = clock, logging.getLogger("watchdog")
        self._between_ticks = TickLock()
        self._stages = Stages(clock, self._log)
        self.traffic = NewestTraffic(clock)
        self._meter = Meter(configuration.settings.networks, configuration.settings.locations)
        self._exceptions = ExceptionWatch(configuration.rules, Now.read(clock), self._log)
        self._engine = Engine(self._exceptions.rules_in_force, clock)
        self._restore_baselines()
        self._apply_rules()
        self._create_alert_stages(configuration)
        self._create_routing_stages(configuration)
        self._restore(set(configuration.receivers))
        self._unwritten: list[Notification] = []
        self._reconciliation = Reconciliation(store.database, configuration.settings.routing.group_interval_ns)
        self.unknown_rules: tuple[str, ...] = ()  # in the newest tick, as of the engine
        self._losses: Mapping[str, int] = {}  # since the start, by cause
        # Since the newest tick that evaluated its sample:
        self._failed_ticks = self._refused_reloads = self._unread_commands = 0
        self._lost_samples = LostSamples()
        self._snapshot: Snapshot | None = None  # of the tick that runs
        self._is_unjudged = False  # whether that tick has read a sample and not judged it
        self._create_delivery(configuration)

    def _create_alert_stages(self, configuration: Configuration) -> None:
        clock = self._clock
        self._lifecycle = Lifecycle(self._host.current)
        self._evidence = EvidenceCollector(
            self._engine, self._meter.process_start_ns, read_process, clock, self._find_program
        )
        self._evidence.with_command = configuration.settings.evidence.command_line
        outbox = Outbox(self._store.database, clock)
        self._late_evidence = LateEvidence(ProcessReader(), outbox, self._wake_workers, clock, self._log)
        self._reload_alert = ReloadAlert(configuration.receivers)

    def _create_routing_stages(self, configuration: Configuration) -> None:
        host = self._host.current
        self._suppressor = Suppressor()
        self._configure_suppression(configuration)
        self.suppressed: Mapping[str, tuple[Suppression, ...]] = {}
        self.withheld: Mapping[SuppressionKind, int] = {}  # notifications since the start
        self._outage_handler = OutageHandler(
            self._store.database,
            configuration.settings,
            configuration.receivers,
            host,
            self._log,
            self._suppressor,
            _END_REASONS,
        )
        share, is_escalated_to = hash_to_share(host, machine_id()), self._outage_handler.was_notified
        self._grouping = Grouping(
            configuration.settings.routing,
            host,
            configuration.routes,
            share,
            is_escalated_to,
            self._suppressor,
            _END_REASONS,
        )

    def _restore(self, receivers: AbstractSet[str]) -> None:
        """Restore alerts, groups and memories of rules from the state file."""
        saved, now = self._store.load(), Now.read(self._clock)
        unreadable = self._lifecycle.restore(
            saved.alerts, self._exceptions.rules_in_force, now.boottime_ns, saved.boottime_shift_ns, saved.downtime_ns
        )
        unreadable += self._outage_handler.restore(saved, self._marked(self._lifecycle.firing_alerts()), now)
        firing = self._firing_alerts()
        notified = [
            (receiver, alert)
            for receiver, alert in saved.notified
            if not self._outage_handler.owes_resolved(receiver, alert)
        ]
        unreadable += self._grouping.restore(saved.groups, firing, receivers, now, saved.boottime_shift_ns, notified)
        if unreadable:
            self._log.error(
                "unreadable entries skipped, their alerts will be sent again as new: file=%s entries=%d",
                STATE_FILE_NAME,
                unreadable,
            )
        self.firing: Mapping[str, Alert] = firing
        self.restored_alert_count = len(firing)
        if anew := self._engine.memories.restore(saved.rule_memories, saved.boottime_shift_ns):
            self._log.warning("definition changed, learning anew: rules=%s", ",".join(anew))

    def start(self) -> int:
        """Read the first snapshot, start delivery of pending notifications; return the number of open connections."""
        snapshot = self._meter.advance(self._collector.read(), self._clock.wall())
        self._engine.evaluate(snapshot, self._lifecycle.active_keys(), self._lifecycle.firing_keys())
        self.unknown_rules = self._engine.unknown_rules
        self._start_or_wake_delivery()
        return int(snapshot.metrics["open"].sum())

    def run_tick(self, tick: ScheduledTick) -> None:
        """Move one snapshot from the kernel to the outbox.

        Raises:
            StoreError: the commit failed; the sample was evaluated, and the next tick commits its changes.
            RuleErrors: some rules could not be evaluated; everything else was done.
            Exception: any other defect; no notification is lost, the next tick makes it.
        """
        with self._between_ticks.held_by_tick():
            # A daemon whose ticks fail is restarted, however long they take.
            self._stages.begin_tick((lambda: None) if self._failed_ticks else self._report_progress)
            try:
                self._process_tick(tick)
            except BaseException:
                self._failed_ticks += 1
                if self._is_unjudged:
                    self._lost_samples.add(self._snapshot)
                self._collector.request_complete_pass()
                self._grouping.request_reconcile()
                self._outage_handler.request_reconcile()
                raise
            finally:
                self._snapshot, self._is_unjudged = None, False

    def _process_tick(self, tick: ScheduledTick) -> None:
        wall = self._clock.wall()
        self._end_exceptions(Now(self._clock.boottime_ns(), wall))
        ticks = TickCounts(
            tick.late_seconds,
            tick.missed_configured,
            self._failed_ticks,
            self._lost_samples.count,
            self._lost_samples.amounts,
            self._refused_reloads,
            unknown=int(bool(self._engine.unknown_rules)),
            slow_stages=self._stages.take_slow_count(),
            unread_commands=self._unread_commands,
            interval_seconds=tick.interval_ns / SECOND_NS,
            configured_seconds=(tick.configured_ns or tick.interval_ns) / SECOND_NS,
        )
        verdicts, snapshot = self._judge_sample(wall, ticks)
        now = Now(snapshot.at_ns, wall)
        self._refresh_host(now.boottime_ns)
        outages, refusals = self._delivery.outages(), self._delivery.refusals()
        with self._stages.run(Stage.ALERTS):
            self._add_command_lines()
            transitions = self._lifecycle.advance(verdicts, now)
        with self._stages.run(Stage.EVIDENCE):
            transitions = self._evidence.collect(snapshot, self._lifecycle, transitions)
        requests = self._evidence.take_requests()
        transitions += self._reload_alert.advance(now)
        transitions += self._outage_handler.update_alerts(outages, refusals, now)
        transitions = [replace(one, alert=self._identity.mark(one.alert)) for one in transitions]
        began = (one.alert.rule for one in transitions if one.kind is TransitionKind.FIRING)
        self._store.rule_history.record_firings(began, wall)
        held: Mapping[str, int] = {}
        try:
            with self._stages.run(Stage.ROUTING):
                self._route(transitions, outages, now)
            with self._stages.run(Stage.STATE):
                held = self._commit({request.fingerprint for request in requests})
        finally:
            self._late_evidence.request(requests, held)
            self._log_transitions(transitions)
        log_left_out(self._log, self._engine.take_left_out(snapshot, MAX_NAMED_PER_TICK))
        log_dropped(self._log, self._engine.memories.take_dropped(snapshot.at_ns))
        self._start_or_wake_delivery()
        self._save_baselines(self._engine.baselines.take_part_to_save())
        failures = [*self._engine.take_failures(), *self._lifecycle.take_failures(), *self._evidence.take_failures()]
        if failures:
            raise RuleErrors("some rules could not be evaluated", failures)

    def _judge_sample(self, wall: float, ticks: TickCounts) -> tuple[list[Verdict], Snapshot]:
        with self._stages.run(Stage.KERNEL):
            reading = self._collector.read()  # if it fails, the next one has everything
        self._is_unjudged = True
        with self._stages.run(Stage.MEASURE):
            snapshot = self._snapshot = self._meter.advance(reading, wall, ticks)
            if self.observe_snapshot is not None:
                self.observe_snapshot(snapshot)
            self.traffic.take(snapshot)
        with self._stages.run(Stage.RULES):
            verdicts = self._engine.evaluate(snapshot, self._lifecycle.active_keys(), self._lifecycle.firing_keys())
            if self.observe_verdicts is not None:
                self.observe_verdicts(verdicts)
        self.unknown_rules = self._engine.unknown_rules
        self._is_unjudged = False
        self._losses = total_losses(self._losses, snapshot.quality)
        self._failed_ticks = self._refused_reloads = 0
        self._lost_samples.clear()
        return verdicts, snapshot

    def _add_command_lines(self) -> None:
        answers = self._late_evidence.take_answers()
        self._unread_commands = sum(isinstance(found, UnreadReason) for _, found in answers)
        for alert in self._lifecycle.add_command_lines(answers):
            self._grouping.update_evidence(alert)

    def _route(self, transitions: Sequence[Transition], outages: Mapping[str, Outage], now: Now) -> None:
        firing = self._firing_alerts()
        self._update_suppressions(firing, now)
        self._correct_groups(firing, now)
        self._unwritten += self._grouping.advance(transitions, firing, now)
        escalated = self._outage_handler.escalate(
            outages,
            transitions,
            firing,
            self._grouping.is_routed_to,
            now,
            lambda receiver: self._grouping.notified_alerts((receiver,))[receiver],
        )
        if escalated:
            # Receivers that get these alerts by escalation must not get a resolved notification by routing.
            self._grouping.request_reconcile()
        self._unwritten += escalated

    def _commit(self, unread: Collection[str]) -> Mapping[str, int]:
        """Commit the tick; return the notifications that are held for the evidence of `unread`, with their due times.

        `unread`: fingerprints of the alerts whose evidence waits for a command line.
        """
        self._count_withheld()
        if self._store.take_recreated():
            self._store.silences.write_all()
            self._store.rule_history.mark_all_changed()
            self._lifecycle.mark_all_changed()
            self._grouping.mark_all_changed()
            self._outage_handler.mark_all_changed()
            self._engine.memories.mark_changed()
            self._engine.baselines.mark_all_due()
        groups, outages_changed = self._grouping.take_changes(), self._outage_handler.take_changes()
        notified = self._notified_alerts() if groups or outages_changed.groups or outages_changed.progress else None
        if notified is not None:
            self._delivery.limit_refresh_to(notified)
        held_until_ns = self._clock.boottime_ns() + HOLD_NS
        held = {
            each.id: held_until_ns
            for each in self._unwritten
            if any(alert.resolved is None and alert.fingerprint in unread for alert in each.alerts)
        }
        try:
            self._store.commit(
                alerts=self._lifecycle.take_changes(),
                groups=groups,
                outages=outages_changed,
                notifications=self._unwritten,
                rule_memories=self._engine.memories.take_changes(),
                timers_running=self._lifecycle.has_running_timer,
                held=held,
            )
        except StoreError:
            self._unwritten.clear()  # the store keeps them now, within its limits
            raise
        self._unwritten.clear()
        if notified is not None:
            self._delivery.set_refreshed_alerts(notified, self._host.current)
        return held

    def _configure_suppression(self, configuration: Configuration) -> None:
        exempt = [name for name, receiver in configuration.receivers.items() if not receiver.suppress]
        silent_ends = [name for name, receiver in configuration.receivers.items() if not receiver.send_resolved]
        self._suppressor.configure(configuration.suppression, exempt, silent_ends)
        self.matcher_dimensions = readable_dimensions(dict(configuration.settings.labels), configuration.rules)

    @property
    def silences(self) -> Silences:
        """Return the silences and acknowledgements in force."""
        return self._store.silences

    @property
    def muting(self) -> Sequence[MuteTime]:
        """Return the mute times that held in the newest tick. Any thread may ask."""
        return self._suppressor.muting

    def _count_withheld(self) -> None:
        counts = self._suppressor.take_withheld()
        for suppression, count in counts.items():
            self.withheld = {**self.withheld, suppression.kind: self.withheld.get(suppression.kind, 0) + count}
        self._store.silences.add_withheld(counts)

    def _update_suppressions(self, firing: Mapping[str, Alert], now: Now) -> None:
        for silence in self._store.silences.end_due(firing, now.boottime_ns):
            self._log.info("%s ended: withheld=%d", silence.suppression.describe(), silence.withheld)
        self._suppressor.update(self._store.silences.current, firing, now)
        self.firing, self.suppressed = firing, self._suppressor.suppressed(firing)

    def _restore_baselines(self) -> None:
        self._saved_baselines = SavedBaselines(self._store.database, self._clock)
        secret, parts = self._saved_baselines.load()
        if secret is not None:
            self._engine.restore_baselines(secret, parts)
        self._engine.baselines.read_saved = self._read_saved_baselines

    def _read_saved_baselines(self) -> list[BaselinePart]:
        try:
            secret, parts = self._saved_baselines.load()
        except StoreError as error:
            self._log.error("saved baselines not read, rules that are back learn anew: error=%s", error)
            return []
        return parts if secret == self._engine.baselines.secret else []

    def _save_baselines(self, *parts: BaselinePart | None) -> None:
        """Write learnt baselines, after all that alerts need; log the events in their life."""
        baselines = self._engine.baselines
        for line in baseline_lines(baselines.take_notes()):
            self._log.info("%s", line)
        due = [part for part in parts if part is not None]
        if not due:
            return
        try:
            refused = self._saved_baselines.save(baselines.secret, due)
        except StoreError as error:
            self._log.error("baselines not saved, a restart would lose the newest hours: error=%s", error)
        else:
            if refused:
                self._log.error("baselines not saved, their room is used up: parts=%d rule=%s", refused, due[0].rule)

    def _correct_groups(self, firing: Mapping[str, Alert], now: Now) -> None:
        # Notifications that failed for good left receivers without knowledge of their alerts.
        if self._unwritten or self._store.has_unwritten_notifications:
            return  # the state file does not have all that receivers will know
        knowledge = self._reconciliation.due_knowledge(self._delivery.delivered(), now.boottime_ns)
        if knowledge is None:
            return
        self._outage_handler.correct(knowledge, firing, now)
        owed = [pair for pair in knowledge.unresolved if not self._outage_handler.owes_resolved(*pair)]
        self._grouping.correct(replace(knowledge, unresolved=owed), firing, now)

    def problems(self) -> list[str]:
        """Return one line for a refused reload, each receiver that is down or lost a notification, each failing thread.

        Reads memory only, never blocks; may be called from any thread.
        """
        refusal = self._reload_alert.refusal
        return [*([] if refusal is None else [refusal.describe()]), *self.delivery_problems(), *thread_problems()]

    def delivery_problems(self) -> list[str]:
        """Return the lines of `problems` on receivers."""
        down = self.down_receivers()
        return [
            *(outage.describe(name) for name, outage in down.items()),
            *(
                f"notification failed for good: receiver={name} reason={reason}"
                for name, reason in self._delivery.lost().items()
                if name not in down
            ),
        ]

    @property
    def delivery(self) -> Delivery:
        """Return the delivery in force; of its methods, those that never block may be called from any thread."""
        return self._delivery

    @property
    def losses(self) -> Mapping[str, int]:
        """Return the data lost since the start, by cause, as of the newest tick."""
        return self._losses

    @property
    def pending_count(self) -> int:
        """Return the number of pending alerts. Reads memory only, never blocks; may be called from any thread."""
        return self._lifecycle.pending_count

    def down_receivers(self) -> Mapping[str, Outage]:
        """Return the outages of the receivers that are down, by name. Never blocks; any thread may ask."""
        return self._outage_handler.down_receivers(self._delivery.outages(), self._clock.boottime_ns())

    def hanging_stage(self) -> tuple[Stage, int] | None:
        """Return the stage in which the present tick hangs, and its ns so far. Never blocks; any thread may ask."""
        return self._stages.hanging()

    @contextlib.contextmanager
    def view(self) -> Iterator[PipelineView]:
        """Yield the stages between two ticks, to copy a part of their state; the next tick waits meanwhile."""
        with self._between_ticks.held_by_reader():
            yield PipelineView(
                self._engine,
                self._lifecycle,
                self._grouping,
                self._outage_handler,
                self._reload_alert,
                self._delivery,
                self._identity,
                self.suppressed,
                self._losses,
                self._store.rule_history,
                self._message_probes_problem,
            )

    def report_refused_reload(self, refusal: Refusal) -> None:
        """Notify all receivers that a reload was refused, until one is accepted."""
        with self._between_ticks.held():
            self._reload_alert.report(refusal)
            self._refused_reloads += 1

    def _firing_alerts(self) -> dict[str, Alert]:
        return self._marked(
            {
                **self._lifecycle.firing_alerts(),
                **self._reload_alert.firing_alerts(),
                **self._outage_handler.firing_alerts(),
            }
        )

    def _marked(self, alerts: Mapping[str, Alert]) -> dict[str, Alert]:
        return {key: self._identity.mark(alert) for key, alert in alerts.items()}

    def _set_identity(self, configuration: Configuration) -> None:
        settings, rules = configuration.settings, configuration.rules
        base = settings.docs.runbook_base
        runbooks = {} if base is None else {rule_id: base + rule_id for rule_id in OWN_ALERTS}
        self._identity = HostIdentity.of(
            self._host.current, machine_id(), settings.labels, rules, settings.generator_url, runbooks
        )

    def _find_program(self, pid: int, container: str) -> ProgramFile | None:
        start_ns = self._meter.process_start_ns(pid)
        found = None if start_ns is None else self._collector.find_executable(pid, start_ns)
        if found is None:
            return None
        return describe_executable(found, self._meter.user_name, is_in_container=bool(container))

    def _refresh_host(self, at_ns: int) -> None:
        self._host.refresh(at_ns)
        self._take_host(self._host.current)

    def _take_host(self, host: str) -> None:
        if host != self._identity.host:
            self._log.warning("host renamed: former=%s present=%s", self._identity.host, host)
            self._identity = replace(self._identity, host=host)
            self._lifecycle.host = self._grouping.host = host
            self._outage_handler.set_host(host)

    def _notified_alerts(self) -> dict[str, list[Alert]]:
        notified = self._grouping.notified_alerts(self._refreshed_receivers)
        return {
            receiver: alerts + self._outage_handler.notified_alerts(receiver) for receiver, alerts in notified.items()
        }

    def _log_transitions(self, transitions: Iterable[Transition]) -> None:
        for transition in transitions:
            alert = transition.alert
            labels = "".join(f" {name}={sanitize.for_log_value(value or '-')}" for name, value in alert.labels)
            facts = {"transition": str(transition.kind), "rule": alert.rule, "severity": alert.severity.label}
            facts |= {"fingerprint": alert.fingerprint, "reason": alert.reason}
            facts |= {f"label_{name}": value for name, value in alert.labels}
            text = f"{transition.kind}: {alert.rule}{labels}: {sanitize.escape_unprintable(alert.reason)}"
            self._log.info("%s", text, extra={"facts": facts})

    def reload(self, configuration: Configuration) -> None:
        """Use the rules, routes and receivers of `configuration` from now on; alerts and timers continue."""
        with self._between_ticks.held():
            now = Now.read(self._clock)
            self._exceptions.take_rules(configuration.rules, now)
            self._engine.replace_rules(self._exceptions.rules_in_force)
            self._evidence.with_command = configuration.settings.evidence.command_line
            self._apply_rules()
            self._lifecycle.replace_rules(self._exceptions.rules_in_force)
            self._host.configure(configuration.settings.host)
            self._take_host(self._host.current)
            self._set_identity(configuration)
            self._configure_suppression(configuration)
            self._outage_handler.reload(
                configuration.settings, configuration.receivers, self._marked(self._lifecycle.firing_alerts()), now
            )
            self._reload_alert.take_receivers(configuration.receivers)
            self._reload_alert.report(None)
            firing, routing = self._firing_alerts(), configuration.settings.routing
            self._grouping.reload(routing, firing, now, set(configuration.receivers), configuration.routes)
            self._reconciliation.group_interval_ns = routing.group_interval_ns
            self._reconciliation.request()
            former = self._delivery
            former.retire()  # its attempts under way end in their time, before those of the new one begin
            self._create_delivery(configuration, former)
            self._start_or_wake_delivery()

    def _create_delivery(self, configuration: Configuration, former: Delivery | None = None) -> None:
        self._delivery = Delivery(self._store, configuration.receivers.values(), self._clock, self._log, former)
        self._delivery_started = False
        self._refreshed_receivers = [
            name for name, receiver in configuration.receivers.items() if receiver.refresh_interval_seconds is not None
        ]
        self._delivery.set_refreshed_alerts(self._notified_alerts(), self._host.current)

    def _end_exceptions(self, now: Now) -> None:
        # Before the sample is judged: the first one of the next day counts.
        if self._exceptions.has_changed(now):
            self._engine.replace_rules(self._exceptions.rules_in_force)
            self._lifecycle.replace_rules(self._exceptions.rules_in_force)
        self._exceptions.report_unused(self._engine.unused_exceptions, now.boottime_ns)

    def _apply_rules(self) -> None:
        self._meter.names.set_retention(self._engine.retention_ns)
        # Programs that run at every message are attached only while a rule reads one of their metrics.
        wanted = ON_DEMAND_METRICS & self._engine.required_columns
        self._message_probes_problem = ""
        if wanted and not self._collector.enable_message_probes():
            self._log.error(
                "message probes unavailable, rules that need them are unknown: metrics=%s reason=%s",
                ",".join(sorted(wanted)),
                self._collector.message_probes_problem,
            )
            self._message_probes_problem = str(self._collector.message_probes_problem)
        elif not wanted:
            self._collector.disable_message_probes()

    def stop(self) -> int | None:
        """Deliver due notifications for at most 2.5 s, let attempts under way end, then close store and collector.

        The outbox keeps the rest. Return their number, None where it is unknown.
        """
        pending = None
        self._late_evidence.stop()
        self._delivery.stop(_STOP_SECONDS, _STOP_BEGIN_SECONDS)
        with self._between_ticks.held(_TICK_SECONDS) as is_held:
            if is_held:  # a tick that hangs ends with the process
                self._save_baselines(*self._engine.baselines.all_parts())
                self._save_memories()
                with contextlib.suppress(StoreError):
                    pending = self._delivery.pending()
                self._store.close()
                self._collector.close()
        return pending

    def _save_memories(self) -> None:
        memories = self._engine.memories.take_changes(at_once=True)
        try:
            self._store.commit(alerts=(), groups=(), notifications=(), rule_memories=memories)
        except StoreError as error:
            self._log.error("memories of rules not saved, a restart loses the newest minute: error=%s", error)

    def _wake_workers(self) -> None:
        self._delivery.wake_workers()

    def _start_or_wake_delivery(self) -> None:
        # At every tick: the start may have failed in a reload, on a full disk or for want of a thread, and the
        # notifications of a failed commit come with a later one.
        if self._delivery_started:
            self._delivery.wake_workers()
            return
        try:
            self._delivery.start()
        except StoreError as error:
            self._log.error("outbox unavailable, deliveries paused: error=%s", error)
        except RuntimeError as error:
            self._log.error("not all receivers have a thread: error=%s", error)
        else:
            self._delivery_started = True
