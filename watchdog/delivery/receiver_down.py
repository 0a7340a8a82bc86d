"""Receivers that do not answer: since when, and the alert about each of them, which all others are told.

It goes the ordinary way of alerts, but for its birth: no rule measures it. Its own receiver is never among those who
are to hear of it, and it is about a receiver, not about a notice, so that there are never more of them than receivers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from watchdog.alerts.alert import Alert, AlertState, Transition, TransitionKind, fingerprint
from watchdog.clock import SECOND_NS, Now
from watchdog.config.durations import format_duration
from watchdog.errors import DocumentError, document_errors
from watchdog.rules.language.rule import Severity

RECEIVER_DOWN_RULE = "watchdog-receiver-down"
"""What stands where other alerts have the id of a rule."""

RECEIVER_RECOVERED = "it no longer fails"
RECEIVER_REMOVED = "receiver removed"
_LABEL = "receiver"


@dataclass(frozen=True, slots=True)
class Outage:
    """That nothing reaches a receiver: no attempt has succeeded since `since_ns`, when the first one failed.

    `since_ns`: CLOCK_BOOTTIME; `since`: wall clock, for display. `reason`: what the newest attempt ended with, without
    secrets.
    """

    since_ns: int
    since: float
    reason: str


class ReceiverDownAlerts:
    """The alerts about receivers that have been failing for too long."""

    def __init__(self, receivers: Iterable[str], down_after_ns: int) -> None:
        """Take the names of all receivers, and how long one may fail before the others hear of it."""
        self._receivers = tuple(receivers)
        self._dead_after_ns = down_after_ns
        self._dead: dict[str, Alert] = {}  # by receiver
        self._changes: dict[str, dict[str, Any] | None] = {}

    def advance(self, outages: Mapping[str, Outage], now: Now) -> list[Transition]:
        """Return what changed: receivers that are dead by now, and dead ones that no longer fail or are gone."""
        transitions = []
        for name, alert in list(self._dead.items()):
            if name not in outages or name not in self._receivers:
                ending = RECEIVER_RECOVERED if name in self._receivers else RECEIVER_REMOVED
                over = replace(alert, state=AlertState.RESOLVED, resolved=now.wall, reason=ending)
                transitions.append(Transition(TransitionKind.RESOLVED, over))
                del self._dead[name]
                self._changes[alert.fingerprint] = None
        for name in self._receivers:
            failure = outages.get(name)
            if failure is None or name in self._dead or now.boottime_ns - failure.since_ns < self._dead_after_ns:
                continue
            alert = self._dead[name] = self._alert(name, failure, now)
            transitions.append(Transition(TransitionKind.FIRING, alert))
            self._note(name, alert)
        return transitions

    def firing_alerts(self) -> dict[str, Alert]:
        """Return every alert that fires, by fingerprint."""
        return {alert.fingerprint: alert for alert in self._dead.values()}

    def alerts_by_receiver(self) -> Mapping[str, Alert]:
        """Return every alert that fires, by the receiver that it is about."""
        return self._dead

    def replace_receivers(self, receivers: Iterable[str], down_after_ns: int) -> None:
        """Take the names and the patience of a new configuration."""
        self._receivers = tuple(receivers)
        self._dead_after_ns = down_after_ns
        for name, alert in self._dead.items():
            self._dead[name] = replace(alert, receivers=self._others(name))
            self._note(name, self._dead[name])

    def mark_all_changed(self) -> None:
        """Have all of it returned by `take_changes` once more."""
        for name, alert in self._dead.items():
            self._note(name, alert)

    def take_changes(self) -> list[tuple[str, dict[str, Any] | None]]:
        """Return what `restore` needs of each alert that changed since the last call, None for one that is over."""
        changes, self._changes = self._changes, {}
        return list(changes.items())

    def restore(self, saved: Iterable[Mapping[str, Any]]) -> int:
        """Take back what a former daemon saved, and is no news; return how much of it cannot be read."""
        forgotten = 0
        for document in saved:
            try:
                with document_errors():
                    name, alert = str(document["down_receiver"]), Alert.from_json(document["alert"])
            except DocumentError:
                forgotten += 1
                continue
            self._dead[name] = replace(alert, receivers=self._others(name))
        return forgotten

    def _note(self, name: str, alert: Alert) -> None:
        self._changes[alert.fingerprint] = {"down_receiver": name, "alert": alert.to_json()}

    def _others(self, name: str) -> tuple[str, ...]:
        return tuple(other for other in self._receivers if other != name)

    def _alert(self, name: str, failure: Outage, now: Now) -> Alert:
        labels = ((_LABEL, name),)
        seconds = (now.boottime_ns - failure.since_ns) / SECOND_NS
        return Alert(
            rule=RECEIVER_DOWN_RULE,
            labels=labels,
            fingerprint=fingerprint(RECEIVER_DOWN_RULE, labels),
            state=AlertState.FIRING,
            severity=Severity.CRITICAL,
            summary=f"nothing reaches the receiver {name}: {failure.reason}",
            value=seconds,
            threshold=self._dead_after_ns / SECOND_NS,
            peak=seconds,
            started=failure.since,
            fired=now.wall,
            resolved=None,
            reason=f"no attempt has succeeded for {format_duration(self._dead_after_ns)}",
            receivers=self._others(name),
            runbook=None,
            format="seconds",
        )


def is_receiver_down_alert(alert: Alert, receiver: str) -> bool:
    """Tell whether `alert` says that nothing reaches `receiver`."""
    return alert.rule == RECEIVER_DOWN_RULE and alert.labels == ((_LABEL, receiver),)
