"""Reaction to outages of receivers: alerts to the other receivers, escalation, records in the local log.

The pipeline calls it once a tick, after the alerts were updated and before the commit that saves its results.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from watchdog.alerts.alert import Alert, Transition
from watchdog.clock import Now
from watchdog.config.settings import RoutingSettings, Settings
from watchdog.delivery.escalation_target import EscalationTarget
from watchdog.delivery.health import Outage
from watchdog.delivery.local_log import LocalLog
from watchdog.delivery.receiver_down import ReceiverDownAlerts
from watchdog.delivery.recipient_refused import DOCUMENT_KEY, RecipientRefusedAlerts
from watchdog.delivery.undelivered import describe_queue, undelivered_notifications
from watchdog.errors import StoreError
from watchdog.routing.group import ReceiverGroupKey
from watchdog.routing.knowledge import Knowledge
from watchdog.routing.notification import Notification
from watchdog.routing.suppression import SuppressionLookup
from watchdog.state.documents import JsonDocument
from watchdog.state.pending_writes import OutageChanges
from watchdog.state.store import SavedState
from watchdog.storage.database import Database


class OutageHandler:
    """Owns the alerts about receivers, the escalation targets and the local log."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        receivers: Iterable[str],
        host: str,
        log: logging.Logger,
        suppression: SuppressionLookup | None = None,
        end_reasons: Mapping[str, str] | None = None,
    ) -> None:
        """Read undelivered notifications from `database`; `settings` has escalations and `receiver_down_after`.

        `suppression`, `end_reasons`: as in `Grouping`.
        """
        self._database = database
        self._suppression = suppression
        self._end_reasons = end_reasons or {}
        self._host = host
        self._log = log
        self._receivers = tuple(receivers)
        self._receiver_down = ReceiverDownAlerts(self._receivers, settings.routing.receiver_down_after_ns)
        self._recipient_refused = RecipientRefusedAlerts(self._receivers)
        self._local_log = LocalLog(log)
        self._targets: dict[str, EscalationTarget] = {}
        self._unreadable = False
        self._removed_groups: list[tuple[ReceiverGroupKey, JsonDocument | None]] = []
        self._removed_progress: list[tuple[str, JsonDocument | None]] = []
        self._configure(settings, {}, Now(0, 0.0))

    def restore(self, saved: SavedState, firing: Mapping[str, Alert], now: Now) -> int:
        """Restore the documents that a former daemon saved; return the number of unreadable ones.

        `firing`: the firing alerts of rules, by fingerprint.
        """
        refused = [document for document in saved.outages.alerts if DOCUMENT_KEY in document]
        unreadable = self._recipient_refused.restore(refused, saved.boottime_shift_ns)
        down = (document for document in saved.outages.alerts if DOCUMENT_KEY not in document)
        unreadable += self._receiver_down.restore(down, saved.boottime_shift_ns)
        self._local_log.restore(self._receiver_down.alerts_by_receiver(), now.boottime_ns)
        progress = {str(document.get("receiver")): document for document in saved.outages.progress}
        groups: dict[str, list[JsonDocument]] = {name: [] for name in progress}
        for document in saved.outages.groups:
            groups.setdefault(str(document.get("receiver")), []).append(document)
        all_firing = {**firing, **self.firing_alerts()}
        for name, own_groups in groups.items():
            target = self._target(name)
            unreadable += target.restore(own_groups, progress.get(name), all_firing, now, saved.boottime_shift_ns)
        self._remove_idle_targets(all_firing, now)
        return unreadable

    def reload(self, settings: Settings, receivers: Iterable[str], firing: Mapping[str, Alert], now: Now) -> None:
        """Take a new configuration. Each receiver that got a firing notification will get the resolved one."""
        self._receivers = tuple(receivers)
        self._receiver_down.replace_receivers(self._receivers, settings.routing.receiver_down_after_ns)
        self._recipient_refused.replace_receivers(self._receivers)
        self._configure(settings, {**firing, **self.firing_alerts()}, now)

    def update_alerts(self, outages: Mapping[str, Outage], refusals: Mapping[str, str], now: Now) -> list[Transition]:
        """Return the transitions of the alerts about receivers; write to the local log about those that are down.

        `refusals`: as `Delivery.refusals`.
        """
        transitions = self._receiver_down.advance(outages, now) + self._recipient_refused.advance(refusals, now)
        self._local_log.report(self._receiver_down.alerts_by_receiver(), outages, self._describe_queue, now.boottime_ns)
        return transitions

    def set_host(self, host: str) -> None:
        """Name `host` in later notifications."""
        self._host = host
        for target in self._targets.values():
            target.set_host(host)

    def down_receivers(self, outages: Mapping[str, Outage], now_ns: int) -> Mapping[str, Outage]:
        """Return the outages of receivers that are down, as `ReceiverDownAlerts.down_receivers`."""
        return self._receiver_down.down_receivers(outages, now_ns)

    def firing_alerts(self) -> Mapping[str, Alert]:
        """Return the firing alerts about receivers, by fingerprint."""
        return {**self._receiver_down.firing_alerts(), **self._recipient_refused.firing_alerts()}

    def escalate(
        self,
        outages: Mapping[str, Outage],
        transitions: Sequence[Transition],
        firing: Mapping[str, Alert],
        is_routed_to: Callable[[str, Alert], bool],
        now: Now,
        find_notified: Callable[[str], Sequence[Alert]] = lambda _: (),
    ) -> list[Notification]:
        """Return the notifications for the escalation targets, as `EscalationTarget.advance`.

        `find_notified`: returns the firing alerts that the routes have notified a receiver of.
        """

        def notified(receiver: str) -> list[Alert]:
            return [*find_notified(receiver), *self.notified_alerts(receiver)]

        return [
            notification
            for target in self._targets.values()
            for notification in target.advance(
                outages, self._find_undelivered, transitions, firing, is_routed_to, now, notified
            )
        ]

    def notified_alerts(self, receiver: str) -> list[Alert]:
        """Return the firing alerts that `receiver` was notified of as an escalation target."""
        return self._targets[receiver].notified_alerts() if receiver in self._targets else []

    def was_notified(self, receiver: str, alert: Alert) -> bool:
        """Return whether `receiver` was notified of this firing of `alert` as an escalation target.

        If so, its resolved notification comes from here too.
        """
        return receiver in self._targets and self._targets[receiver].was_notified(alert)

    def receivers_of(self, alert: Alert) -> list[str]:
        """Return the escalation targets that were notified of this firing of `alert`."""
        return [name for name, target in self._targets.items() if target.was_notified(alert)]

    def owes_resolved(self, receiver: str, alert: Alert) -> bool:
        """Return whether `receiver` still has to get the resolved notification of this firing of `alert` from here."""
        return receiver in self._targets and self._targets[receiver].owes_resolved(alert)

    def mark_all_changed(self) -> None:
        """Make the next `take_changes` return everything, for a recreated state file."""
        self._receiver_down.mark_all_changed()
        self._recipient_refused.mark_all_changed()
        for target in self._targets.values():
            target.mark_all_changed()

    def correct(self, knowledge: Knowledge, firing: Mapping[str, Alert], now: Now) -> None:
        """Take the knowledge of escalation targets as the notified state, as `Grouping.correct`."""
        for name, target in self._targets.items():
            if name in knowledge.receivers:
                target.correct(knowledge, firing, now)

    def request_reconcile(self) -> None:
        """As `Grouping.request_reconcile`."""
        for target in self._targets.values():
            target.request_reconcile()

    def take_changes(self) -> OutageChanges:
        """Return the documents that changed since the last call."""
        groups, self._removed_groups = self._removed_groups, []
        progress, self._removed_progress = self._removed_progress, []
        for target in self._targets.values():
            groups += target.take_changes()
            progress += target.take_progress()
        alerts = [*self._receiver_down.take_changes(), *self._recipient_refused.take_changes()]
        return OutageChanges(alerts, groups, progress)

    def _configure(self, settings: Settings, firing: Mapping[str, Alert], now: Now) -> None:
        self._routing: RoutingSettings = settings.routing
        self._after_ns: dict[str, dict[str, int]] = {}
        self._unacknowledged_ns: dict[str, dict[str, int]] = {}
        for first, escalation in settings.escalations.items():
            self._after_ns.setdefault(escalation.to, {})[first] = escalation.after_ns
            if escalation.unacknowledged_ns is not None:
                self._unacknowledged_ns.setdefault(escalation.to, {})[first] = escalation.unacknowledged_ns
        for name in self._after_ns:
            self._target(name)
        self._remove_idle_targets(firing, now)

    def _target(self, name: str) -> EscalationTarget:
        if name not in self._targets:
            self._targets[name] = EscalationTarget(
                name, self._routing, self._host, self._suppression, self._end_reasons
            )
        return self._targets[name]

    def _remove_idle_targets(self, firing: Mapping[str, Alert], now: Now) -> None:
        # A target that is no longer configured stays until its last resolved notification has been made.
        for name, target in list(self._targets.items()):
            exists, waits_ns = name in self._receivers, self._unacknowledged_ns.get(name, {})
            target.reload(self._after_ns.get(name, {}), self._routing, firing, now, waits_ns, receiver_exists=exists)
            if target.is_idle:
                target.reload({}, self._routing, {}, now, receiver_exists=False)
                self._removed_groups += target.take_changes()
                self._removed_progress += target.take_progress()
                del self._targets[name]

    def _find_undelivered(self, receiver: str, after_sequence: int, since: float) -> tuple[int, Sequence[Notification]]:
        try:
            found = undelivered_notifications(self._database, receiver, after_sequence, since)
        except StoreError as error:  # a commit would fail now as well
            if not self._unreadable:
                self._log.error("escalation paused, outbox unreadable: error=%s", error)
            self._unreadable = True
            return after_sequence, ()
        self._unreadable = False
        return found

    def _describe_queue(self, receiver: str) -> str:
        try:
            return describe_queue(self._database, receiver)
        except StoreError as error:
            return str(error)
