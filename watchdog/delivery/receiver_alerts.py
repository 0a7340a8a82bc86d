"""Alerts about receivers, at most one of a kind per receiver; all other receivers are notified of them.

They are ordinary alerts, except that no rule creates them. Such an alert never goes to the receiver that it is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from watchdog.alerts.alert import Alert, Transition, TransitionKind
from watchdog.clock import Now
from watchdog.errors import DocumentError, document_errors

RECEIVER_REMOVED = "receiver removed"


class ReceiverAlerts:
    """The firing alerts of one kind by receiver, and their changes for the state file."""

    def __init__(self, receivers: Iterable[str], document_key: str) -> None:
        """Take the names of all receivers. `document_key`: of the receiver's name in saved documents."""
        self._receivers = tuple(receivers)
        self._document_key = document_key
        self._firing: dict[str, Alert] = {}
        self._changes: dict[str, dict[str, Any] | None] = {}

    def firing_alerts(self) -> dict[str, Alert]:
        """Return the firing alerts by fingerprint."""
        return {alert.fingerprint: alert for alert in self._firing.values()}

    def alerts_by_receiver(self) -> Mapping[str, Alert]:
        """Return the firing alerts by the receiver that they are about."""
        return self._firing

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
                    name, alert = str(document[self._document_key]), Alert.from_json(document["alert"])
            except DocumentError:
                unreadable += 1
                continue
            self._firing[name] = replace(alert.shifted(boottime_shift_ns), receivers=self._others(name))
            if boottime_shift_ns:
                self._mark_changed(name)
        return unreadable

    def _take_receivers(self, receivers: Iterable[str]) -> None:
        self._receivers = tuple(receivers)
        for name, alert in self._firing.items():
            self._firing[name] = replace(alert, receivers=self._others(name))
            self._mark_changed(name)

    def _fire(self, name: str, alert: Alert) -> Transition:
        self._firing[name] = alert
        self._mark_changed(name)
        return Transition(TransitionKind.FIRING, alert)

    def _resolve(self, name: str, reason: str, now: Now) -> Transition:
        """End the alert about `name`: for `reason`, or because the receiver was removed."""
        alert = self._firing.pop(name)
        self._changes[alert.fingerprint] = None
        end = alert.resolved_at(now, reason if name in self._receivers else RECEIVER_REMOVED)
        return Transition(TransitionKind.RESOLVED, end)

    def _mark_changed(self, name: str) -> None:
        alert = self._firing[name]
        self._changes[alert.fingerprint] = {self._document_key: name, "alert": alert.to_json()}

    def _others(self, name: str) -> tuple[str, ...]:
        return tuple(other for other in self._receivers if other != name)
