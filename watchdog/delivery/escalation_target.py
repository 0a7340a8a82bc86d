"""Escalation: what a second receiver hears in place of others that do not answer.

It is told what they could not be told, and then goes on with those alerts as if they had been its own from the
beginning: it hears of another severity, is reminded, and is told the end, once, although the first ones may answer
again by then. What it hears of anyway it does not hear twice.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from watchdog.alerts.alert import Alert, Transition, TransitionKind
from watchdog.clock import Now
from watchdog.config.settings import RoutingSettings
from watchdog.delivery.receiver_down import Outage, is_receiver_down_alert
from watchdog.errors import DocumentError, document_errors
from watchdog.routing.group import ReceiverGroupKey
from watchdog.routing.grouping import Grouping
from watchdog.routing.notification import Notification, NotificationReason

ESCALATION_PREFIX = ">"
"""Begins the rule in the key of what is saved here: no rule has such an id."""

UndeliveredLookup = Callable[[str, int, float], tuple[int, Sequence[Notification]]]
"""Of a receiver, a place and a wall-clock time: the notices after that place which did not reach it since, oldest
first, and the place after which to go on."""

# What has ended stays known, for notices of it may still wait; so many in an outage, and after it.
_MOST_ENDED, _MOST_ENDED_AFTER = 10_000, 1_000


class EscalationTarget:
    """One second receiver, and the alerts that it was told of in place of others."""

    def __init__(self, name: str, routing: RoutingSettings, host: str) -> None:
        """Stand by for nobody yet; `routing` has the waits."""
        self.name = name
        self._after_ns: Mapping[str, int] = {}
        self._grouping = Grouping(_own(routing, name), host)
        self._places: dict[str, int] = {}  # by first receiver: how far its notices were looked through
        self._known: dict[str, tuple[float, str]] = {}  # by fingerprint: which firing, and who could not be told
        self._changed = False

    @property
    def is_idle(self) -> bool:
        """Tell whether it stands by for nobody and has no end to tell."""
        return not self._after_ns and self._grouping.is_empty

    def advance(
        self,
        failing: Mapping[str, Outage],
        find_undelivered: UndeliveredLookup,
        transitions: Iterable[Transition],
        firing: Mapping[str, Alert],
        is_routed_to: Callable[[str, Alert], bool],
        now: Now,
    ) -> list[Notification]:
        """Return the notices that are due; `firing` and `transitions` as in `Grouping.advance`.

        `is_routed_to` tells whether an alert is routed to a receiver.
        """
        own = []
        for transition in transitions:
            if transition.kind is not TransitionKind.FIRING:
                if self.was_notified(transition.alert):
                    own.append(Transition(transition.kind, self._own(transition.alert)))
            elif is_routed_to(self.name, transition.alert):
                # It hears the new beginning itself: the end of the one before would be taken for that of this one.
                self._grouping.drop_alert(transition.alert.fingerprint, now.boottime_ns)
        for first, after_ns in self._after_ns.items():
            failure = failing.get(first)
            if failure is None:
                # Places are not kept for longer: once old rows are gone, SQLite gives their places away again.
                self._changed |= self._places.pop(first, None) is not None
            elif now.boottime_ns - failure.since_ns >= after_ns:
                place, notifications = find_undelivered(first, self._places.get(first, 0), failure.since)
                if place != self._places.get(first, 0):
                    self._places[first] = place
                    self._changed = True
                newest = {alert.fingerprint: alert for notification in notifications for alert in notification.alerts}
                for alert in newest.values():
                    own += self._take_over(first, alert, firing, is_routed_to)
        self._forget_ended(firing)
        notifications = self._grouping.advance(own, self._firing(firing), now)
        return [self._with_reason(notification, failing) for notification in notifications]

    def notified_alerts(self) -> list[Alert]:
        """Return what fires and what the receiver was told of here."""
        return self._grouping.notified_alerts((self.name,))[self.name]

    def was_notified(self, alert: Alert) -> bool:
        """Tell whether the receiver was told of this very firing of `alert` here."""
        known = self._known.get(alert.fingerprint)
        return known is not None and known[0] == alert.fired

    def owes_resolved(self, alert: Alert) -> bool:
        """Tell whether the receiver was told of this very firing of `alert` here, and not of its end."""
        return self.was_notified(alert) and self._grouping.has_alert(alert.fingerprint)

    def mark_all_changed(self) -> None:
        """Have all of it returned by `take_changes` once more."""
        self._grouping.mark_all_changed()
        self._changed = True

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
        """Stand by for the receivers in `after_ns`, by how long each may fail; what was told goes on.

        When the receiver does not exist any more, all is forgotten: there is nobody to tell.
        """
        self._after_ns = dict(escalate_after_ns)
        receivers = (self.name,) if receiver_exists else ()
        self._grouping.reload(_own(routing, self.name), self._firing(firing), now, receivers)
        if not receiver_exists:
            self._known, self._places, self._changed = {}, {}, True

    def restore(
        self,
        saved: Iterable[Mapping[str, Any]],
        firing: Mapping[str, Alert],
        now: Now,
        boottime_shift_ns: int,
    ) -> int:
        """Take back what `take_changes` gave before a restart; return how much of it could not be read."""
        groups, forgotten = [], 0
        for document in saved:
            if "group_key" in document:
                groups.append(document)
                continue
            try:
                with document_errors():
                    self._places = {str(first): int(place) for first, place in document["read_sequences"].items()}
                    known = document["escalated_alerts"].items()
                    self._known = {str(key): (float(fired), str(first)) for key, (fired, first) in known}
            except DocumentError:
                forgotten += 1
        return forgotten + self._grouping.restore(groups, self._firing(firing), (self.name,), now, boottime_shift_ns)

    def take_changes(self) -> list[tuple[ReceiverGroupKey, dict[str, Any] | None]]:
        """Return what changed since the last call, as saved groups whose keys are no others'."""
        changes: list[tuple[ReceiverGroupKey, dict[str, Any] | None]] = [
            ((receiver, ESCALATION_PREFIX + rule), None if state is None else {**state, "is_escalation": True})
            for (receiver, rule), state in self._grouping.take_changes()
        ]
        if self._changed:
            document = {
                "receiver": self.name,
                "is_escalation": True,
                "read_sequences": self._places,
                "escalated_alerts": self._known,
            }
            changes.append(((self.name, ESCALATION_PREFIX), document if self._places or self._known else None))
            self._changed = False
        return changes

    def _take_over(
        self, first: str, alert: Alert, firing: Mapping[str, Alert], is_routed_to: Callable[[str, Alert], bool]
    ) -> Iterator[Transition]:
        current = firing.get(alert.fingerprint)
        if alert.resolved is None:
            if current is None:
                return  # it has ended, and the notice that says so is on its way
            alert = current
        elif current is not None and (is_routed_to(self.name, current) or self.was_notified(current)):
            return  # it fires again, as is known: an end would be taken for that of the new beginning
        if self.was_notified(alert) or is_receiver_down_alert(alert, self.name) or is_routed_to(self.name, alert):
            return
        self._known.pop(alert.fingerprint, None)  # so that the newest comes last
        self._known[alert.fingerprint] = (alert.fired, first)
        self._changed = True
        yield Transition(TransitionKind.FIRING, self._own(alert))
        if alert.resolved is not None:
            yield Transition(TransitionKind.RESOLVED, self._own(alert))

    def _forget_ended(self, firing: Mapping[str, Alert]) -> None:
        most = _MOST_ENDED if self._places else _MOST_ENDED_AFTER
        if len(self._known) > most:
            ended = [key for key in self._known if key not in firing]
            for key in ended[: max(0, len(ended) - most)]:
                del self._known[key]
                self._changed = True

    def _own(self, alert: Alert) -> Alert:
        return replace(alert, receivers=(self.name,))

    def _firing(self, firing: Mapping[str, Alert]) -> dict[str, Alert]:
        return {key: self._own(firing[key]) for key in self._known if key in firing and self.was_notified(firing[key])}

    def _with_reason(self, notification: Notification, failing: Mapping[str, Outage]) -> Notification:
        """Return `notification` with the receivers in its reason that could not be notified."""
        if notification.reason is NotificationReason.REPEAT:
            return notification
        known = [self._known[alert.fingerprint] for alert in notification.alerts if alert.fingerprint in self._known]
        firsts = sorted({first for _, first in known})
        silent = [first for first in firsts if first in failing]
        if not silent:
            detail = f"escalated while {' and '.join(firsts) or 'others'} did not answer"
            return replace(notification, reason_detail=detail)
        since = dt.datetime.fromtimestamp(min(failing[first].since for first in silent), tz=dt.UTC)
        verb = "does" if len(silent) == 1 else "do"
        detail = f"{' and '.join(silent)} {verb} not answer since {since:%Y-%m-%d %H:%M:%S} UTC"
        return replace(notification, reason=NotificationReason.ESCALATED, reason_detail=detail)


def _own(routing: RoutingSettings, name: str) -> RoutingSettings:
    return RoutingSettings((name,), routing.group_wait_ns, routing.group_interval_ns, routing.repeat_interval_ns)
