"""Who is to be told what, and when: transitions in, notices out.

A group is what one receiver hears of one rule. The waits are Alertmanager's (`group_wait`, `group_interval`,
`repeat_interval`), the reasons for a notice too; two things differ. An alert that fired and resolved before its group's
first notice is told as resolved, not dropped. And a receiver that was told "firing" is always told the end of it, also
when rule, routing or daemon change in between. Source of the waits: Alertmanager, docs/configuration.md and dispatch/.

Times are CLOCK_BOOTTIME, passed in; the wall clock is copied into notices for display.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from watchdog.alerts.alert import Alert, Kind, State, Transition
from watchdog.alerts.notice import Notice
from watchdog.config import Routing
from watchdog.rules.schema import Severity

GroupKey = tuple[str, str]  # (receiver, rule id)

NOT_WATCHED = "no longer watched"
NOT_SENT_HERE = "no longer sent to this receiver"


@dataclass(slots=True)
class _Member:
    alert: Alert  # as in the newest transition or notice
    told: Severity | None = None  # what the newest notice said of this firing; None: nothing yet

    @property
    def is_news(self) -> bool:
        return self.alert.resolved is not None or self.told != self.alert.severity


class _Group:
    """What one receiver knows of one rule, and what it does not know yet."""

    def __init__(self) -> None:
        self.members: dict[str, _Member] = {}
        self.news_since_ns: int | None = None
        self.last_notice_ns: int | None = None

    @classmethod
    def from_json(cls, document: Mapping[str, Any], shift_ns: int) -> _Group:
        group = cls()
        for member in document["members"]:
            alert = Alert.from_json(member["alert"])
            told = member["told"]
            group.members[alert.fingerprint] = _Member(alert, None if told is None else Severity(told))
        group.news_since_ns = _shifted(document["news_since_ns"], shift_ns)
        group.last_notice_ns = _shifted(document["last_notice_ns"], shift_ns)
        return group

    def to_json(self, key: GroupKey) -> dict[str, Any]:
        receiver, rule = key
        return {
            "receiver": receiver,
            "rule": rule,
            "members": [{"alert": member.alert.to_json(), "told": member.told} for member in self.members.values()],
            "news_since_ns": self.news_since_ns,
            "last_notice_ns": self.last_notice_ns,
        }

    def refresh(self, at_ns: int) -> None:
        """Start the wait at the first news; forget it when an alert is back to what the receiver knows."""
        if not any(member.is_news for member in self.members.values()):
            self.news_since_ns = None
        elif self.news_since_ns is None:
            self.news_since_ns = at_ns

    def is_due(self, at_ns: int, routing: Routing) -> bool:
        if self.last_notice_ns is None:
            return self.news_since_ns is not None and at_ns >= self.news_since_ns + routing.group_wait_ns
        if self.news_since_ns is not None:
            return at_ns >= self.last_notice_ns + routing.group_interval_ns
        return bool(self.members) and at_ns >= self.last_notice_ns + routing.repeat_interval_ns

    def is_over(self, at_ns: int, routing: Routing) -> bool:
        """Tell whether nothing fires and the last notice is so long ago that the next alert is a first one again."""
        return not self.members and (
            self.last_notice_ns is None or at_ns >= self.last_notice_ns + routing.group_interval_ns
        )

    def reason(self) -> str:
        """Return why a notice is due now, the weightiest reason of several."""
        firing = [member for member in self.members.values() if member.alert.resolved is None]
        if any(member.told is None for member in firing):
            return "first notification" if self.last_notice_ns is None else "new alert in group"
        if any(member.told != member.alert.severity for member in firing):
            return "severity changed"
        return "resolved" if len(firing) < len(self.members) else "repeat"

    def tell(self, firing: Mapping[str, Alert], at_ns: int) -> tuple[Alert, ...]:
        """Return the alerts of a notice, worst first and resolved ones last, and note that they have been told."""
        for fingerprint, member in self.members.items():
            if member.alert.resolved is None:
                member.alert = firing.get(fingerprint, member.alert)
                member.told = member.alert.severity
        alerts = sorted((member.alert for member in self.members.values()), key=_weight)
        self.members = {key: member for key, member in self.members.items() if member.alert.resolved is None}
        self.news_since_ns = None
        self.last_notice_ns = at_ns
        return tuple(alerts)


class Grouping:
    """Groups alerts by (receiver, rule) and makes the notices that are due."""

    def __init__(self, routing: Routing, host: str) -> None:
        """Take the waits and the default receivers; `host` is named in every notice."""
        self._routing = routing
        self._host = host
        self._groups: dict[str, dict[str, _Group]] = {}  # by rule, then by receiver
        self._changed: set[GroupKey] = set()
        self._reconcile_again = False
        self._existing: Collection[str] | None = None  # None: every receiver that is named
        self._due: list[Notice] = []  # made, and not yet returned

    def advance(
        self, transitions: Sequence[Transition], firing: Mapping[str, Alert], at_ns: int, wall: float
    ) -> list[Notice]:
        """Take one tick's transitions and return the notices that are due.

        `firing`: every alert that fires after `transitions`, by fingerprint. A notice that is returned counts as told:
        it must reach the outbox together with `take_changes()`. When it raises, what it made comes with the next call.
        """
        self._forget(key for key, group in self._all() if group.is_over(at_ns, self._routing))
        touched: set[GroupKey] = set()
        for transition in transitions:
            touched.update(self._apply(transition))
        self._touch(touched, at_ns)
        if self._reconcile_again:
            self._reconcile_again = False
            self._reconcile(firing, at_ns, wall)
        for key, group in self._all():
            if group.is_due(at_ns, self._routing):
                self._changed.add(key)
                self._due.append(self._notice(key, group, firing, at_ns, wall))
        due, self._due = self._due, []
        return due

    def reconcile(self) -> None:
        """Compare what receivers know with what fires at the next `advance`: transitions may have been lost."""
        self._reconcile_again = True

    def reload(
        self,
        routing: Routing,
        firing: Mapping[str, Alert],
        at_ns: int,
        wall: float,
        receivers: Collection[str] | None = None,
    ) -> None:
        """Take a new routing, and alerts whose receivers may have changed with their rules.

        Receivers that are new to a firing alert are told of it; those that are not to hear of it any more are told
        its end, once. Whoever knew and still is to know hears nothing. `receivers`: all that exist now, None when they
        are the same as before; groups of others are forgotten, for there is nobody to tell.
        """
        self._routing = routing
        if receivers is not None:
            self._existing = receivers
            self._forget(key for key, _ in self._all() if key[0] not in receivers)
        self._reconcile(firing, at_ns, wall)
        self.reconcile()  # alerts get the receivers of their new rules with the next tick

    def restore(
        self,
        saved: Iterable[Mapping[str, Any]],
        firing: Mapping[str, Alert],
        receivers: Collection[str],
        at_ns: int,
        wall: float,
        shift_ns: int,
        told: Iterable[tuple[str, Alert]] = (),
    ) -> int:
        """Take back what `take_changes` gave before a restart; what a receiver already knows is not news.

        `firing`: the alerts that the lifecycle restored; `receivers` as in `reload`. `shift_ns` turns saved times into
        this boot's; after a shift every group counts as changed, so that no time of the former boot stays in the store.
        `told`: receivers and what they were told to fire, without those whose end waits to be sent. Where no group
        knows of it, as the group or a notice was lost, they are told the end of what fires no more, once.
        Return how many groups could not be read: their receivers are told anew of what fires, unless `told` has it.
        """
        forgotten = 0
        for document in saved:
            try:
                receiver, rule = document["receiver"], document["rule"]
                group = _Group.from_json(document, shift_ns)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
                forgotten += 1
                continue
            self._groups.setdefault(rule, {})[receiver] = group
            if shift_ns:
                self._changed.add((receiver, rule))
        for receiver, alert in told:
            group = self._groups.setdefault(alert.rule, {}).setdefault(receiver, _Group())
            if alert.fingerprint not in group.members:
                group.members[alert.fingerprint] = _Member(alert, alert.severity)
                if group.last_notice_ns is None and alert.fingerprint in firing:
                    group.last_notice_ns = at_ns  # nobody knows; reminders begin from here
        self.reload(self._routing, firing, at_ns, wall, receivers)
        return forgotten

    def change_all(self) -> None:
        """Let every group count as changed: what was saved of it may be gone."""
        self._changed.update(key for key, _ in self._all())

    def take_changes(self) -> list[tuple[GroupKey, dict[str, Any] | None]]:
        """Return the state of every group that changed since the last call, None for one that is over."""
        changes = []
        for key in sorted(self._changed):
            receiver, rule = key
            group = self._groups.get(rule, {}).get(receiver)
            changes.append((key, None if group is None else group.to_json(key)))
        self._changed.clear()
        return changes

    def _reconcile(self, firing: Mapping[str, Alert], at_ns: int, wall: float) -> None:
        # Brings what receivers know in line with who is to know what, where no transition tells.
        touched: set[GroupKey] = set()
        for key, group in self._all():
            for fingerprint, member in list(group.members.items()):
                alert = firing.get(fingerprint)
                ending = self._ending(key[0], member, alert)
                if ending is not None:
                    member.alert = replace(member.alert, state=State.RESOLVED, resolved=wall, reason=ending)
                elif alert is None or key[0] not in self._receivers(alert):
                    continue  # its end is known already
                elif member.alert.resolved is not None:
                    del group.members[fingerprint]  # it fires again: to be routed below
                elif alert.severity != member.alert.severity:
                    member.alert = alert
                else:
                    continue
                touched.add(key)
        for alert in firing.values():
            touched.update(self._route(alert))
        self._touch(touched, at_ns)

    def _all(self) -> Iterator[tuple[GroupKey, _Group]]:
        for rule, groups in self._groups.items():
            for receiver, group in groups.items():
                yield (receiver, rule), group

    def _touch(self, keys: Iterable[GroupKey], at_ns: int) -> None:
        for receiver, rule in keys:
            self._groups[rule][receiver].refresh(at_ns)
            self._changed.add((receiver, rule))

    def _forget(self, keys: Iterable[GroupKey]) -> None:
        for key in list(keys):
            receiver, rule = key
            del self._groups[rule][receiver]
            self._changed.add(key)

    def _receivers(self, alert: Alert) -> tuple[str, ...]:
        named = self._routing.default if alert.receivers is None else alert.receivers
        return tuple(name for name in named if self._existing is None or name in self._existing)

    def _ending(self, receiver: str, member: _Member, alert: Alert | None) -> str | None:
        # Why `receiver` is to be told the end of an alert that never resolved by itself; None: it goes on.
        if member.alert.resolved is not None:
            return None
        if alert is None:
            return NOT_WATCHED
        return None if receiver in self._receivers(alert) else NOT_SENT_HERE

    def _route(self, alert: Alert) -> Iterator[GroupKey]:
        # Makes a firing alert known to those of its receivers who have not heard of it.
        groups = self._groups.setdefault(alert.rule, {})
        for receiver in self._receivers(alert):
            group = groups.setdefault(receiver, _Group())
            if alert.fingerprint not in group.members:
                group.members[alert.fingerprint] = _Member(alert)
                yield receiver, alert.rule

    def _apply(self, transition: Transition) -> Iterator[GroupKey]:
        alert = transition.alert
        groups = self._groups.get(alert.rule, {})
        if transition.kind is Kind.FIRING:
            # Fires again before its end was told: the end is not told any more, the new start is.
            for receiver in self._receivers(alert):
                if receiver in groups:
                    groups[receiver].members.pop(alert.fingerprint, None)
            yield from self._route(alert)
            return
        for receiver, group in groups.items():
            member = group.members.get(alert.fingerprint)
            if member is not None and (transition.kind is Kind.RESOLVED or member.alert.resolved is None):
                member.alert = alert
                yield receiver, alert.rule

    def _notice(self, key: GroupKey, group: _Group, firing: Mapping[str, Alert], at_ns: int, wall: float) -> Notice:
        receiver, rule = key
        reason = group.reason()
        alerts = group.tell(firing, at_ns)
        return Notice(uuid.uuid4().hex, receiver, rule, reason, alerts, created=wall, host=self._host)


def _weight(alert: Alert) -> tuple[bool, int, float, str]:
    return (alert.resolved is not None, -alert.severity, alert.fired, alert.fingerprint)


def _shifted(at_ns: int | None, shift_ns: int) -> int | None:
    return None if at_ns is None else at_ns + shift_ns
