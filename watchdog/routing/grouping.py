"""Who is to be told what, and when: transitions in, notices out.

A group is what one receiver hears of one rule, unless a route groups by something else. The waits are Alertmanager's
(`group_wait`, `group_interval`, `repeat_interval`), the reasons for a notice too; two things differ. An alert that
fired and resolved before its group's first notice is told as resolved, not dropped. And a receiver that was told
"firing" is always told the end of it, also when rule, severity, routing or daemon change in between. Source of the
waits: Alertmanager, docs/configuration.md and dispatch/.

Times are CLOCK_BOOTTIME, passed in; the wall clock is copied into notices for display.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from watchdog.alerts.alert import Alert, AlertState, Transition, TransitionKind
from watchdog.clock import Now
from watchdog.config.settings import RoutingSettings
from watchdog.errors import DocumentError, document_errors
from watchdog.routing.flapping import FlappingDetector
from watchdog.routing.group import GroupMember, NotificationGroup, ReceiverGroupKey
from watchdog.routing.jitter import Jitter
from watchdog.routing.notification import Notification
from watchdog.routing.routes import Destination, Route, Router

NO_LONGER_ACTIVE = "no longer active"
NO_LONGER_ROUTED = "no longer routed to this receiver"


class Grouping:
    """Groups alerts by receiver and rule, or as routes say, and makes the notices that are due."""

    def __init__(
        self,
        routing: RoutingSettings,
        host: str,
        routes: Sequence[Route] = (),
        jitter_share: float = 0.0,
        is_escalated_to: Callable[[str, Alert], bool] | None = None,
    ) -> None:
        """Go by `routes` and `routing`; `host` is named in every notice, `share` is its share of the jitter.

        `is_escalated_to` tells whether a receiver hears of an alert in another way: then it is none of ours.
        """
        self._routing = routing
        self._elsewhere = is_escalated_to or (lambda receiver, alert: False)  # noqa: ARG005 - named as it is called
        self._router = Router(routing, routes)
        self._host = host
        self._groups: dict[ReceiverGroupKey, NotificationGroup] = {}
        self._homes: dict[
            str, set[ReceiverGroupKey]
        ] = {}  # by fingerprint: the groups that it is in, one of each receiver
        self._changed: set[ReceiverGroupKey] = set()
        self._reconcile_again = False
        self._jitter = Jitter(jitter_share)
        self._flapping = FlappingDetector()
        self._due: list[Notification] = []  # made, and not yet returned

    def advance(self, transitions: Sequence[Transition], firing: Mapping[str, Alert], now: Now) -> list[Notification]:
        """Take one tick's transitions and return the notices that are due.

        `firing`: every alert that fires after `transitions`, by fingerprint. A notice that is returned counts as told:
        it must reach the outbox together with `take_changes()`. When it raises, what it made comes with the next call.
        """
        self._forget(key for key, group in self._groups.items() if group.is_expired(now.boottime_ns))
        touched: set[ReceiverGroupKey] = set()
        for transition in transitions:
            touched.update(self._apply(transition, now))
        self._touch(touched, now.boottime_ns)
        if self._reconcile_again:
            self._reconcile_again = False
            self._reconcile(firing, now)
        for key, group in self._groups.items():
            if group.is_due(now.boottime_ns, self._jitter.delay_ns):
                self._changed.add(key)
                self._due.append(self._notice(key, group, firing, now))
                self._settle(key, group, now.boottime_ns)
        due, self._due = self._due, []
        return due

    def is_routed_to(self, receiver: str, alert: Alert) -> bool:
        """Tell whether `receiver` is one of those whom `alert` is routed to, as it is now."""
        return any(destination.receiver == receiver for destination in self._router.destinations(alert))

    def notified_alerts(self, receivers: Collection[str]) -> dict[str, list[Alert]]:
        """Return by receiver, of `receivers`, what fires and what it was told of (the outbox may still have that)."""
        told: dict[str, list[Alert]] = {receiver: [] for receiver in receivers}
        for (receiver, _), group in self._groups.items():
            if receiver in told:
                told[receiver] += (
                    member.alert
                    for member in group.members.values()
                    if member.notified_severity is not None and member.alert.resolved is None
                )
        return told

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing fires here and no end is to be told."""
        return all(member.is_routed_elsewhere for group in self._groups.values() for member in group.members.values())

    def has_alert(self, fingerprint: str) -> bool:
        """Tell whether an alert is in any group: somebody was told of it, or is going to be."""
        return fingerprint in self._homes

    def drop_alert(self, fingerprint: str, at_ns: int) -> None:
        """Say no more of an alert: its receivers hear of it in another way."""
        keys = sorted(self._homes.get(fingerprint, ()))
        for key in keys:
            self._remove(key, fingerprint)
        self._touch(keys, at_ns)

    def request_reconcile(self) -> None:
        """Compare what receivers know with what fires at the next `advance`: transitions may have been lost."""
        self._reconcile_again = True

    def reload(
        self,
        routing: RoutingSettings,
        firing: Mapping[str, Alert],
        now: Now,
        receivers: Collection[str] | None = None,
        routes: Sequence[Route] = (),
    ) -> None:
        """Take a new routing, and alerts whose receivers may have changed with their rules.

        Receivers that are new to a firing alert are told of it; those that are not to hear of it any more are told
        its end, once. Whoever knew and still is to know hears nothing. `receivers`: all that exist now, None when they
        are the same as before; groups of others are forgotten, for there is nobody to tell.
        """
        self._routing = routing
        self._router = Router(routing, routes, self._router.existing_receivers if receivers is None else receivers)
        if receivers is not None:
            self._forget(key for key in self._groups if key[0] not in receivers)
        self._jitter.restart(now, routing.jitter_ns)
        self._reconcile(firing, now)
        for key, group in self._groups.items():
            self._refresh(key, group, now.boottime_ns)
        self.request_reconcile()  # alerts get the receivers of their new rules with the next tick

    def restore(
        self,
        saved: Iterable[Mapping[str, Any]],
        firing: Mapping[str, Alert],
        receivers: Collection[str],
        now: Now,
        boottime_shift_ns: int,
        notified: Iterable[tuple[str, Alert]] = (),
    ) -> int:
        """Take back what `take_changes` gave before a restart; what a receiver already knows is not news.

        `firing`: the alerts that the lifecycle restored; `receivers` as in `reload`. `boottime_shift_ns` turns saved
        times into
        this boot's; after a shift every group counts as changed, so that no time of the former boot stays in the store.
        `told`: receivers and what they were told to fire, without those whose end waits to be sent. Where no group
        knows of it, as the group or a notice was lost, they are told the end of what fires no more, once.
        Return how many groups could not be read: their receivers are told anew of what fires, unless `told` has it.
        """
        forgotten = 0
        for document in saved:
            try:
                with document_errors():
                    key = document["receiver"], document["group_key"]
                group = NotificationGroup.from_json(document, boottime_shift_ns, self._router.default_timing)
            except DocumentError:
                forgotten += 1
                continue
            self._groups[key] = group
            for fingerprint in group.members:
                self._homes.setdefault(fingerprint, set()).add(key)
            if boottime_shift_ns:
                self._changed.add(key)
        for receiver, alert in notified:
            self._remember(receiver, alert, firing, now.boottime_ns)
        self.reload(self._routing, firing, now, receivers, self._router.routes)
        return forgotten

    def mark_all_changed(self) -> None:
        """Let every group count as changed: what was saved of it may be gone."""
        self._changed.update(self._groups)

    def take_changes(self) -> list[tuple[ReceiverGroupKey, dict[str, Any] | None]]:
        """Return the state of every group that changed since the last call, None for one that is over."""
        changes = []
        for key in sorted(self._changed):
            group = self._groups.get(key)
            changes.append((key, None if group is None else group.to_json(key)))
        self._changed.clear()
        return changes

    def _destinations(self, alert: Alert) -> tuple[Destination, ...]:
        # The one place that says who is to know of an alert from here.
        found = self._router.destinations(alert)
        return tuple(each for each in found if not self._elsewhere(each.receiver, alert))

    def _remember(self, receiver: str, alert: Alert, firing: Mapping[str, Alert], at_ns: int) -> None:
        # `receiver` took a notice that `alert` fires, and no end of it is on its way.
        for key in self._homes.get(alert.fingerprint, ()):
            if key[0] == receiver:
                member = self._groups[key].members[alert.fingerprint]
                if member.is_end_notified:  # it was made, and never arrived
                    member.notified_severity, member.is_notified_firing, member.is_end_notified = (
                        alert.severity,
                        True,
                        False,
                    )
                    self._changed.add(key)
                return
        usual = Destination(receiver, alert.rule, None, self._router.default_timing)
        routed = (each for each in self._router.destinations(alert) if each.receiver == receiver)
        home = next(routed, usual)
        group = self._enter((receiver, home.group_key), home, alert.fingerprint)
        group.members[alert.fingerprint] = GroupMember(alert, alert.severity, is_notified_firing=True)
        if group.last_notification_ns is None and alert.fingerprint in firing:
            group.last_notification_ns = at_ns  # nobody knows; reminders begin from here

    def _apply(self, transition: Transition, now: Now) -> Iterator[ReceiverGroupKey]:
        alert = transition.alert
        if transition.kind is TransitionKind.RESOLVED:
            yield from self._resolve(alert)
            return
        anew = transition.kind is TransitionKind.FIRING
        if anew:
            self._flapping.record_firing(alert, now.boottime_ns)
        yield from self._route(alert, now.wall, anew=anew)

    def _resolve(self, alert: Alert) -> Iterator[ReceiverGroupKey]:
        for key in sorted(self._homes.get(alert.fingerprint, ())):
            member = self._groups[key].members[alert.fingerprint]
            if member.is_end_notified:
                self._remove(key, alert.fingerprint)
                yield key
            # Why it ended for all is told rather than why it ended for one, but not of another firing.
            elif member.alert.resolved is None or member.alert.fired == alert.fired:
                member.alert = alert
                yield key

    def _reconcile(self, firing: Mapping[str, Alert], now: Now) -> None:
        # Brings what receivers know in line with who is to know what, where no transition tells.
        touched: set[ReceiverGroupKey] = set()
        for fingerprint in self._homes.keys() - firing.keys():
            for key in sorted(self._homes[fingerprint]):
                member = self._groups[key].members[fingerprint]
                if member.is_end_notified:
                    self._remove(key, fingerprint)
                elif member.alert.resolved is None:
                    member.alert = _ended(member.alert, now.wall, NO_LONGER_ACTIVE)
                else:
                    continue
                touched.add(key)
        for alert in firing.values():
            touched.update(self._route(alert, now.wall))
        self._touch(touched, now.boottime_ns)

    def _route(self, alert: Alert, wall: float, *, anew: bool = False) -> Iterator[ReceiverGroupKey]:
        # Brings those who know of a firing alert, and those who are to know, in line; yields the groups that changed.
        # With `anew` it has just begun to fire: an end that was not told yet is not told any more, the new start is.
        wanted = {destination.receiver: destination for destination in self._destinations(alert)}
        for key in sorted(self._homes.get(alert.fingerprint, ())):
            group = self._groups[key]
            member = group.members[alert.fingerprint]
            destination = wanted.get(key[0])
            if destination is None and self._elsewhere(key[0], alert):
                self._remove(key, alert.fingerprint)
                yield key
                continue
            if destination is None:
                yield from self._dismiss(key, member, alert, wall)
                continue
            del wanted[key[0]]
            home = key[0], destination.group_key
            over = member.alert.resolved is not None
            if anew or (over and member.alert.fired != alert.fired):
                member.notified_severity, member.is_end_notified = None, False
                member.alert = alert
                yield key
            elif over or home != key or member.alert.severity != alert.severity:
                member.alert = alert
                yield key
            if home != key:
                self._remove(key, alert.fingerprint)
                self._enter(home, destination, alert.fingerprint).adopt_member(member, group)
                yield home
        for destination in wanted.values():
            home = destination.receiver, destination.group_key
            self._enter(home, destination, alert.fingerprint).members[alert.fingerprint] = GroupMember(alert)
            yield home

    def _dismiss(
        self, key: ReceiverGroupKey, member: GroupMember, alert: Alert, wall: float
    ) -> Iterator[ReceiverGroupKey]:
        # `key`'s receiver is not to hear of `alert` any more: it is told an end, if it was told a beginning.
        if member.alert.resolved is not None:
            return
        if not (member.is_notified_firing or member.is_end_notified):
            self._remove(key, alert.fingerprint)
        elif member.alert.severity != alert.severity:
            label = alert.severity.label
            member.alert = _ended(member.alert, wall, f"{label} now, no longer routed to this receiver")
        else:
            member.alert = _ended(member.alert, wall, NO_LONGER_ROUTED)
        yield key

    def _enter(self, key: ReceiverGroupKey, destination: Destination, fingerprint: str) -> NotificationGroup:
        self._homes.setdefault(fingerprint, set()).add(key)
        if key not in self._groups:
            self._groups[key] = NotificationGroup(destination.group_timing, destination.group_labels)
        return self._groups[key]

    def _remove(self, key: ReceiverGroupKey, fingerprint: str) -> None:
        del self._groups[key].members[fingerprint]
        self._leave(key, fingerprint)

    def _leave(self, key: ReceiverGroupKey, fingerprint: str) -> None:
        homes = self._homes[fingerprint]
        homes.discard(key)
        if not homes:
            del self._homes[fingerprint]

    def _touch(self, keys: Iterable[ReceiverGroupKey], at_ns: int) -> None:
        for key in keys:
            self._refresh(key, self._groups[key], at_ns)
            self._changed.add(key)

    def _refresh(self, key: ReceiverGroupKey, group: NotificationGroup, at_ns: int) -> None:
        group.update_schedule(at_ns, lambda alert: self._router.group_timing_of(key[0], alert))

    def _forget(self, keys: Iterable[ReceiverGroupKey]) -> None:
        for key in list(keys):
            for fingerprint in self._groups[key].members:
                self._leave(key, fingerprint)
            del self._groups[key]
            self._changed.add(key)

    def _notice(
        self, key: ReceiverGroupKey, group: NotificationGroup, firing: Mapping[str, Alert], now: Now
    ) -> Notification:
        receiver, name = key
        reason = group.reason()
        alerts = group.mark_notified(firing, now.boottime_ns)
        told = tuple(self._flapping.mark_flapping(alert, now.boottime_ns) for alert in alerts)
        return Notification(
            uuid.uuid4().hex,
            receiver,
            name,
            reason,
            told,
            created=now.wall,
            host=self._host,
            group_labels=group.group_labels,
        )

    def _settle(self, key: ReceiverGroupKey, group: NotificationGroup, at_ns: int) -> None:
        # After a notice: what has ended is no member any more, and the waits are those of what still fires.
        for alert in self._due[-1].alerts:
            if alert.fingerprint not in group.members:
                self._leave(key, alert.fingerprint)
        self._refresh(key, group, at_ns)


def _ended(alert: Alert, wall: float, reason: str) -> Alert:
    return replace(alert, state=AlertState.RESOLVED, resolved=wall, reason=reason)
