"""The receivers of alerts: what each has taken, by the state file, and what waits in its queue."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from watchdog.alerts.alert import Alert
from watchdog.control.alert_handlers import AlertReceiver
from watchdog.errors import StoreError
from watchdog.rules.language.rule import Severity
from watchdog.state import notified
from watchdog.state.notified import NewestDelivery
from watchdog.storage.reader import ReadableDatabase

KnownSeverities = Mapping[str, Severity | None]
"""By receiver, the severity that the newest notification made for it gives; None: none was made."""

_Deliveries = Mapping[tuple[str, str], NewestDelivery]  # by receiver and fingerprint


class AlertReceivers:
    """Reads the deliveries of alerts from the state file: no tick may wait for it."""

    def __init__(self, reader: ReadableDatabase) -> None:
        """Read the state file through `reader`."""
        self._reader = reader

    def read(self, alerts: Sequence[tuple[Alert, KnownSeverities]]) -> dict[str, tuple[AlertReceiver, ...]]:
        """Return the receivers of each firing alert, by its fingerprint, in the order of their names.

        Without a readable state file none counts as notified.
        """
        delivered: _Deliveries = {}
        queued: frozenset[tuple[str, str]] = frozenset()
        with contextlib.suppress(StoreError), self._reader.transaction() as connection:
            delivered = notified.newest_deliveries(connection)
            if any(_has_made_more(alert, known, delivered) for alert, known in alerts):
                queued = notified.queued_alerts(connection)
        return {
            alert.fingerprint: tuple(
                _receiver(
                    name,
                    severity,
                    _of_firing(delivered, name, alert),
                    is_queued=(name, alert.fingerprint) in queued,
                )
                for name, severity in sorted(known.items())
            )
            for alert, known in alerts
        }


def _has_made_more(alert: Alert, known: KnownSeverities, delivered: _Deliveries) -> bool:
    found = ((severity, _of_firing(delivered, name, alert)) for name, severity in known.items())
    return any(severity is not None and (one is None or one.severity != severity) for severity, one in found)


def _of_firing(delivered: _Deliveries, receiver: str, alert: Alert) -> NewestDelivery | None:
    one = delivered.get((receiver, alert.fingerprint))
    return one if one is not None and one.fired == alert.fired else None


def _receiver(name: str, severity: Severity | None, newest: NewestDelivery | None, *, is_queued: bool) -> AlertReceiver:
    queued = severity.label if severity is not None and is_queued else None
    if newest is None:
        return AlertReceiver(name, None, None, queued)
    return AlertReceiver(name, newest.severity.label, newest.at, None if newest.severity == severity else queued)
