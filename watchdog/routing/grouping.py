"""Grouping: takes the transitions of each tick and makes the notifications that are due.

A group holds the alerts of one receiver and one rule, unless a route sets `group_by`. Its three waits (`group_wait`,
`group_interval`, `repeat_interval`) and the reasons of its notifications are Alertmanager's, with three differences:
a rise in severity and a new alert do not wait for `group_interval` (`urgency.py`), an alert that fires and resolves
before the group's first notification is sent as resolved instead of being dropped, and each receiver that got a firing
notification gets exactly one resolved notification, also when rule, severity, routing or daemon change in between.
Source of the waits: Alertmanager, docs/configuration.md and dispatch/.

Times are CLOCK_BOOTTIME, passed in; the wall clock is copied into notifications for display only.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from watchdog.alerts.alert import Alert, Transition, TransitionKind
from watchdog.clock import Now, boot_id
from watchdog.config.settings import RoutingSettings
from watchdog.errors import DocumentError, document_errors
from watchdog.routing.flapping import FlappingDetector
from watchdog.routing.group import NotificationGroup, ReceiverGroupKey
from watchdog.routing.group_member import GroupMember
from watchdog.routing.jitter import Jitter
from watchdog.routing.knowledge import Knowledge
from watchdog.routing.notification import Notification, NotificationReason
from watchdog.routing.routes import Destination, Route, Router
from watchdog.routing.suppression import NoSuppression, SuppressionLookup
from watchdog.rules.language.rule import Severity

NO_LONGER_ACTIVE = "no longer active"
NO_LONGER_ROUTED = "no longer routed to this receiver"


class Grouping:
    """All groups of the host: decides for each receiver when it is notified and of which alerts."""

    def __init__(
        self,
        routing: RoutingSettings,
        host: str,
        routes: Sequence[Route] = (),
        jitter_share: float = 0.0,
        is_escalated_to: Callable[[str, Alert], bool] | None = None,
        suppression: SuppressionLookup | None = None,
        end_reasons: Mapping[str, str] | None = None,
    ) -> None:
        """Use `routes` and `routing`; `host` is named in each notification, `jitter_share` is its part of the jitter.

        `is_escalated_to(receiver, alert)`: whether escalation already notifies the receiver of the alert. Such a pair
        is left out here. `suppression`: withholds notifications, None: no alert is suppressed. `end_reasons`: by rule,
        of alerts that a former daemon had and this one has not, in place of "no longer active".
        """
        self._suppression = suppression or NoSuppression()
        self._has_suppressed = True  # an alert of a former daemon may be
        self._routing = routing
        self._end_reasons = end_reasons or {}
        self._is_escalated_to = is_escalated_to or (lambda receiver, alert: False)  # noqa: ARG005 - the signature
        self._router = Router(routing, routes)
        self.host = host  # may change: named in later notifications
        self._groups: dict[ReceiverGroupKey, NotificationGroup] = {}
        self._keys_of: dict[
            str, set[ReceiverGroupKey]
        ] = {}  # by fingerprint: the groups of the alert, one per receiver
        self._changed: set[ReceiverGroupKey] = set()
        self._must_reconcile = False
        self._jitter = Jitter(jitter_share)
        self._flapping = FlappingDetector()
        self._due: list[Notification] = []  # made, not yet returned by `advance`

    def advance(self, transitions: Sequence[Transition], firing: Mapping[str, Alert], now: Now) -> list[Notification]:
        """Apply the transitions of one tick and return the notifications that are due.

        `firing`: every alert that fires after `transitions`, by fingerprint. A returned notification counts as made: it
        must be committed to the outbox together with `take_changes()`. If this call raises, the next call returns the
        notifications that were already made.
        """
        self._drop_groups(key for key, group in self._groups.items() if group.is_expired(now.boottime_ns))
        changed: set[ReceiverGroupKey] = set()
        for transition in transitions:
            changed.update(self._apply(transition, now))
        if self._must_reconcile:
            self._must_reconcile = False
            changed |= self._reconcile(firing, now)
        changed |= self._suppress(firing, now.boottime_ns)
        self._mark_changed(changed, now.boottime_ns)
        for key, group in self._groups.items():
            if group.is_due(now.boottime_ns, self._jitter.delay_ns):
                self._changed.add(key)
                self._due.append(self._make_notification(key, group, firing, now))
                self._remove_ended(key, group, now.boottime_ns)
        due, self._due = self._due, []
        return due

    def is_routed_to(self, receiver: str, alert: Alert) -> bool:
        """Return whether the present routes lead `alert` to `receiver`."""
        return any(destination.receiver == receiver for destination in self._router.destinations(alert))

    def notified_severities(self, fingerprint: str) -> dict[str, Severity | None]:
        """Return the receivers of a firing alert with the severity that each knows; None: not notified yet."""
        keys = self._keys_of.get(fingerprint, ())
        return {key[0]: self._groups[key].members[fingerprint].known_severity for key in sorted(keys)}

    def notified_alerts(self, receivers: Collection[str]) -> dict[str, list[Alert]]:
        """Return the firing alerts in notifications made for each of `receivers`, sent or still in the outbox."""
        notified: dict[str, list[Alert]] = {receiver: [] for receiver in receivers}
        for (receiver, _), group in self._groups.items():
            if receiver in notified:
                notified[receiver] += (
                    member.as_known(member.alert)
                    for member in group.members.values()
                    if member.notified_severity is not None and member.alert.resolved is None
                )
        return notified

    @property
    def is_empty(self) -> bool:
        """Return whether no alert fires here and no resolved notification is owed."""
        return all(member.is_routed_elsewhere for group in self._groups.values() for member in group.members.values())

    def has_alert(self, fingerprint: str) -> bool:
        """Return whether an alert is in any group: a receiver was notified of it, or will be."""
        return fingerprint in self._keys_of

    def update_evidence(self, alert: Alert) -> None:
        """Take the evidence of a firing alert, which came after its transition; nobody is notified of that."""
        for key in self._keys_of.get(alert.fingerprint, ()):
            member = self._groups[key].members[alert.fingerprint]
            if member.alert.resolved is None and member.alert.fired == alert.fired:
                member.alert = replace(member.alert, evidence=alert.evidence)
                self._changed.add(key)

    def drop_alert(self, fingerprint: str, at_ns: int) -> None:
        """Remove an alert from all groups: its receivers are notified of it in another way."""
        keys = sorted(self._keys_of.get(fingerprint, ()))
        for key in keys:
            self._remove(key, fingerprint)
        self._mark_changed(keys, at_ns)

    def request_reconcile(self) -> None:
        """Have the next `advance` compare the groups with the firing alerts: transitions may have been lost."""
        self._must_reconcile = True

    def correct(self, knowledge: Knowledge, firing: Mapping[str, Alert], now: Now) -> None:
        """Take the knowledge of receivers as the notified state: notifications may have failed for good.

        The next `advance` notifies of alerts in `firing` that a receiver does not know, and of the end of others that
        it knows as firing.
        """
        changed = [
            key
            for key, group in self._groups.items()
            if key[0] in knowledge.receivers and group.correct(key[0], knowledge)
        ]
        for receiver, alert in knowledge.unresolved:
            self._restore_notified(receiver, alert, firing, now.boottime_ns)
            changed += [key for key in self._keys_of[alert.fingerprint] if key[0] == receiver]
        self._mark_changed(changed, now.boottime_ns)
        self.request_reconcile()

    def reload(
        self,
        routing: RoutingSettings,
        firing: Mapping[str, Alert],
        now: Now,
        receivers: Collection[str] | None = None,
        routes: Sequence[Route] = (),
    ) -> None:
        """Replace the routing; the receivers of firing alerts may have changed with it or with their rules.

        A receiver that is new to a firing alert is notified of it. A receiver that no longer matches gets a resolved
        notification with the reason, once. A receiver that still matches gets nothing. `receivers`: all that exist now,
        None: the same as before. Groups of a receiver that no longer exists are dropped.
        """
        self._routing = routing
        self._router = Router(routing, routes, self._router.existing_receivers if receivers is None else receivers)
        if receivers is not None:
            self._drop_groups(key for key in self._groups if key[0] not in receivers)
        self._jitter.restart(now.boottime_ns, routing.jitter_ns)
        self._mark_changed(self._reconcile(firing, now), now.boottime_ns)
        for key, group in self._groups.items():
            self._update_schedule(key, group, now.boottime_ns)
        self.request_reconcile()  # the next tick gives alerts the receivers of their new rules

    def restore(
        self,
        saved: Iterable[Mapping[str, Any]],
        firing: Mapping[str, Alert],
        receivers: Collection[str],
        now: Now,
        boottime_shift_ns: int,
        notified: Iterable[tuple[str, Alert]] = (),
    ) -> int:
        """Load the groups that `take_changes` returned before a restart; return the number of unreadable ones.

        `firing`: the alerts that the lifecycle restored; `receivers` as in `reload`. `boottime_shift_ns` converts saved
        times to this boot. After a shift every group counts as changed, so that the store keeps no time of the former
        boot. `notified`: pairs of a receiver and an alert sent to it as firing, without those with a resolved
        notification in the outbox. If no group has such an alert, because a group or a notification was lost, the
        alert is added, so that the receiver gets its resolved notification. The receiver of an unreadable group is
        notified again of its firing alerts, unless `notified` has them.
        """
        unreadable = 0
        for document in saved:
            try:
                with document_errors():
                    key = document["receiver"], document["group_key"]
                group = NotificationGroup.from_json(document, boottime_shift_ns, self._router.default_timing)
            except DocumentError:
                unreadable += 1
                continue
            self._groups[key] = group
            for fingerprint in group.members:
                self._keys_of.setdefault(fingerprint, set()).add(key)
            if boottime_shift_ns:
                self._changed.add(key)
        for receiver, alert in notified:
            self._restore_notified(receiver, alert, firing, now.boottime_ns)
        self.reload(self._routing, firing, now, receivers, self._router.routes)
        return unreadable

    def mark_all_changed(self) -> None:
        """Mark every group as changed: its saved state may be gone."""
        self._changed.update(self._groups)

    def take_changes(self) -> list[tuple[ReceiverGroupKey, dict[str, Any] | None]]:
        """Return the document of every group that changed since the last call, None for a removed group."""
        changes = []
        for key in sorted(self._changed):
            group = self._groups.get(key)
            changes.append((key, None if group is None else group.to_json(key)))
        self._changed.clear()
        return changes

    def destinations(self, alert: Alert) -> tuple[Destination, ...]:
        """Return the destinations of `alert` by the present routes, without those that escalation notifies."""
        found = self._router.destinations(alert)
        return tuple(each for each in found if not self._is_escalated_to(each.receiver, alert))

    def _restore_notified(self, receiver: str, alert: Alert, firing: Mapping[str, Alert], at_ns: int) -> None:
        # `receiver` got `alert` as firing, and its resolved notification is not in the outbox.
        for key in self._keys_of.get(alert.fingerprint, ()):
            if key[0] == receiver:
                member = self._groups[key].members[alert.fingerprint]
                if member.is_end_notified:  # that notification was made and never arrived
                    member.mark_notified_firing(alert)
                    self._changed.add(key)
                return
        default = Destination(receiver, alert.rule, None, self._router.default_timing)
        routed = (each for each in self._router.destinations(alert) if each.receiver == receiver)
        destination = next(routed, default)
        group = self._join(destination, alert.fingerprint)
        member = group.members[alert.fingerprint] = GroupMember(alert)
        member.mark_notified_firing(alert)
        if group.last_notification_ns is None and alert.fingerprint in firing:
            group.last_notification_ns = at_ns  # the true time is lost: reminders are counted from now

    def _apply(self, transition: Transition, now: Now) -> Iterator[ReceiverGroupKey]:
        alert = transition.alert
        if transition.kind is TransitionKind.RESOLVED:
            yield from self._resolve(alert)
            return
        has_begun = transition.kind is TransitionKind.FIRING
        if has_begun:
            self._flapping.record_firing(alert, now.boottime_ns)
        elif transition.kind is TransitionKind.SEVERITY_RAISED:
            self._flapping.record_raised(alert, now.boottime_ns)
        yield from self._route(alert, now, has_begun=has_begun)
        is_flapping = self._flapping.is_flapping_fast(alert, now.boottime_ns)
        for key in self._keys_of.get(alert.fingerprint, ()):
            self._groups[key].members[alert.fingerprint].is_flapping = is_flapping

    def _resolve(self, alert: Alert) -> Iterator[ReceiverGroupKey]:
        for key in sorted(self._keys_of.get(alert.fingerprint, ())):
            member = self._groups[key].members[alert.fingerprint]
            if member.is_end_notified:
                self._remove(key, alert.fingerprint)
                yield key
            # The reason of the alert's own end replaces "no longer routed", but only within the same firing.
            elif member.alert.resolved is None or member.alert.fired == alert.fired:
                member.resolve(alert, was_held_back=self._groups[key].last_notification_ns is not None)
                yield key

    def _reconcile(self, firing: Mapping[str, Alert], now: Now) -> set[ReceiverGroupKey]:
        # Compares every group with the firing alerts: a transition may have been lost. Returns the changed ones.
        changed: set[ReceiverGroupKey] = set()
        for fingerprint in self._keys_of.keys() - firing.keys():
            for key in sorted(self._keys_of[fingerprint]):
                member = self._groups[key].members[fingerprint]
                if member.is_end_notified:
                    self._remove(key, fingerprint)
                elif member.alert.resolved is None:
                    reason = self._end_reasons.get(member.alert.rule, NO_LONGER_ACTIVE)
                    member.alert = member.alert.resolved_at(now, reason)
                else:
                    continue
                changed.add(key)
        for alert in firing.values():
            changed.update(self._route(alert, now))
        return changed

    def _route(self, alert: Alert, now: Now, *, has_begun: bool = False) -> Iterator[ReceiverGroupKey]:
        # Updates the groups of a firing alert; yields the keys of those that changed. With `has_begun` it has just
        # begun to fire: an end not yet sent is replaced by the new beginning.
        wanted = {destination.receiver: destination for destination in self.destinations(alert)}
        for key in sorted(self._keys_of.get(alert.fingerprint, ())):
            destination = wanted.pop(key[0], None)
            if destination is not None:
                yield from self._update(key, destination, alert, has_begun=has_begun)
            elif self._is_escalated_to(key[0], alert):
                self._remove(key, alert.fingerprint)
                yield key
            else:
                yield from self._end_here(key, alert, now)
        for destination in wanted.values():
            self._join(destination, alert.fingerprint).members[alert.fingerprint] = GroupMember(alert)
            yield destination.key

    def _update(
        self, key: ReceiverGroupKey, destination: Destination, alert: Alert, *, has_begun: bool
    ) -> Iterator[ReceiverGroupKey]:
        # Brings a member up to date with its firing alert, and moves it if its group has changed.
        group = self._groups[key]
        member = group.members[alert.fingerprint]
        has_ended, has_moved = member.alert.resolved is not None, destination.key != key
        if has_begun or (has_ended and member.alert.fired != alert.fired):
            member.begin_firing(alert)
            yield key
        elif has_ended or has_moved or member.alert.severity != alert.severity:
            member.alert = alert
            yield key
        if has_moved:
            self._remove(key, alert.fingerprint)
            self._join(destination, alert.fingerprint).adopt_member(member, group)
            yield destination.key

    def _end_here(self, key: ReceiverGroupKey, alert: Alert, now: Now) -> Iterator[ReceiverGroupKey]:
        # The alert fires, but no longer for the receiver of `key`: a firing notification is followed by a resolved one.
        member = self._groups[key].members[alert.fingerprint]
        if member.alert.resolved is not None:
            return
        if not (member.is_notified_firing or member.is_end_notified):
            self._remove(key, alert.fingerprint)
        elif member.alert.severity != alert.severity:
            label = alert.severity.label
            member.alert = member.alert.resolved_at(now, f"{label} now, no longer routed to this receiver")
        else:
            member.alert = member.alert.resolved_at(now, NO_LONGER_ROUTED)
        yield key

    def _join(self, destination: Destination, fingerprint: str) -> NotificationGroup:
        key = destination.key
        self._keys_of.setdefault(fingerprint, set()).add(key)
        if key not in self._groups:
            self._groups[key] = NotificationGroup(destination.group_timing, destination.group_labels)
        return self._groups[key]

    def _remove(self, key: ReceiverGroupKey, fingerprint: str) -> None:
        del self._groups[key].members[fingerprint]
        self._leave(key, fingerprint)

    def _leave(self, key: ReceiverGroupKey, fingerprint: str) -> None:
        keys = self._keys_of[fingerprint]
        keys.discard(key)
        if not keys:
            del self._keys_of[fingerprint]

    def _suppress(self, firing: Mapping[str, Alert], at_ns: int) -> set[ReceiverGroupKey]:
        # Applies the suppressions of this tick; returns the keys of the changed groups.
        if not (self._suppression.is_active or self._has_suppressed):
            return set()
        changed: set[ReceiverGroupKey] = set()
        for key, group in self._groups.items():
            has_changed = group.suppress(key[0], self._suppression, firing, at_ns)
            ended = group.suppressed_ends()
            for fingerprint in ended:
                self._remove(key, fingerprint)
            if has_changed or ended:
                changed.add(key)
        self._has_suppressed = any(group.has_suppressed for group in self._groups.values())
        return changed

    def _mark_changed(self, keys: Iterable[ReceiverGroupKey], at_ns: int) -> None:
        for key in keys:
            self._update_schedule(key, self._groups[key], at_ns)
            self._changed.add(key)

    def _update_schedule(self, key: ReceiverGroupKey, group: NotificationGroup, at_ns: int) -> None:
        group.update_schedule(at_ns, lambda alert: self._router.group_timing_of(key[0], alert))

    def _drop_groups(self, keys: Iterable[ReceiverGroupKey]) -> None:
        for key in list(keys):
            for fingerprint in self._groups[key].members:
                self._leave(key, fingerprint)
            del self._groups[key]
            self._changed.add(key)

    def _make_notification(
        self, key: ReceiverGroupKey, group: NotificationGroup, firing: Mapping[str, Alert], now: Now
    ) -> Notification:
        receiver, group_key = key
        reason, detail = group.reason(), group.reason_detail()  # before `mark_notified` changes them
        alerts = group.mark_notified(firing, now.boottime_ns)
        if reason is NotificationReason.RESOLVED:
            ends = [alert for alert in alerts if alert.resolved is not None]
            if not any(self._suppression.announces_end(receiver, alert) for alert in ends):
                alerts = tuple(ends)  # nothing is sent: the outbox records the ends
        return Notification(
            uuid.uuid4().hex,
            receiver,
            group_key,
            reason,
            tuple(self._flapping.mark_flapping(alert, now.boottime_ns) for alert in alerts),
            created=now.wall,
            created_ns=now.boottime_ns,
            boot_id=boot_id(),
            host=self.host,
            group_labels=group.group_labels,
            reason_detail=detail,
        )

    def _remove_ended(self, key: ReceiverGroupKey, group: NotificationGroup, at_ns: int) -> None:
        # After a notification: ended alerts leave the group, and the waits are those of the alerts that still fire.
        for alert in self._due[-1].alerts:
            if alert.fingerprint not in group.members:
                self._leave(key, alert.fingerprint)
        self._update_schedule(key, group, at_ns)
