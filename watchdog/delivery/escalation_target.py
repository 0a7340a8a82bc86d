"""Escalation: the notifications that a second receiver gets in place of receivers that fail.

The escalation target gets the alerts that did not reach the first receivers. From then on it gets all further
notifications of these alerts: changes of severity, reminders, and exactly one resolved notification, even if the first
receivers work again by then. Alerts that are routed to the target anyway are not escalated to it as well.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from watchdog.alerts.alert import Alert, Transition, TransitionKind
from watchdog.clock import Now
from watchdog.config.settings import RoutingSettings
from watchdog.delivery.health import Outage
from watchdog.delivery.receiver_down import is_receiver_down_alert
from watchdog.errors import DocumentError, document_errors
from watchdog.routing.group import ReceiverGroupKey
from watchdog.routing.grouping import Grouping
from watchdog.routing.knowledge import Knowledge
from watchdog.routing.notification import Notification, NotificationReason
from watchdog.routing.suppression import SuppressionLookup
from watchdog.state.documents import JsonDocument

UndeliveredLookup = Callable[[str, int, float], tuple[int, Sequence[Notification]]]
"""(receiver, after_sequence, since) -> (last_sequence, notifications): notifications with a higher sequence that did
not reach `receiver` after `since` (wall clock), oldest first. The next call begins after `last_sequence`."""

# Resolved alerts are remembered, for notifications about them may still be pending: so many during an outage and after.
_MAX_RESOLVED_IN_OUTAGE, _MAX_RESOLVED = 10_000, 1_000


class EscalationTarget:
    """One escalation target, and the alerts that were escalated to it."""

    def __init__(
        self, name: str, routing: RoutingSettings, host: str, suppression: SuppressionLookup | None = None
    ) -> None:
        """Create a target without first receivers, see `reload`; `routing` has the group timing.

        `suppression`: as in `Grouping`.
        """
        self.name = name
        self._after_ns: Mapping[str, int] = {}
        self._grouping = Grouping(_routing_for(routing, name), host, suppression=suppression)
        self._read_sequences: dict[str, int] = {}  # by first receiver: last sequence read from the outbox
        self._escalated: dict[str, tuple[float, str]] = {}  # by fingerprint: time of firing, first receiver
        self._changed = False

    @property
    def is_idle(self) -> bool:
        """Return whether it has no first receiver and owes no resolved notification."""
        return not self._after_ns and self._grouping.is_empty

    def advance(
        self,
        outages: Mapping[str, Outage],
        find_undelivered: UndeliveredLookup,
        transitions: Iterable[Transition],
        firing: Mapping[str, Alert],
        is_routed_to: Callable[[str, Alert], bool],
        now: Now,
    ) -> list[Notification]:
        """Return the notifications that are due; `firing` and `transitions` as in `Grouping.advance`.

        `is_routed_to`: returns whether an alert is routed to a receiver.
        """
        escalated: list[Transition] = []
        for transition in transitions:
            if transition.kind is not TransitionKind.FIRING:
                if self.was_notified(transition.alert):
                    escalated.append(Transition(transition.kind, self._readdress(transition.alert)))
            elif is_routed_to(self.name, transition.alert):
                # The new firing comes to it by its routes; a resolved notification of the old one would seem to end it.
                self._grouping.drop_alert(transition.alert.fingerprint, now.boottime_ns)
        for first, after_ns in self._after_ns.items():
            outage = outages.get(first)
            if outage is None:
                # Not kept for longer: once old rows are gone, SQLite may use their sequence numbers again.
                self._changed |= self._read_sequences.pop(first, None) is not None
            elif outage.has_lasted(after_ns, now.boottime_ns):
                sequence, notifications = find_undelivered(first, self._read_sequences.get(first, 0), outage.since)
                if sequence != self._read_sequences.get(first, 0):
                    self._read_sequences[first] = sequence
                    self._changed = True
                newest = {alert.fingerprint: alert for notification in notifications for alert in notification.alerts}
                for alert in newest.values():
                    escalated += self._escalate(first, alert, firing, is_routed_to)
        self._forget_resolved(firing)
        notifications = self._grouping.advance(escalated, self._firing(firing), now)
        return [self._with_reason(notification, outages) for notification in notifications]

    def set_host(self, host: str) -> None:
        """Name `host` in later notifications."""
        self._grouping.host = host

    def notified_alerts(self) -> list[Alert]:
        """Return the firing alerts that were escalated to the receiver."""
        return self._grouping.notified_alerts((self.name,))[self.name]

    def was_notified(self, alert: Alert) -> bool:
        """Return whether this firing of `alert` was escalated to the receiver."""
        entry = self._escalated.get(alert.fingerprint)
        return entry is not None and entry[0] == alert.fired

    def owes_resolved(self, alert: Alert) -> bool:
        """Return whether this firing of `alert` was escalated to the receiver, and its resolved notification is due."""
        return self.was_notified(alert) and self._grouping.has_alert(alert.fingerprint)

    def mark_all_changed(self) -> None:
        """Make the next `take_changes` return everything."""
        self._grouping.mark_all_changed()
        self._changed = True

    def correct(self, knowledge: Knowledge, firing: Mapping[str, Alert], now: Now) -> None:
        """As `Grouping.correct`, for the alerts escalated to this target; ends that failed are not owed from here."""
        self._grouping.correct(replace(knowledge, unresolved=()), self._firing(firing), now)

    def request_reconcile(self) -> None:
        """As `Grouping.request_reconcile`."""
        self._grouping.request_reconcile()

    def reload(
        self,
        escalate_after_ns: Mapping[str, int],
        routing: RoutingSettings,
        firing: Mapping[str, Alert],
        now: Now,
        *,
        receiver_exists: bool = True,
    ) -> None:
        """Take a new configuration; alerts that were escalated already stay with this target.

        `escalate_after_ns`: by first receiver, the age of its outage at which to escalate. If the target itself was
        removed (`receiver_exists` is False), everything is forgotten.
        """
        self._after_ns = dict(escalate_after_ns)
        receivers = (self.name,) if receiver_exists else ()
        self._grouping.reload(_routing_for(routing, self.name), self._firing(firing), now, receivers)
        if not receiver_exists:
            self._escalated, self._read_sequences, self._changed = {}, {}, True

    def restore(
        self,
        groups: Iterable[Mapping[str, Any]],
        progress: Mapping[str, Any] | None,
        firing: Mapping[str, Alert],
        now: Now,
        boottime_shift_ns: int,
    ) -> int:
        """Restore the documents of `take_changes` and `take_progress`; return the number of unreadable ones.

        `progress`: the document of `take_progress`, None without one.
        """
        unreadable = 0
        if progress is not None:
            try:
                self._restore_progress(progress)
            except DocumentError:
                unreadable += 1
        return unreadable + self._grouping.restore(groups, self._firing(firing), (self.name,), now, boottime_shift_ns)

    def take_changes(self) -> list[tuple[ReceiverGroupKey, JsonDocument | None]]:
        """Return (key, document) of each group that changed since the last call; None for a removed one."""
        return self._grouping.take_changes()

    def take_progress(self) -> list[tuple[str, JsonDocument | None]]:
        """Return the name with the document of the escalated alerts if they changed since the last call; None: none."""
        if not self._changed:
            return []
        self._changed = False
        if not (self._read_sequences or self._escalated):
            return [(self.name, None)]
        document = {
            "receiver": self.name,
            "read_sequences": self._read_sequences,
            "escalated_alerts": self._escalated,
        }
        return [(self.name, document)]

    @document_errors()
    def _restore_progress(self, document: Mapping[str, Any]) -> None:
        self._read_sequences = {str(first): int(sequence) for first, sequence in document["read_sequences"].items()}
        escalated = document["escalated_alerts"].items()
        self._escalated = {str(key): (float(fired), str(first)) for key, (fired, first) in escalated}

    def _escalate(
        self, first: str, alert: Alert, firing: Mapping[str, Alert], is_routed_to: Callable[[str, Alert], bool]
    ) -> Iterator[Transition]:
        current = firing.get(alert.fingerprint)
        if alert.resolved is None:
            if current is None:
                return  # resolved meanwhile, and a later notification in the outbox has that state
            alert = current
        elif current is not None and (is_routed_to(self.name, current) or self.was_notified(current)):
            return  # firing again, and notified: a resolved notification would seem to resolve the new firing
        if self.was_notified(alert) or is_receiver_down_alert(alert, self.name) or is_routed_to(self.name, alert):
            return
        self._escalated.pop(alert.fingerprint, None)  # so that the newest stands last
        self._escalated[alert.fingerprint] = (alert.fired, first)
        self._changed = True
        yield Transition(TransitionKind.FIRING, self._readdress(alert))
        if alert.resolved is not None:
            yield Transition(TransitionKind.RESOLVED, self._readdress(alert))

    def _forget_resolved(self, firing: Mapping[str, Alert]) -> None:
        max_resolved = _MAX_RESOLVED_IN_OUTAGE if self._read_sequences else _MAX_RESOLVED
        if len(self._escalated) > max_resolved:
            resolved = [key for key in self._escalated if key not in firing]
            for key in resolved[: max(0, len(resolved) - max_resolved)]:
                del self._escalated[key]
                self._changed = True

    def _readdress(self, alert: Alert) -> Alert:
        return replace(alert, receivers=(self.name,))

    def _firing(self, firing: Mapping[str, Alert]) -> dict[str, Alert]:
        return {
            key: self._readdress(firing[key])
            for key in self._escalated
            if key in firing and self.was_notified(firing[key])
        }

    def _with_reason(self, notification: Notification, outages: Mapping[str, Outage]) -> Notification:
        # Adds the names of the first receivers that fail, or failed, to the reason.
        if notification.reason is NotificationReason.REPEAT:
            return notification
        entries = [
            self._escalated[alert.fingerprint] for alert in notification.alerts if alert.fingerprint in self._escalated
        ]
        firsts = sorted({first for _, first in entries})
        failing = [first for first in firsts if first in outages]
        if not failing:
            detail = f"escalated while {' and '.join(firsts) or 'others'} did not answer"
            return replace(notification, reason_detail=detail)
        since = dt.datetime.fromtimestamp(min(outages[first].since for first in failing), tz=dt.UTC)
        verb = "does" if len(failing) == 1 else "do"
        detail = f"{' and '.join(failing)} {verb} not answer since {since:%Y-%m-%d %H:%M:%S} UTC"
        return replace(notification, reason=NotificationReason.ESCALATED, reason_detail=detail)


def _routing_for(routing: RoutingSettings, name: str) -> RoutingSettings:
    return RoutingSettings((name,), routing.group_wait_ns, routing.group_interval_ns, routing.repeat_interval_ns)
