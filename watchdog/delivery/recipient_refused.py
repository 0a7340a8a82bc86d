"""Alerts about receivers that refuse some of several recipients for good, such as one of three mail addresses.

The others are reached, so the receiver is not down: this is a warning, sent once to the other receivers. It ends with
the next notification that all recipients get.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from watchdog.alerts.alert import Alert, AlertState, Transition, fingerprint
from watchdog.alerts.boottimes import Boottimes
from watchdog.clock import Now
from watchdog.delivery.receiver_alerts import ReceiverAlerts
from watchdog.rules.language.rule import Severity

RECIPIENT_REFUSED_RULE = "watchdog-recipient-refused"
"""Rule id of these alerts; no rule file has such a rule."""

ALL_REACHED = "all recipients are reached"
DOCUMENT_KEY = "refusing_receiver"


class RecipientRefusedAlerts(ReceiverAlerts):
    """The alerts about receivers that refuse some recipients."""

    def __init__(self, receivers: Iterable[str]) -> None:
        """Take the names of all receivers."""
        super().__init__(receivers, DOCUMENT_KEY)

    def advance(self, refusals: Mapping[str, str], now: Now) -> list[Transition]:
        """Return the transitions; `refusals` as `Delivery.refusals`: "" means that all recipients were reached."""
        transitions = [
            self._resolve(name, ALL_REACHED, now)
            for name in list(self._firing)
            if name not in self._receivers or refusals.get(name) == ""
        ]
        transitions += [
            self._fire(name, self._alert(name, refusal, now))
            for name, refusal in refusals.items()
            if refusal and name not in self._firing and name in self._receivers and self._others(name)
        ]
        return transitions

    def replace_receivers(self, receivers: Iterable[str]) -> None:
        """Take the receivers of a new configuration."""
        self._take_receivers(receivers)

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
