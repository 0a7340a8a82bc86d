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
from watchdog.config.durations import format_duration
from watchdog.config.settings import RoutingSettings
from watchdog.delivery.health import Outage
from watchdog.delivery.receiver_down import is_receiver_down_alert
from watchdog.delivery.unacknowledged import Unacknowledged
from watchdog.errors import DocumentError, document_errors
from watchdog.routing.group import ReceiverGroupKey
from watchdog.routing.grouping import Grouping
from watchdog.routing.knowledge import Knowledge
from watchdog.routing.notification import Notification, NotificationReason
from watchdog.routing.suppression import NoSuppression, SuppressionLookup
from watchdog.state.documents import JsonDocument

UndeliveredLookup = Callable[[str, int, float], tuple[int, Sequence[Notification]]]
"""(receiver, after_sequence, since) -> (last_sequence, notifications): notifications with a higher sequence that did
not reach `receiver` after `since` (wall clock), oldest first. The next call begins after `last_sequence`."""

# Resolved alerts are remembered, for notifications about them may still be pending: so many during an outage and after.
_MAX_RESOLVED_IN_OUTAGE, _MAX_RESOLVED = 10_000, 1_000


class EscalationTarget:
    """One escalation target, and the alerts that were escalated to it."""

    def __init__(
        self,
        name: str,
        routing: RoutingSettings,
        host: str,
        suppression: SuppressionLookup | None = None,
        end_reasons: Mapping[str, str] | None = None,
    ) -> None:
        """Create a target without first receivers, see `reload`; `routing` has the group timing.

        `suppression`, `end_reasons`: as in `Grouping`.
        """
        self.name = name
        self._after_ns: Mapping[str, int] = {}
        self._unacknowledged_ns: Mapping[str, int] = {}
        self._suppression = suppression or NoSuppression()
        self._unacknowledged = Unacknowledged()
        self._waited_for: set[str] = set()  # fingerprints of escalated alerts that nobody acknowledged
        self._grouping = Grouping(_routing_for(routing, name), host, suppression=suppression, end_reasons=end_reasons)
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
        find_notified: Callable[[str], Sequence[Alert]] = lambda _: (),
    ) -> list[Notification]:
        """Return the notifications that are due; `firing` and `transitions` as in `Grouping.advance`.

        `is_routed_to`: returns whether an alert is routed to a receiver. `find_notified`: returns the firing alerts
        that a receiver was notified of.
        """
        escalated: list[Transition] = []
        for transition in transitions:
            if transition.kind is not TransitionKind.FIRING:
                if self.was_notified(transition.alert):
                    escalated.append(Transition(transition.kind, self._readdress(transition.alert)))
            elif is_routed_to(self.name, transition.alert):
                # The new firing comes to it by its routes; a resolved notification of the old one would seem to end it.
                self._grouping.drop_alert(transition.alert.fingerprint, now.boottime_ns)
        for first, alert in self._find_undelivered(outages, find_undelivered, now.boottime_ns):
            escalated += self._escalate(first, alert, firing, is_routed_to)
        for first, alert in self._find_unacknowledged(find_notified, now.boottime_ns):
            begun = list(self._escalate(first, alert, firing, is_routed_to))
            self._waited_for.update(transition.alert.fingerprint for transition in begun)
            escalated += begun
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
        unacknowledged_ns: Mapping[str, int] | None = None,
        *,
        receiver_exists: bool = True,
    ) -> None:
        """Take a new configuration; alerts that were escalated already stay with this target.

        `escalate_after_ns`: by first receiver, the age of its outage at which to escalate. `unacknowledged_ns`: by
        first receiver, the time without an acknowledgement after which to escalate an alert that it knows. If the
        target itself was removed (`receiver_exists` is False), everything is forgotten.
        """
        self._after_ns = dict(escalate_after_ns)
        self._unacknowledged_ns = dict(unacknowledged_ns or {})
        self._unacknowledged.keep_only(self._unacknowledged_ns)
        receivers = (self.name,) if receiver_exists else ()
        self._grouping.reload(_routing_for(routing, self.name), self._firing(firing), now, receivers)
        if not receiver_exists:
            self._escalated, self._read_sequences, self._changed = {}, {}, True
            self._unacknowledged, self._waited_for = Unacknowledged(), set()

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
                self._restore_progress(progress, boottime_shift_ns)
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
        waiting = self._unacknowledged.to_json()
        if not (self._read_sequences or self._escalated or waiting):
            return [(self.name, None)]
        document = {
            "receiver": self.name,
            "read_sequences": self._read_sequences,
            "escalated_alerts": self._escalated,
            "unacknowledged": waiting,
            "waited_for": sorted(self._waited_for),
        }
        return [(self.name, document)]

    @document_errors()
    def _restore_progress(self, document: Mapping[str, Any], boottime_shift_ns: int) -> None:
        self._read_sequences = {str(first): int(sequence) for first, sequence in document["read_sequences"].items()}
        escalated = document["escalated_alerts"].items()
        self._escalated = {str(key): (float(fired), str(first)) for key, (fired, first) in escalated}
        self._unacknowledged.restore(document.get("unacknowledged", ()), boottime_shift_ns)
        self._waited_for = {str(key) for key in document.get("waited_for", ())}

    def _find_undelivered(
        self, outages: Mapping[str, Outage], find_undelivered: UndeliveredLookup, now_ns: int
    ) -> Iterator[tuple[str, Alert]]:
        for first, after_ns in self._after_ns.items():
            outage = outages.get(first)
            if outage is None:
                # Not kept for longer: once old rows are gone, SQLite may use their sequence numbers again.
                self._changed |= self._read_sequences.pop(first, None) is not None
            elif outage.has_lasted(after_ns, now_ns):
                sequence, notifications = find_undelivered(first, self._read_sequences.get(first, 0), outage.since)
                if sequence != self._read_sequences.get(first, 0):
                    self._read_sequences[first] = sequence
                    self._changed = True
                newest = {alert.fingerprint: alert for notification in notifications for alert in notification.alerts}
                yield from ((first, alert) for alert in newest.values())

    def _find_unacknowledged(
        self, find_notified: Callable[[str], Sequence[Alert]], now_ns: int
    ) -> Iterator[tuple[str, Alert]]:
        # A silence counts as an acknowledgement: somebody has seen the alert.
        for first, wait_ns in self._unacknowledged_ns.items():
            waiting = [alert for alert in find_notified(first) if self._suppression.find(first, alert) is None]
            due, has_changed = self._unacknowledged.update(first, waiting, wait_ns, now_ns)
            self._changed |= has_changed
            yield from ((first, alert) for alert in due)

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
        self._waited_for.discard(alert.fingerprint)
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
                self._waited_for.discard(key)
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
        if all(alert.fingerprint in self._waited_for for alert in notification.alerts):
            return self._with_reason_unacknowledged(notification)
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

    def _with_reason_unacknowledged(self, notification: Notification) -> Notification:
        entries = [self._escalated.get(alert.fingerprint) for alert in notification.alerts]
        firsts = sorted({entry[1] for entry in entries if entry is not None})
        times = {
            format_duration(self._unacknowledged_ns[first]) for first in firsts if first in self._unacknowledged_ns
        }
        within = f" within {times.pop()}" if len(times) == 1 else ""
        detail = f"not acknowledged{within} after a notification to {' and '.join(firsts) or 'others'}"
        is_news = notification.reason in {NotificationReason.FIRST, NotificationReason.NEW_ALERT}
        reason = NotificationReason.ESCALATED if is_news else notification.reason
        return replace(notification, reason=reason, reason_detail=detail)


def _routing_for(routing: RoutingSettings, name: str) -> RoutingSettings:
    return RoutingSettings((name,), routing.group_wait_ns, routing.group_interval_ns, routing.repeat_interval_ns)
