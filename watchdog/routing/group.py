"""A group: what one receiver knows of alerts that belong together, what it does not know yet, and when it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from watchdog.alerts.alert import Alert
from watchdog.config.settings import Waits
from watchdog.rules.language.rule import Labels, Severity

GroupKey = tuple[str, str]  # (receiver, the group's name: the rule's id, if it is not grouped by anything else)


@dataclass(slots=True)
class Member:
    """An alert as in the newest transition or notice.

    `told`: what the newest notice said of this firing, if any. `believed`: the receiver thinks that it fires, be it
    since this time or an earlier one. `ended`: a notice has told its end already, for it went to other receivers; it
    may come back, and if it is over before that was told, there is no other end to be told.
    """

    alert: Alert
    told: Severity | None = None
    believed: bool = False
    ended: bool = False

    @property
    def is_news(self) -> bool:
        """Tell whether the receiver does not know it."""
        if self.alert.resolved is not None:
            return not self.ended
        return self.told != self.alert.severity

    @property
    def is_away(self) -> bool:
        """Tell whether it fires, but no longer here."""
        return self.ended and self.alert.resolved is not None


class Group:
    """The alerts of one receiver that are told together."""

    def __init__(self, waits: Waits, by: Labels | None = None) -> None:
        """Start empty; `by`: what its alerts have in common, None: their rule."""
        self.by = by
        self.members: dict[str, Member] = {}
        self.news_since_ns: int | None = None
        self.last_notice_ns: int | None = None
        self._waits = waits
        self._started = 0.0
        self._is_urgent = False

    @classmethod
    def from_json(cls, document: Mapping[str, Any], shift_ns: int, usual: Waits) -> Group:
        """Return the group that `to_json` wrote; `usual` are the waits of one that has none."""
        by = document.get("by")
        waits = Waits(*document["waits"]) if "waits" in document else usual
        group = cls(waits, None if by is None else tuple((name, value) for name, value in by))
        for member in document["members"]:
            alert = Alert.from_json(member["alert"])
            told = member["told"]
            group.members[alert.fingerprint] = Member(
                alert,
                None if told is None else Severity(told),
                believed=bool(member.get("believed", told)),
                ended=bool(member.get("ended")),
            )
        group.news_since_ns = _shifted(document["news_since_ns"], shift_ns)
        group.last_notice_ns = _shifted(document["last_notice_ns"], shift_ns)
        return group

    def to_json(self, key: GroupKey) -> dict[str, Any]:
        """Return what `json` can write and `from_json` reads."""
        receiver, name = key
        waits = self._waits
        return {
            "receiver": receiver,
            "rule": name,
            "by": self.by,
            "members": [
                {"alert": each.alert.to_json(), "told": each.told, "believed": each.believed, "ended": each.ended}
                for each in self.members.values()
            ],
            "news_since_ns": self.news_since_ns,
            "last_notice_ns": self.last_notice_ns,
            "waits": [waits.group_wait_ns, waits.group_interval_ns, waits.repeat_interval_ns],
        }

    def refresh(self, at_ns: int, waits_of: Callable[[Alert], Waits]) -> None:
        """Start the wait at the first news; forget it when an alert is back to what the receiver knows.

        Of the waits that its news have, or its alerts where none is news, the shortest are the group's.
        """
        news = [member for member in self.members.values() if member.is_news]
        self._started = min((member.alert.started for member in news if member.told is None), default=0.0)
        self._is_urgent = any(member.alert.severity is Severity.CRITICAL for member in news)
        waits = {waits_of(member.alert) for member in news or self._here()}
        if waits:
            self._waits = Waits(
                min(each.group_wait_ns for each in waits),
                min(each.group_interval_ns for each in waits),
                min(each.repeat_interval_ns for each in waits),
            )
        if not news:
            self.news_since_ns = None
        elif self.news_since_ns is None:
            self.news_since_ns = at_ns
            if len(news) == len(self._here()) and self._is_long_ago(at_ns) and not any(m.told for m in news):
                self.last_notice_ns = None  # a first one again

    def take(self, member: Member, origin: Group) -> None:
        """Take over a member of another group of the same receiver; what that has told counts for the waits here."""
        self.members[member.alert.fingerprint] = member
        times = [at_ns for at_ns in (self.last_notice_ns, origin.last_notice_ns) if at_ns is not None]
        self.last_notice_ns = max(times, default=None)
        if member.is_news and origin.news_since_ns is not None:
            self.news_since_ns = min(self.news_since_ns or origin.news_since_ns, origin.news_since_ns)

    def is_due(self, at_ns: int, delay_of: Callable[[int, float], int]) -> bool:
        """Tell whether a notice is to be made now; `delay_of`: how much later, by when news and alerts began."""
        if self.news_since_ns is None:
            return (
                bool(self._here())
                and self.last_notice_ns is not None
                and at_ns >= self.last_notice_ns + self._waits.repeat_interval_ns
            )
        if self.last_notice_ns is None:
            due_ns = self.news_since_ns + self._waits.group_wait_ns
        else:
            due_ns = max(self.news_since_ns, self.last_notice_ns + self._waits.group_interval_ns)
        return at_ns >= due_ns + (0 if self._is_urgent else delay_of(self.news_since_ns, self._started))

    def is_over(self, at_ns: int) -> bool:
        """Tell whether nothing fires and the last notice is so long ago that the next alert is a first one again."""
        return not self.members and self._is_long_ago(at_ns)

    def reason(self) -> str:
        """Return why a notice is due now, the weightiest reason of several."""
        firing = [member for member in self.members.values() if member.alert.resolved is None]
        if any(member.told is None for member in firing):
            return "first notification" if self.last_notice_ns is None else "new alert in group"
        if any(member.told != member.alert.severity for member in firing):
            return "severity changed"
        return "resolved" if len(firing) < len(self._here()) else "repeat"

    def tell(self, firing: Mapping[str, Alert], at_ns: int) -> tuple[Alert, ...]:
        """Return the alerts of a notice, worst first and resolved ones last, and note that they have been told."""
        here = self._here()
        for member in here:
            fires = firing.get(member.alert.fingerprint)
            if member.alert.resolved is None:
                member.alert = fires or member.alert
                member.told, member.believed, member.ended = member.alert.severity, True, False
            elif fires is not None and fires.fired == member.alert.fired:
                member.told, member.believed, member.ended = None, False, True
            else:
                del self.members[member.alert.fingerprint]
        self.news_since_ns = None
        self.last_notice_ns = at_ns
        return tuple(sorted((member.alert for member in here), key=_weight))

    def _here(self) -> list[Member]:
        return [member for member in self.members.values() if not member.is_away]

    def _is_long_ago(self, at_ns: int) -> bool:
        return self.last_notice_ns is None or at_ns >= self.last_notice_ns + self._waits.group_interval_ns


def _weight(alert: Alert) -> tuple[bool, int, float, str]:
    return (alert.resolved is not None, -alert.severity, alert.fired, alert.fingerprint)


def _shifted(at_ns: int | None, shift_ns: int) -> int | None:
    return None if at_ns is None else at_ns + shift_ns
