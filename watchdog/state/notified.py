"""Which alerts each receiver was told to fire and not told the end of: by what it took, not by what was made for it.

A notice that was made can still be refused, expire or be dropped. From this is known, at the next start, who still has
to be told an end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from sqlite3 import Connection
from typing import Any

from watchdog.alerts.alert import Alert
from watchdog.errors import DocumentError
from watchdog.routing.notification import Notification


def record_delivery(connection: Connection, notification: Notification) -> None:
    """Write down what the receiver of `notification` knows now that it took it."""
    if notification.is_test:
        return
    connection.executemany(
        "INSERT INTO told (receiver, rule, fingerprint, alert) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (receiver, rule, fingerprint) DO UPDATE SET alert = excluded.alert",
        [
            (notification.receiver, alert.rule, alert.fingerprint, _dumps(alert))
            for alert in notification.alerts
            if alert.resolved is None
        ],
    )
    connection.executemany(
        "DELETE FROM told WHERE receiver = ? AND rule = ? AND fingerprint = ?",
        [
            (notification.receiver, alert.rule, alert.fingerprint)
            for alert in notification.alerts
            if alert.resolved is not None
        ],
    )


def unresolved_alerts(connection: Connection) -> list[tuple[str, Alert]]:
    """Return receiver and alert of everything told to fire whose end does not wait to be sent.

    That is what fires on, too: who asks knows which that is.
    """
    found = []
    receivers = connection.execute("SELECT DISTINCT receiver FROM told ORDER BY receiver").fetchall()
    for (receiver,) in receivers:
        ends = _waiting_ends(connection, receiver)
        for (text,) in connection.execute(
            "SELECT alert FROM told WHERE receiver = ? ORDER BY rule, fingerprint", (receiver,)
        ):
            alert = _alert(text)
            if alert is not None and alert.fingerprint not in ends:
                found.append((receiver, alert))
    return found


def _waiting_ends(connection: Connection, receiver: str) -> set[str]:
    # The newest that waits of each alert counts: it may fire again after its end.
    ended: dict[str, bool] = {}
    for (body,) in connection.execute(
        "SELECT body FROM notices WHERE state = 'pending' AND receiver = ? ORDER BY place", (receiver,)
    ):
        for alert in _alerts(body):
            ended[str(alert.get("fingerprint"))] = alert.get("resolved") is not None
    return {fingerprint for fingerprint, is_over in ended.items() if is_over}


def _alerts(body: str) -> Iterator[dict[str, Any]]:
    try:
        alerts = json.loads(body)["alerts"]
    except (LookupError, TypeError, ValueError):
        return  # it will be given up when its turn comes
    yield from (alert for alert in alerts if isinstance(alert, dict))


def _dumps(alert: Alert) -> str:
    document = alert.to_json()
    document.pop("evidence", None)  # of the beginning: it was told, and takes the most room
    return json.dumps(document, separators=(",", ":"))


def _alert(text: str) -> Alert | None:
    try:
        return Alert.from_json_text(text)
    except DocumentError:
        return None
