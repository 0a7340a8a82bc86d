"""What is done about receivers that do not answer: others are told, second ones step in, the host's log gets a record.

Asked once a tick, between the life of alerts and the commit, with which all that it says is written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from watchdog.alerts.alert import Alert, Transition
from watchdog.clock import Now
from watchdog.config.settings import RoutingSettings, Settings
from watchdog.delivery.escalation_target import EscalationTarget
from watchdog.delivery.local_log import LocalLog
from watchdog.delivery.receiver_down import Outage, ReceiverDownAlerts
from watchdog.delivery.undelivered import describe_queue, undelivered_notifications
from watchdog.errors import StoreError
from watchdog.routing.group import ReceiverGroupKey
from watchdog.routing.notification import Notification
from watchdog.state.pending_writes import JsonDocument
from watchdog.state.store import SavedState
from watchdog.storage.database import Database


class OutageHandler:
    """The alerts about dead receivers, and whoever stands by for them."""

    def __init__(
        self, database: Database, config: Settings, receivers: Iterable[str], host: str, log: logging.Logger
    ) -> None:
        """Read of notices in `database`; `config` says who stands by for whom, and how long is too long."""
        self._database = database
        self._host = host
        self._log = log
        self._receivers = tuple(receivers)
        self._paths = ReceiverDownAlerts(self._receivers, config.routing.receiver_down_after_ns)
        self._alarm = LocalLog(log)
        self._standbys: dict[str, EscalationTarget] = {}
        self._unreadable = False
        self._dropped: list[tuple[ReceiverGroupKey, JsonDocument | None]] = []
        self._configure(config, {}, Now(0, 0.0))

    def restore(self, saved: SavedState, firing: Mapping[str, Alert], now: Now) -> int:
        """Take back what a former daemon saved; return how much of it could not be read.

        `firing`: the alerts of rules that fire.
        """
        forgotten = self._paths.restore(state for state in saved.alerts if "down_receiver" in state)
        self._alarm.restore(self._paths.alerts_by_receiver(), now.boottime_ns)
        by_receiver: dict[str, list[Mapping[str, Any]]] = {}
        for state in saved.groups:
            if "is_escalation" in state:
                by_receiver.setdefault(str(state.get("receiver")), []).append(state)
        all_firing = {**firing, **self.firing_alerts()}
        for name, documents in by_receiver.items():
            standby = self._standbys.setdefault(name, EscalationTarget(name, self._routing, self._host))
            forgotten += standby.restore(documents, all_firing, now, saved.boottime_shift_ns)
        self._drop_idle(all_firing, now)
        return forgotten

    def reload(self, config: Settings, receivers: Iterable[str], firing: Mapping[str, Alert], now: Now) -> None:
        """Go on by a new configuration; who was told of something is told its end."""
        self._receivers = tuple(receivers)
        self._paths.replace_receivers(self._receivers, config.routing.receiver_down_after_ns)
        self._configure(config, {**firing, **self.firing_alerts()}, now)

    def update_alerts(self, failing: Mapping[str, Outage], now: Now) -> list[Transition]:
        """Return what changed about the alerts on receivers, and tell the host's log of those that are dead."""
        transitions = self._paths.advance(failing, now)
        self._alarm.report(self._paths.alerts_by_receiver(), failing, self._waiting, now.boottime_ns)
        return transitions

    def firing_alerts(self) -> Mapping[str, Alert]:
        """Return the alerts about receivers that fire, by fingerprint."""
        return self._paths.firing_alerts()

    def escalate(
        self,
        failing: Mapping[str, Outage],
        transitions: Sequence[Transition],
        firing: Mapping[str, Alert],
        is_routed_to: Callable[[str, Alert], bool],
        now: Now,
    ) -> list[Notification]:
        """Return the notices for those who stand by, as `Standby.advance`."""
        return [
            notification
            for standby in self._standbys.values()
            for notification in standby.advance(failing, self._unheard, transitions, firing, is_routed_to, now)
        ]

    def notified_alerts(self, receiver: str) -> list[Alert]:
        """Return what fires and what `receiver` was told of, standing by."""
        return self._standbys[receiver].notified_alerts() if receiver in self._standbys else []

    def was_notified(self, receiver: str, alert: Alert) -> bool:
        """Tell whether `receiver` was told of this very firing of `alert`, standing by: its end is told here, too."""
        return receiver in self._standbys and self._standbys[receiver].was_notified(alert)

    def owes_resolved(self, receiver: str, alert: Alert) -> bool:
        """Tell whether it is here that `receiver` is told the end of this firing of `alert`, standing by."""
        return receiver in self._standbys and self._standbys[receiver].owes_resolved(alert)

    def mark_all_changed(self) -> None:
        """Mark all changed: `take_alert_changes` and `take_group_changes` return all of it, for a recreated store."""
        self._paths.mark_all_changed()
        for standby in self._standbys.values():
            standby.mark_all_changed()

    def request_reconcile(self) -> None:
        """As `Grouping.request_reconcile`."""
        for standby in self._standbys.values():
            standby.request_reconcile()

    def take_alert_changes(self) -> list[tuple[str, JsonDocument | None]]:
        """Return what `restore` needs of alerts that changed since the last call."""
        return self._paths.take_changes()

    def take_group_changes(self) -> list[tuple[ReceiverGroupKey, JsonDocument | None]]:
        """Return what `restore` needs of groups that changed since the last call."""
        changes, self._dropped = self._dropped, []
        for standby in self._standbys.values():
            changes += standby.take_changes()
        return changes

    def _configure(self, config: Settings, firing: Mapping[str, Alert], now: Now) -> None:
        self._routing: RoutingSettings = config.routing
        self._after_ns: dict[str, dict[str, int]] = {}
        for first, escalation in config.escalations.items():
            self._after_ns.setdefault(escalation.to, {})[first] = escalation.after_ns
        for name in self._after_ns:
            self._standbys.setdefault(name, EscalationTarget(name, config.routing, self._host))
        self._drop_idle(firing, now)

    def _drop_idle(self, firing: Mapping[str, Alert], now: Now) -> None:
        # Those who stand by no longer stay until they have told the ends of what they told.
        for name, standby in list(self._standbys.items()):
            exists = name in self._receivers
            standby.reload(self._after_ns.get(name, {}), self._routing, firing, now, receiver_exists=exists)
            if standby.is_idle:
                standby.reload({}, self._routing, {}, now, receiver_exists=False)
                self._dropped += standby.take_changes()
                del self._standbys[name]

    def _unheard(self, receiver: str, place: int, since: float) -> tuple[int, Sequence[Notification]]:
        try:
            found = undelivered_notifications(self._database, receiver, place, since)
        except StoreError as error:  # nothing could be committed now either
            if not self._unreadable:
                self._log.error("nothing can be escalated: %s", error)
            self._unreadable = True
            return place, ()
        self._unreadable = False
        return found

    def _waiting(self, receiver: str) -> str:
        try:
            return describe_queue(self._database, receiver)
        except StoreError as error:
            return str(error)
