"""Alerts about receivers that are down.

They are about a receiver and not about a notification, so there are never more of them than receivers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from watchdog.alerts.alert import Alert, AlertState, Transition, fingerprint
from watchdog.alerts.boottimes import Boottimes
from watchdog.clock import SECOND_NS, Now
from watchdog.config.durations import format_duration
from watchdog.delivery.health import Outage, down_receivers
from watchdog.delivery.receiver_alerts import ReceiverAlerts
from watchdog.rules.language.rule import Severity

RECEIVER_DOWN_RULE = "watchdog-receiver-down"
"""Rule id of these alerts; no rule file has such a rule."""

RECEIVER_RECOVERED = "receiver works again"
_LABEL = "receiver"


class ReceiverDownAlerts(ReceiverAlerts):
    """The alerts about receivers whose outage has lasted `receiver_down_after` or longer."""

    def __init__(self, receivers: Iterable[str], down_after_ns: int) -> None:
        """Take the names of all receivers, and the age from which an outage means that its receiver is down."""
        super().__init__(receivers, "down_receiver")
        self._down_after_ns = down_after_ns

    def down_receivers(self, outages: Mapping[str, Outage], now_ns: int) -> dict[str, Outage]:
        """Return the outages of receivers that are down at `now_ns` of CLOCK_BOOTTIME, by receiver.

        Never blocks; may be called from any thread.
        """
        return down_receivers(outages, self._receivers, self._down_after_ns, now_ns)

    def advance(self, outages: Mapping[str, Outage], now: Now) -> list[Transition]:
        """Return the transitions: receivers that are down now, and former ones that work again or were removed."""
        transitions = [
            self._resolve(name, RECEIVER_RECOVERED, now)
            for name in list(self._firing)
            if name not in outages or name not in self._receivers
        ]
        for name, alert in self._firing.items():  # the length of the outage is no change that must be saved
            seconds = (now.boottime_ns - outages[name].since_ns) / SECOND_NS
            self._firing[name] = replace(alert, value=seconds, peak=max(alert.peak, seconds))
        transitions += [
            self._fire(name, self._alert(name, outage, now))
            for name, outage in self.down_receivers(outages, now.boottime_ns).items()
            if name not in self._firing
        ]
        return transitions

    def replace_receivers(self, receivers: Iterable[str], down_after_ns: int) -> None:
        """Take the receivers and the time of a new configuration."""
        self._down_after_ns = down_after_ns
        self._take_receivers(receivers)

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
