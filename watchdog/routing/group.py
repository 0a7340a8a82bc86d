"""A notification group: the alerts of one receiver that share notifications, and when the next one is due."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from watchdog.alerts.alert import Alert
from watchdog.config.settings import GroupTiming
from watchdog.errors import document_errors
from watchdog.routing.group_member import GroupMember
from watchdog.routing.knowledge import Knowledge
from watchdog.routing.notification import NotificationReason
from watchdog.routing.suppression import SuppressionLookup
from watchdog.routing.urgency import UrgentNews
from watchdog.rules.language.rule import Labels, Severity

ReceiverGroupKey = tuple[str, str]
"""(receiver, group key); the group key is the rule's id unless a route sets `group_by`."""


_MAX_CAUSES = 3  # named in the reason of one notification


class NotificationGroup:
    """The alerts of one receiver that share notifications."""

    def __init__(self, timing: GroupTiming, group_labels: Labels | None = None) -> None:
        """Start without alerts; `group_labels`: the labels that its alerts share, None: they share the rule."""
        self.group_labels = group_labels
        self.members: dict[str, GroupMember] = {}
        self.unsent_since_ns: int | None = None
        self.last_notification_ns: int | None = None
        self._timing = timing
        self._started_ns = 0  # of the first alert that waits for its first notification
        self._is_critical = False
        self._urgent_news = UrgentNews()

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
        for saved in document["members"]:
            member = GroupMember.from_json(saved, boottime_shift_ns)
            group.members[member.alert.fingerprint] = member
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
            "members": [each.to_json() for each in self.members.values()],
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
        for member in self.members.values():
            self._update_urgency(member, at_ns)
        starts_ns = [
            one.alert.boottimes.started_ns for one in unsent if one.alert.boottimes and not one.notified_severity
        ]
        self._started_ns = min(starts_ns, default=at_ns)
        self._is_critical = any(member.alert.severity is Severity.CRITICAL for member in unsent)
        timings = {group_timing_of(member.alert) for member in unsent or self._open_members()}
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
            all_unsent = len(unsent) == len(self._open_members())
            if all_unsent and self._interval_is_over(at_ns) and not any(one.notified_severity for one in unsent):
                self.last_notification_ns = None  # the next one is a first notification again

    def adopt_member(self, member: GroupMember, origin: NotificationGroup) -> None:
        """Take a member over from `origin`, a group of the same receiver; its last notification counts here too."""
        self.members[member.alert.fingerprint] = member
        times = [at_ns for at_ns in (self.last_notification_ns, origin.last_notification_ns) if at_ns is not None]
        self.last_notification_ns = max(times, default=None)
        if member.needs_notification and origin.unsent_since_ns is not None:
            self.unsent_since_ns = min(self.unsent_since_ns or origin.unsent_since_ns, origin.unsent_since_ns)

    def correct(self, receiver: str, knowledge: Knowledge) -> bool:
        """Take the knowledge of `receiver` as the notified state; return whether anything differed."""
        changed = False
        for fingerprint, member in self.members.items():
            changed |= member.correct(knowledge.alerts.get((receiver, fingerprint)))
        return changed

    def is_due(self, at_ns: int, delay_of: Callable[[int, int], int]) -> bool:
        """Return whether a notification is due.

        `delay_of(unsent_since_ns, started_ns)`: the additional delay in ns, see `Jitter.delay_ns`; none if an alert is
        critical.
        """
        if self.unsent_since_ns is None:
            return (
                bool(self._open_members())
                and self.last_notification_ns is not None
                and at_ns >= self.last_notification_ns + self._timing.repeat_interval_ns
            )
        if self.last_notification_ns is None:
            due_ns = self.unsent_since_ns + self._timing.group_wait_ns
        else:
            due_ns = max(self.unsent_since_ns, self.last_notification_ns + self._timing.group_interval_ns)
            due_ns = min(due_ns, self._urgent_due_ns(self.last_notification_ns, at_ns) or due_ns)
        return at_ns >= due_ns + (0 if self._is_critical else delay_of(self.unsent_since_ns, self._started_ns))

    def _update_urgency(self, member: GroupMember, at_ns: int) -> None:
        if not member.is_urgent:
            member.urgent_since_ns = None
        elif member.urgent_since_ns is None:
            member.urgent_since_ns = at_ns
            self._urgent_news.record_arrival(at_ns)

    def _urgent_due_ns(self, last_notification_ns: int, at_ns: int) -> int | None:
        # None: no urgent news, or `group_wait` of all new alerts still runs. A rise in severity has no `group_wait`.
        ready = [
            member
            for member in self.members.values()
            if member.urgent_since_ns is not None
            and (member.is_notified_firing or at_ns >= member.urgent_since_ns + self._timing.group_wait_ns)
        ]
        if not ready:
            return None
        raises_group = self._known_severity() < max(_worst_firing(member) for member in ready)
        return self._urgent_news.due_ns(last_notification_ns, at_ns, raises_group=raises_group)

    def _known_severity(self) -> int:
        return max((member.known_severity or 0 for member in self.members.values()), default=0)

    def is_expired(self, at_ns: int) -> bool:
        """Return whether the group is empty, and so long that its next notification would be a first one again."""
        return not self.members and self._interval_is_over(at_ns)

    def reason(self) -> NotificationReason:
        """Return the reason of the notification that is due, the weightiest one of several."""
        members = self._open_members()
        firing = [member for member in members if member.alert.resolved is None]
        if any(member.released for member in firing):
            return NotificationReason.RELEASED
        if any(member.notified_severity is None for member in firing) or any(
            member.unsent_firing is not None for member in members
        ):
            return NotificationReason.FIRST if self.last_notification_ns is None else NotificationReason.NEW_ALERT
        if any(member.notified_severity != member.alert.severity for member in firing):
            return NotificationReason.SEVERITY_CHANGED
        return NotificationReason.RESOLVED if len(firing) < len(members) else NotificationReason.REPEAT

    def reason_detail(self) -> str:
        """Return the words that belong to `reason`: the suppressions that have ended, "" without any."""
        ended = dict.fromkeys(member.released for member in self._open_members() if member.released)
        return f"{_listed(list(ended))} ended" if ended else ""

    def suppress(self, receiver: str, lookup: SuppressionLookup, firing: Mapping[str, Alert], at_ns: int) -> bool:
        """Take the present suppressions of all alerts, at `at_ns` of CLOCK_BOOTTIME; return whether anything changed.

        A firing that resolved while it was suppressed leaves the group, unless the receiver knows it.
        """
        has_changed = False
        for member in self.members.values():
            has_changed |= member.suppress(lookup.find(receiver, firing.get(member.alert.fingerprint, member.alert)))
            if member.suppression is None or member.alert.resolved is not None:
                continue
            if member.withhold(at_ns, self.last_notification_ns, self._timing.repeat_interval_ns):
                lookup.record_withheld(member.suppression)
                has_changed = True
        return has_changed

    @property
    def has_suppressed(self) -> bool:
        """Return whether any of its alerts is suppressed."""
        return any(member.suppression is not None for member in self.members.values())

    def suppressed_ends(self) -> list[str]:
        """Return the fingerprints of the alerts that resolved while they were suppressed, unknown to the receiver."""
        return [
            fingerprint
            for fingerprint, member in self.members.items()
            if member.alert.resolved is not None and member.is_suppressed and not member.is_end_notified
        ]

    def mark_notified(self, firing: Mapping[str, Alert], at_ns: int) -> tuple[Alert, ...]:
        """Return the alerts of a notification, the worst first, resolved ones last, and mark them as notified."""
        members, known_severity = self._open_members(), self._known_severity()
        alerts = [self._mark_member_notified(member, firing) for member in members]
        if self.last_notification_ns is not None and known_severity < self._known_severity():
            self._urgent_news.record_raised(at_ns)
        self.unsent_since_ns = None
        self.last_notification_ns = at_ns
        return tuple(sorted(alerts, key=_order))

    def _mark_member_notified(self, member: GroupMember, firing: Mapping[str, Alert]) -> Alert:
        fingerprint = member.alert.fingerprint
        current = firing.get(fingerprint)
        if (held_back := member.unsent_firing) is not None:
            member.mark_notified_firing(held_back)
            return member.as_known(held_back)
        if member.alert.resolved is None:
            member.alert = current or member.alert
            member.mark_notified_firing(member.alert)
            return member.as_known(member.alert)
        end = member.end()  # before its state as known changes
        if current is not None and current.fired == member.alert.fired:
            member.mark_end_notified()
        else:
            del self.members[fingerprint]
        return end

    def _open_members(self) -> list[GroupMember]:
        # Those that the next notification contains.
        return [one for one in self.members.values() if not (one.is_routed_elsewhere or one.is_suppressed)]

    def _interval_is_over(self, at_ns: int) -> bool:
        return self.last_notification_ns is None or at_ns >= self.last_notification_ns + self._timing.group_interval_ns


def _order(alert: Alert) -> tuple[bool, int, float, float, str]:
    """Return the key of the order in a notification: a shortened one loses the end."""
    return (alert.resolved is not None, -alert.severity, -alert.weight, alert.fired, alert.fingerprint)


def _listed(causes: list[str]) -> str:
    more = len(causes) - _MAX_CAUSES
    return ", ".join(causes[:_MAX_CAUSES]) + (f" and {more} more" if more > 0 else "")


def _shifted(at_ns: int | None, boottime_shift_ns: int) -> int | None:
    return None if at_ns is None else at_ns + boottime_shift_ns


def _worst_firing(member: GroupMember) -> Severity:
    return (member.unsent_firing or member.alert).severity
