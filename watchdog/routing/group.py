"""A group: what one receiver knows of alerts that belong together, what it does not know yet, and when it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from watchdog.alerts.alert import Alert
from watchdog.config.settings import GroupTiming
from watchdog.errors import document_errors
from watchdog.routing.notification import NotificationReason
from watchdog.rules.language.rule import Labels, Severity

ReceiverGroupKey = tuple[str, str]  # (receiver, the group's name: the rule's id, if it is not grouped by anything else)


@dataclass(slots=True)
class GroupMember:
    """An alert as in the newest transition or notice.

    `told`: what the newest notice said of this firing, if any. `believed`: the receiver thinks that it fires, be it
    since this time or an earlier one. `ended`: a notice has told its end already, for it went to other receivers; it
    may come back, and if it is over before that was told, there is no other end to be told.
    """

    alert: Alert
    notified_severity: Severity | None = None
    is_notified_firing: bool = False
    is_end_notified: bool = False

    @property
    def needs_notification(self) -> bool:
        """Tell whether the receiver does not know it."""
        if self.alert.resolved is not None:
            return not self.is_end_notified
        return self.notified_severity != self.alert.severity

    @property
    def is_routed_elsewhere(self) -> bool:
        """Tell whether it fires, but no longer here."""
        return self.is_end_notified and self.alert.resolved is not None


class NotificationGroup:
    """The alerts of one receiver that are told together."""

    def __init__(self, waits: GroupTiming, by: Labels | None = None) -> None:
        """Start empty; `by`: what its alerts have in common, None: their rule."""
        self.group_labels = by
        self.members: dict[str, GroupMember] = {}
        self.unsent_since_ns: int | None = None
        self.last_notification_ns: int | None = None
        self._waits = waits
        self._started = 0.0
        self._is_urgent = False

    @classmethod
    @document_errors()
    def from_json(
        cls, document: Mapping[str, Any], boottime_shift_ns: int, default_timing: GroupTiming
    ) -> NotificationGroup:
        """Return the group that `to_json` wrote; without saved timing it gets `default_timing`.

        Raises:
            DocumentError: `document` is not what `to_json` writes.
        """
        by = document.get("group_labels")
        waits = GroupTiming(*document["group_timing"]) if "group_timing" in document else default_timing
        group = cls(waits, None if by is None else tuple((name, value) for name, value in by))
        for member in document["members"]:
            alert = Alert.from_json(member["alert"])
            told = member["notified_severity"]
            group.members[alert.fingerprint] = GroupMember(
                alert,
                None if told is None else Severity(told),
                is_notified_firing=bool(member.get("is_notified_firing", told)),
                is_end_notified=bool(member.get("is_end_notified")),
            )
        group.unsent_since_ns = _shifted(document["unsent_since_ns"], boottime_shift_ns)
        group.last_notification_ns = _shifted(document["last_notification_ns"], boottime_shift_ns)
        return group

    def to_json(self, key: ReceiverGroupKey) -> dict[str, Any]:
        """Return what `json` can write and `from_json` reads."""
        receiver, name = key
        waits = self._waits
        return {
            "receiver": receiver,
            "group_key": name,
            "group_labels": self.group_labels,
            "members": [
                {
                    "alert": each.alert.to_json(),
                    "notified_severity": each.notified_severity,
                    "is_notified_firing": each.is_notified_firing,
                    "is_end_notified": each.is_end_notified,
                }
                for each in self.members.values()
            ],
            "unsent_since_ns": self.unsent_since_ns,
            "last_notification_ns": self.last_notification_ns,
            "group_timing": [waits.group_wait_ns, waits.group_interval_ns, waits.repeat_interval_ns],
        }

    def update_schedule(self, at_ns: int, group_timing_of: Callable[[Alert], GroupTiming]) -> None:
        """Start the wait at the first news; forget it when an alert is back to what the receiver knows.

        Of the waits that its news have, or its alerts where none is news, the shortest are the group's.
        """
        news = [member for member in self.members.values() if member.needs_notification]
        self._started = min((member.alert.started for member in news if member.notified_severity is None), default=0.0)
        self._is_urgent = any(member.alert.severity is Severity.CRITICAL for member in news)
        waits = {group_timing_of(member.alert) for member in news or self._here()}
        if waits:
            self._waits = GroupTiming(
                min(each.group_wait_ns for each in waits),
                min(each.group_interval_ns for each in waits),
                min(each.repeat_interval_ns for each in waits),
            )
        if not news:
            self.unsent_since_ns = None
        elif self.unsent_since_ns is None:
            self.unsent_since_ns = at_ns
            if (
                len(news) == len(self._here())
                and self._is_long_ago(at_ns)
                and not any(m.notified_severity for m in news)
            ):
                self.last_notification_ns = None  # a first one again

    def adopt_member(self, member: GroupMember, origin: NotificationGroup) -> None:
        """Take over a member of another group of the same receiver; what that has told counts for the waits here."""
        self.members[member.alert.fingerprint] = member
        times = [at_ns for at_ns in (self.last_notification_ns, origin.last_notification_ns) if at_ns is not None]
        self.last_notification_ns = max(times, default=None)
        if member.needs_notification and origin.unsent_since_ns is not None:
            self.unsent_since_ns = min(self.unsent_since_ns or origin.unsent_since_ns, origin.unsent_since_ns)

    def is_due(self, at_ns: int, delay_of: Callable[[int, float], int]) -> bool:
        """Tell whether a notice is to be made now; `delay_of`: how much later, by when news and alerts began."""
        if self.unsent_since_ns is None:
            return (
                bool(self._here())
                and self.last_notification_ns is not None
                and at_ns >= self.last_notification_ns + self._waits.repeat_interval_ns
            )
        if self.last_notification_ns is None:
            due_ns = self.unsent_since_ns + self._waits.group_wait_ns
        else:
            due_ns = max(self.unsent_since_ns, self.last_notification_ns + self._waits.group_interval_ns)
        return at_ns >= due_ns + (0 if self._is_urgent else delay_of(self.unsent_since_ns, self._started))

    def is_expired(self, at_ns: int) -> bool:
        """Tell whether nothing fires and the last notice is so long ago that the next alert is a first one again."""
        return not self.members and self._is_long_ago(at_ns)

    def reason(self) -> NotificationReason:
        """Return the reason of the notification that is due, the weightiest one of several."""
        firing = [member for member in self.members.values() if member.alert.resolved is None]
        if any(member.notified_severity is None for member in firing):
            return NotificationReason.FIRST if self.last_notification_ns is None else NotificationReason.NEW_ALERT
        if any(member.notified_severity != member.alert.severity for member in firing):
            return NotificationReason.SEVERITY_CHANGED
        return NotificationReason.RESOLVED if len(firing) < len(self._here()) else NotificationReason.REPEAT

    def mark_notified(self, firing: Mapping[str, Alert], at_ns: int) -> tuple[Alert, ...]:
        """Return the alerts of a notice, worst first and resolved ones last, and note that they have been told."""
        here = self._here()
        for member in here:
            fires = firing.get(member.alert.fingerprint)
            if member.alert.resolved is None:
                member.alert = fires or member.alert
                member.notified_severity, member.is_notified_firing, member.is_end_notified = (
                    member.alert.severity,
                    True,
                    False,
                )
            elif fires is not None and fires.fired == member.alert.fired:
                member.notified_severity, member.is_notified_firing, member.is_end_notified = None, False, True
            else:
                del self.members[member.alert.fingerprint]
        self.unsent_since_ns = None
        self.last_notification_ns = at_ns
        return tuple(sorted((member.alert for member in here), key=_weight))

    def _here(self) -> list[GroupMember]:
        return [member for member in self.members.values() if not member.is_routed_elsewhere]

    def _is_long_ago(self, at_ns: int) -> bool:
        return self.last_notification_ns is None or at_ns >= self.last_notification_ns + self._waits.group_interval_ns


def _weight(alert: Alert) -> tuple[bool, int, float, str]:
    return (alert.resolved is not None, -alert.severity, alert.fired, alert.fingerprint)


def _shifted(at_ns: int | None, boottime_shift_ns: int) -> int | None:
    return None if at_ns is None else at_ns + boottime_shift_ns
