"""Alerts about receivers that are down; all other receivers are notified of them.

They are ordinary alerts, except that no rule creates them. Such an alert never goes to the receiver that it is about.
It is about a receiver and not about a notification, so there are never more of them than receivers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from watchdog.alerts.alert import Alert, AlertState, Transition, TransitionKind, fingerprint
from watchdog.alerts.boottimes import Boottimes
from watchdog.clock import SECOND_NS, Now
from watchdog.config.durations import format_duration
from watchdog.delivery.health import Outage, down_receivers
from watchdog.errors import DocumentError, document_errors
from watchdog.rules.language.rule import Severity

RECEIVER_DOWN_RULE = "watchdog-receiver-down"
"""Rule id of these alerts; no rule file has such a rule."""

RECEIVER_RECOVERED = "receiver works again"
RECEIVER_REMOVED = "receiver removed"
_LABEL = "receiver"


class ReceiverDownAlerts:
    """The alerts about receivers whose outage has lasted `receiver_down_after` or longer."""

    def __init__(self, receivers: Iterable[str], down_after_ns: int) -> None:
        """Take the names of all receivers, and the age from which an outage means that its receiver is down."""
        self._receivers = tuple(receivers)
        self._down_after_ns = down_after_ns
        self._firing: dict[str, Alert] = {}  # by receiver
        self._changes: dict[str, dict[str, Any] | None] = {}

    def down_receivers(self, outages: Mapping[str, Outage], now_ns: int) -> dict[str, Outage]:
        """Return the outages of receivers that are down at `now_ns` of CLOCK_BOOTTIME, by receiver.

        Never blocks; may be called from any thread.
        """
        return down_receivers(outages, self._receivers, self._down_after_ns, now_ns)

    def advance(self, outages: Mapping[str, Outage], now: Now) -> list[Transition]:
        """Return the transitions: receivers that are down now, and former ones that work again or were removed."""
        transitions = []
        for name, alert in list(self._firing.items()):
            if name not in outages or name not in self._receivers:
                reason = RECEIVER_RECOVERED if name in self._receivers else RECEIVER_REMOVED
                transitions.append(Transition(TransitionKind.RESOLVED, alert.resolved_at(now, reason)))
                del self._firing[name]
                self._changes[alert.fingerprint] = None
        for name, outage in self.down_receivers(outages, now.boottime_ns).items():
            if name in self._firing:
                continue
            alert = self._firing[name] = self._alert(name, outage, now)
            transitions.append(Transition(TransitionKind.FIRING, alert))
            self._mark_changed(name, alert)
        return transitions

    def firing_alerts(self) -> dict[str, Alert]:
        """Return the firing alerts by fingerprint."""
        return {alert.fingerprint: alert for alert in self._firing.values()}

    def alerts_by_receiver(self) -> Mapping[str, Alert]:
        """Return the firing alerts by the receiver that they are about."""
        return self._firing

    def replace_receivers(self, receivers: Iterable[str], down_after_ns: int) -> None:
        """Take the receivers and the time of a new configuration."""
        self._receivers = tuple(receivers)
        self._down_after_ns = down_after_ns
        for name, alert in self._firing.items():
            self._firing[name] = replace(alert, receivers=self._others(name))
            self._mark_changed(name, self._firing[name])

    def mark_all_changed(self) -> None:
        """Make the next `take_changes` return every alert."""
        for name, alert in self._firing.items():
            self._mark_changed(name, alert)

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
                    name, alert = str(document["down_receiver"]), Alert.from_json(document["alert"])
            except DocumentError:
                unreadable += 1
                continue
            self._firing[name] = replace(alert.shifted(boottime_shift_ns), receivers=self._others(name))
            if boottime_shift_ns:
                self._mark_changed(name, self._firing[name])
        return unreadable

    def _mark_changed(self, name: str, alert: Alert) -> None:
        self._changes[alert.fingerprint] = {"down_receiver": name, "alert": alert.to_json()}

    def _others(self, name: str) -> tuple[str, ...]:
        return tuple(other for other in self._receivers if other != name)

    def _alert(self, name: str, outage: Outage, now: Now) -> Alert:
        labels = ((_LABEL, name),)
        seconds = (now.boottime_ns - outage.since_ns) / SECOND_NS
        return Alert(
            rule=RECEIVER_DOWN_RULE,
            labels=labels,
            fingerprint=fingerprint(RECEIVER_DOWN_RULE, labels),
            state=AlertState.FIRING,
            severity=Severity.CRITICAL,
            summary=f"receiver {name} is down: {outage.reason}",
            value=seconds,
            threshold=self._down_after_ns / SECOND_NS,
            peak=seconds,
            started=outage.since,
            fired=now.wall,
            resolved=None,
            reason=f"no attempt has succeeded for {format_duration(self._down_after_ns)}",
            receivers=self._others(name),
            runbook=None,
            format="seconds",
            boottimes=Boottimes(outage.since_ns, now.boottime_ns),
        )


def is_receiver_down_alert(alert: Alert, receiver: str) -> bool:
    """Return whether `alert` reports that `receiver` is down."""
    return alert.rule == RECEIVER_DOWN_RULE and alert.labels == ((_LABEL, receiver),)
