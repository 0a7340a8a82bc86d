"""Alerts about receivers that refuse some of several recipients for good, such as one of three mail addresses.

The others are reached, so the receiver is not down: this is a warning, sent once to the other receivers. It ends with
the next notification that all recipients get.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from watchdog.alerts.alert import Alert, AlertState, Transition, TransitionKind, fingerprint
from watchdog.alerts.boottimes import Boottimes
from watchdog.clock import Now
from watchdog.errors import DocumentError, document_errors
from watchdog.rules.language.rule import Severity

RECIPIENT_REFUSED_RULE = "watchdog-recipient-refused"
"""Rule id of these alerts; no rule file has such a rule."""

ALL_REACHED = "all recipients are reached"
RECEIVER_REMOVED = "receiver removed"
DOCUMENT_KEY = "refusing_receiver"


class RecipientRefusedAlerts:
    """The alerts, at most one per receiver."""

    def __init__(self, receivers: Iterable[str]) -> None:
        """Take the names of all receivers."""
        self._receivers = tuple(receivers)
        self._firing: dict[str, Alert] = {}  # by receiver
        self._changes: dict[str, dict[str, Any] | None] = {}

    def advance(self, refusals: Mapping[str, str], now: Now) -> list[Transition]:
        """Return the transitions; `refusals` as `Delivery.refusals`: "" means that all recipients were reached."""
        transitions = []
        for name, alert in list(self._firing.items()):
            if name in self._receivers and refusals.get(name) != "":
                continue
            reason = ALL_REACHED if name in self._receivers else RECEIVER_REMOVED
            transitions.append(Transition(TransitionKind.RESOLVED, alert.resolved_at(now, reason)))
            del self._firing[name]
            self._changes[alert.fingerprint] = None
        for name, refusal in refusals.items():
            if refusal and name not in self._firing and name in self._receivers and self._others(name):
                self._firing[name] = self._alert(name, refusal, now)
                transitions.append(Transition(TransitionKind.FIRING, self._firing[name]))
                self._mark_changed(name)
        return transitions

    def firing_alerts(self) -> dict[str, Alert]:
        """Return the firing alerts by fingerprint."""
        return {alert.fingerprint: alert for alert in self._firing.values()}

    def replace_receivers(self, receivers: Iterable[str]) -> None:
        """Take the receivers of a new configuration."""
        self._receivers = tuple(receivers)
        for name, alert in self._firing.items():
            self._firing[name] = replace(alert, receivers=self._others(name))
            self._mark_changed(name)

    def mark_all_changed(self) -> None:
        """Make the next `take_changes` return every alert."""
        for name in self._firing:
            self._mark_changed(name)

    def take_changes(self) -> list[tuple[str, dict[str, Any] | None]]:
        """Return (fingerprint, document) of alerts that changed since the last call; None for a resolved one."""
        changes, self._changes = self._changes, {}
        return list(changes.items())

    def restore(self, saved: Iterable[Mapping[str, Any]], boottime_shift_ns: int = 0) -> int:
        """Restore the alerts that a former daemon saved, without transitions; return the number of unreadable ones."""
        unreadable = 0
        for document in saved:
            try:
                with document_errors():
                    name, alert = str(document[DOCUMENT_KEY]), Alert.from_json(document["alert"])
            except DocumentError:
                unreadable += 1
                continue
            self._firing[name] = replace(alert.shifted(boottime_shift_ns), receivers=self._others(name))
            if boottime_shift_ns:
                self._mark_changed(name)
        return unreadable

    def _mark_changed(self, name: str) -> None:
        alert = self._firing[name]
        self._changes[alert.fingerprint] = {DOCUMENT_KEY: name, "alert": alert.to_json()}

    def _others(self, name: str) -> tuple[str, ...]:
        return tuple(other for other in self._receivers if other != name)

    def _alert(self, name: str, refusal: str, now: Now) -> Alert:
        labels = (("receiver", name),)
        return Alert(
            rule=RECIPIENT_REFUSED_RULE,
            labels=labels,
            fingerprint=fingerprint(RECIPIENT_REFUSED_RULE, labels),
            state=AlertState.FIRING,
            severity=Severity.WARNING,
            summary=f"receiver {name} reaches only some of its recipients: {refusal}",
            value=1.0,
            threshold=0.0,
            peak=1.0,
            started=now.wall,
            fired=now.wall,
            resolved=None,
            reason="a recipient was refused for good",
            receivers=self._others(name),
            runbook=None,
            boottimes=Boottimes(now.boottime_ns, now.boottime_ns),
        )
