"""A member of a notification group: one alert, with its state as notified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from watchdog.alerts.alert import Alert, AlertIdentity
from watchdog.routing.knowledge import KnownAlert
from watchdog.routing.suppression import Suppression
from watchdog.rules.language.rule import Severity


@dataclass(slots=True)
class GroupMember:
    """One alert of a group, as in its newest transition or notification.

    `notified_severity`: the severity that the newest notification gave for this firing, None: not notified of it.
    `known_severity`: the severity in the last notification that gave the alert as firing, in this firing or an earlier
    one; None: the receiver knows the alert as resolved, or not at all. `highest`: the highest severity notified since
    the last end, with its threshold. `unsent_firing`: the alert as it fired, if it resolved while an earlier
    notification of the group held its first one back; the receiver is notified of the firing before the end.
    `is_end_notified`: the end of the firing has been sent although it goes on, because the alert is routed to other
    receivers. The alert may be routed back; if it resolves before that, no second end is sent. `is_flapping`: it has
    fired so often that a further firing is not urgent. `identity`: the one under which the receiver knows the alert as
    firing; its end has it too, whatever the host and the labels are by then. `urgent_since_ns`: CLOCK_BOOTTIME, None:
    not urgent. `suppression`: the cause that withholds the notifications of this firing, None without one. `released`:
    the last cause, in words, until the receiver is notified of the alert that outlasted it, else "".
    `withheld_severity`: the severity of the newest notification that was withheld, at `withheld_ns` of CLOCK_BOOTTIME.
    """

    alert: Alert
    notified_severity: Severity | None = None
    known_severity: Severity | None = None
    highest: tuple[Severity, float, str] | None = None
    unsent_firing: Alert | None = None
    is_end_notified: bool = False
    is_flapping: bool = False
    identity: AlertIdentity | None = None
    urgent_since_ns: int | None = None
    suppression: Suppression | None = None
    released: str = ""
    withheld_severity: Severity | None = None
    withheld_ns: int | None = None

    @property
    def is_notified_firing(self) -> bool:
        """Return whether the receiver knows the alert as firing."""
        return self.known_severity is not None

    @property
    def needs_notification(self) -> bool:
        """Return whether the alert differs from the last notification."""
        if self.alert.resolved is not None:
            return not self.is_end_notified
        return self.suppression is None and (self.notified_severity != self.alert.severity or bool(self.released))

    @property
    def is_suppressed(self) -> bool:
        """Return whether notifications of the alert are withheld now: its end never is, where the receiver knows it."""
        return self.suppression is not None and (self.alert.resolved is None or not self.is_notified_firing)

    @property
    def is_urgent(self) -> bool:
        """Return whether the alert is worse than the receiver knows."""
        if self.alert.resolved is not None:
            return self.unsent_firing is not None
        return not self.is_flapping and self.needs_notification and self.alert.severity > (self.known_severity or 0)

    @property
    def is_routed_elsewhere(self) -> bool:
        """Return whether the alert fires, but is no longer routed to this receiver."""
        return self.is_end_notified and self.alert.resolved is not None

    def begin_firing(self, alert: Alert) -> None:
        """Take a new firing of the alert; an end that was not sent is replaced by it."""
        self.alert = alert
        self.notified_severity, self.unsent_firing, self.is_end_notified = None, None, False
        self.suppression, self.released, self.withheld_severity, self.withheld_ns = None, "", None, None

    def suppress(self, suppression: Suppression | None) -> bool:
        """Take the present cause of suppression, None without one; return whether it changed.

        A resolved alert that the receiver does not know stays suppressed: it is not worth a notification any more.
        """
        former = self.suppression
        if self.alert.resolved is not None and (self.is_notified_firing or suppression is None):
            return False
        self.suppression = suppression
        if suppression is not None:
            self.released = ""
        elif former is not None:
            self.released = former.describe()
            self.withheld_severity = self.withheld_ns = None
        return suppression != former

    def withhold(self, at_ns: int, last_notification_ns: int | None, repeat_interval_ns: int) -> bool:
        """Return whether a notification is withheld now: a first one, a change of severity, or a reminder."""
        severity = self.alert.severity
        since_ns = last_notification_ns if self.withheld_ns is None else self.withheld_ns
        is_news = severity not in {self.notified_severity, self.withheld_severity}
        if not is_news and (since_ns is None or at_ns < since_ns + repeat_interval_ns):
            return False
        self.withheld_severity, self.withheld_ns = severity, at_ns
        return True

    def resolve(self, alert: Alert, *, was_held_back: bool) -> None:
        """Take the end of the firing; `was_held_back`: an earlier notification of the group delayed the first one."""
        if was_held_back and self.is_urgent and self.known_severity is None and self.unsent_firing is None:
            self.unsent_firing = self.alert
        self.alert = alert

    def mark_notified_firing(self, alert: Alert) -> None:
        """Record that the receiver was notified of the firing `alert`."""
        self.notified_severity = self.known_severity = alert.severity
        self.unsent_firing, self.is_end_notified, self.released = None, False, ""
        self.identity = self.identity or alert.identity
        if self.highest is None or alert.severity >= self.highest[0]:
            self.highest = alert.severity, alert.threshold, alert.threshold_text

    def mark_end_notified(self) -> None:
        """Record that the receiver was notified of an end while the alert still fires."""
        self.notified_severity = self.known_severity = self.highest = self.identity = None
        self.is_end_notified = True

    def as_known(self, alert: Alert) -> Alert:
        """Return `alert` with the identity under which the receiver knows it."""
        return alert if self.identity is None else replace(alert, identity=self.identity)

    def correct(self, known: KnownAlert | None) -> bool:
        """Take `known`, the knowledge of the receiver about the alert, None: none; return whether it differed.

        Only for a firing alert: the end of another one is owed by the firing notification.
        """
        if self.alert.resolved is not None or self.notified_severity is None:
            return False
        known_severity = None if known is None else known.severity
        notified = known_severity if known is not None and known.fired == self.alert.fired else None
        if notified == self.notified_severity:
            return False
        self.notified_severity, self.known_severity = notified, known_severity
        if known_severity is None:
            self.highest = self.identity = None
        return True

    def end(self) -> Alert:
        """Return the end of the alert, with the highest severity that was notified."""
        alert = self.as_known(self.alert)
        if self.highest is None or self.highest[0] <= alert.severity:
            return alert
        severity, threshold, text = self.highest
        return replace(alert, severity=severity, threshold=threshold, threshold_text=text)

    def to_json(self) -> dict[str, Any]:
        """Return a document for `json` and `from_json`."""
        return {
            "alert": self.alert.to_json(),
            "notified_severity": self.notified_severity,
            "known_severity": self.known_severity,
            "highest": self.highest,
            "unsent_firing": None if self.unsent_firing is None else self.unsent_firing.to_json(),
            "is_end_notified": self.is_end_notified,
            "identity": None if self.identity is None else self.identity.to_json(),
            "suppression": None if self.suppression is None else self.suppression.to_json(),
            "released": self.released,
            "withheld_severity": self.withheld_severity,
            "withheld_ns": self.withheld_ns,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], boottime_shift_ns: int = 0) -> GroupMember:
        """Return the member that `to_json` wrote, in this version or one with `is_notified_firing` alone."""
        alert = Alert.from_json(document["alert"]).shifted(boottime_shift_ns)
        highest, unsent = document.get("highest"), document.get("unsent_firing")
        withheld_ns = document.get("withheld_ns")
        notified = _severity_from_json(document["notified_severity"])
        known = _severity_from_json(document.get("known_severity"))
        if "known_severity" not in document and document.get("is_notified_firing", notified is not None):
            known = notified or alert.severity
        return cls(
            alert,
            notified,
            known,
            None if highest is None else (Severity(highest[0]), float(highest[1]), str(highest[2])),
            None if unsent is None else Alert.from_json(unsent).shifted(boottime_shift_ns),
            is_end_notified=bool(document.get("is_end_notified")),
            identity=None if known is None else _identity_from_json(document, alert),
            suppression=Suppression.from_json(document.get("suppression")),
            released=str(document.get("released", "")),
            withheld_severity=_severity_from_json(document.get("withheld_severity")),
            withheld_ns=None if withheld_ns is None else withheld_ns + boottime_shift_ns,
        )


def _identity_from_json(document: Mapping[str, Any], alert: Alert) -> AlertIdentity:
    identity = document.get("identity")
    return alert.identity if identity is None else AlertIdentity.from_json(identity)


def _severity_from_json(number: int | None) -> Severity | None:
    return None if number is None else Severity(number)
