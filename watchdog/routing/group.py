"""A notification group: the alerts of one receiver that share notifications, and when the next one is due."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from watchdog.alerts.alert import Alert
from watchdog.config.settings import GroupTiming
from watchdog.errors import document_errors
from watchdog.routing.notification import NotificationReason
from watchdog.rules.language.rule import Labels, Severity

ReceiverGroupKey = tuple[str, str]
"""(receiver, group key); the group key is the rule's id unless a route sets `group_by`."""


@dataclass(slots=True)
class GroupMember:
    """One alert of a group, as in its newest transition or notification.

    `notified_severity`: the severity that the newest notification gave for this firing, None: not notified of it.
    `is_notified_firing`: the last notification for the receiver gave the alert as firing, in this firing or an earlier
    one. `is_end_notified`: the end of the firing has been sent although it goes on, because the alert is routed to
    other receivers. The alert may be routed back; if it resolves before that, no second end is sent.
    """

    alert: Alert
    notified_severity: Severity | None = None
    is_notified_firing: bool = False
    is_end_notified: bool = False

    @property
    def needs_notification(self) -> bool:
        """Return whether the alert differs from the last notification."""
        if self.alert.resolved is not None:
            return not self.is_end_notified
        return self.notified_severity != self.alert.severity

    @property
    def is_routed_elsewhere(self) -> bool:
        """Return whether the alert fires, but is no longer routed to this receiver."""
        return self.is_end_notified and self.alert.resolved is not None

    def mark_notified_firing(self, severity: Severity) -> None:
        """Record that the receiver was notified of the alert as firing with `severity`."""
        self.notified_severity, self.is_notified_firing, self.is_end_notified = severity, True, False

    def mark_end_notified(self) -> None:
        """Record that the receiver was notified of an end while the alert still fires."""
        self.notified_severity, self.is_notified_firing, self.is_end_notified = None, False, True


class NotificationGroup:
    """The alerts of one receiver that share notifications."""

    def __init__(self, timing: GroupTiming, group_labels: Labels | None = None) -> None:
        """Start without alerts; `group_labels`: the labels that its alerts share, None: they share the rule."""
        self.group_labels = group_labels
        self.members: dict[str, GroupMember] = {}
        self.unsent_since_ns: int | None = None
        self.last_notification_ns: int | None = None
        self._timing = timing
        self._started = 0.0  # of the first alert that waits for its first notification, wall clock
        self._is_urgent = False

    @classmethod
    @document_errors()
    def from_json(
        cls, document: Mapping[str, Any], boottime_shift_ns: int, default_timing: GroupTiming
    ) -> NotificationGroup:
        """Return the group that `to_json` wrote; without saved timing it gets `default_timing`.

        Raises:
            DocumentError: `document` does not have the form of `to_json`.
        """
        labels = document.get("group_labels")
        timing = GroupTiming(*document["group_timing"]) if "group_timing" in document else default_timing
        group = cls(timing, None if labels is None else tuple((name, value) for name, value in labels))
        for member in document["members"]:
            alert = Alert.from_json(member["alert"])
            severity = member["notified_severity"]
            group.members[alert.fingerprint] = GroupMember(
                alert,
                None if severity is None else Severity(severity),
                is_notified_firing=bool(member.get("is_notified_firing", severity)),
                is_end_notified=bool(member.get("is_end_notified")),
            )
        group.unsent_since_ns = _shifted(document["unsent_since_ns"], boottime_shift_ns)
        group.last_notification_ns = _shifted(document["last_notification_ns"], boottime_shift_ns)
        return group

    def to_json(self, key: ReceiverGroupKey) -> dict[str, Any]:
        """Return the document of the group for `json` and `from_json`."""
        receiver, group_key = key
        timing = self._timing
        return {
            "receiver": receiver,
            "group_key": group_key,
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
            "group_timing": [timing.group_wait_ns, timing.group_interval_ns, timing.repeat_interval_ns],
        }

    def update_schedule(self, at_ns: int, group_timing_of: Callable[[Alert], GroupTiming]) -> None:
        """Start the wait when a first alert needs a notification; stop it when none needs one any more.

        The group takes the shortest wait and the shortest intervals of the alerts that need a notification, or of all
        its alerts if none does.
        """
        unsent = [member for member in self.members.values() if member.needs_notification]
        self._started = min(
            (member.alert.started for member in unsent if member.notified_severity is None), default=0.0
        )
        self._is_urgent = any(member.alert.severity is Severity.CRITICAL for member in unsent)
        timings = {group_timing_of(member.alert) for member in unsent or self._routed_members()}
        if timings:
            self._timing = GroupTiming(
                min(each.group_wait_ns for each in timings),
                min(each.group_interval_ns for each in timings),
                min(each.repeat_interval_ns for each in timings),
            )
        if not unsent:
            self.unsent_since_ns = None
        elif self.unsent_since_ns is None:
            self.unsent_since_ns = at_ns
            all_unsent = len(unsent) == len(self._routed_members())
            if all_unsent and self._interval_is_over(at_ns) and not any(one.notified_severity for one in unsent):
                self.last_notification_ns = None  # the next one is a first notification again

    def adopt_member(self, member: GroupMember, origin: NotificationGroup) -> None:
        """Take a member over from `origin`, a group of the same receiver; its last notification counts here too."""
        self.members[member.alert.fingerprint] = member
        times = [at_ns for at_ns in (self.last_notification_ns, origin.last_notification_ns) if at_ns is not None]
        self.last_notification_ns = max(times, default=None)
        if member.needs_notification and origin.unsent_since_ns is not None:
            self.unsent_since_ns = min(self.unsent_since_ns or origin.unsent_since_ns, origin.unsent_since_ns)

    def is_due(self, at_ns: int, delay_of: Callable[[int, float], int]) -> bool:
        """Return whether a notification is due.

        `delay_of(unsent_since_ns, started)`: the additional delay in ns, see `Jitter.delay_ns`; none if an alert is
        critical.
        """
        if self.unsent_since_ns is None:
            return (
                bool(self._routed_members())
                and self.last_notification_ns is not None
                and at_ns >= self.last_notification_ns + self._timing.repeat_interval_ns
            )
        if self.last_notification_ns is None:
            due_ns = self.unsent_since_ns + self._timing.group_wait_ns
        else:
            due_ns = max(self.unsent_since_ns, self.last_notification_ns + self._timing.group_interval_ns)
        return at_ns >= due_ns + (0 if self._is_urgent else delay_of(self.unsent_since_ns, self._started))

    def is_expired(self, at_ns: int) -> bool:
        """Return whether the group is empty, and so long that its next notification would be a first one again."""
        return not self.members and self._interval_is_over(at_ns)

    def reason(self) -> NotificationReason:
        """Return the reason of the notification that is due, the weightiest one of several."""
        firing = [member for member in self.members.values() if member.alert.resolved is None]
        if any(member.notified_severity is None for member in firing):
            return NotificationReason.FIRST if self.last_notification_ns is None else NotificationReason.NEW_ALERT
        if any(member.notified_severity != member.alert.severity for member in firing):
            return NotificationReason.SEVERITY_CHANGED
        return NotificationReason.RESOLVED if len(firing) < len(self._routed_members()) else NotificationReason.REPEAT

    def mark_notified(self, firing: Mapping[str, Alert], at_ns: int) -> tuple[Alert, ...]:
        """Return the alerts of a notification, the worst first, resolved ones last, and mark them as notified."""
        members = self._routed_members()
        for member in members:
            current = firing.get(member.alert.fingerprint)
            if member.alert.resolved is None:
                member.alert = current or member.alert
                member.mark_notified_firing(member.alert.severity)
            elif current is not None and current.fired == member.alert.fired:
                member.mark_end_notified()
            else:
                del self.members[member.alert.fingerprint]
        self.unsent_since_ns = None
        self.last_notification_ns = at_ns
        return tuple(sorted((member.alert for member in members), key=_order))

    def _routed_members(self) -> list[GroupMember]:
        return [member for member in self.members.values() if not member.is_routed_elsewhere]

    def _interval_is_over(self, at_ns: int) -> bool:
        return self.last_notification_ns is None or at_ns >= self.last_notification_ns + self._timing.group_interval_ns


def _order(alert: Alert) -> tuple[bool, int, float, str]:
    return (alert.resolved is not None, -alert.severity, alert.fired, alert.fingerprint)


def _shifted(at_ns: int | None, boottime_shift_ns: int) -> int | None:
    return None if at_ns is None else at_ns + boottime_shift_ns
