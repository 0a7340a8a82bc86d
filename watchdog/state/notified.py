"""The alerts that each receiver was sent as firing and not yet as resolved, by the notifications that it took.

A notification that was created can still be refused, expire or be dropped. This table says at the next start which
receivers are still owed a resolved notification.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Any

from watchdog.alerts.alert import Alert
from watchdog.errors import DocumentError, document_errors
from watchdog.routing.knowledge import Knowledge, KnownAlert
from watchdog.routing.notification import Notification
from watchdog.rules.language.rule import Severity
from watchdog.state import outbox_rows


@dataclass(frozen=True, slots=True)
class NewestDelivery:
    """The newest notification about an alert that a receiver took: its `severity`, the begin of the firing, its time.

    Times are wall-clock seconds; `at` is None for a delivery by an older version.
    """

    severity: Severity
    fired: float
    at: float | None


def record_delivery(connection: Connection, notification: Notification, wall: float) -> None:
    """Record the alerts of `notification`, which its receiver took at `wall`; a test notification changes nothing."""
    if notification.is_test:
        return
    connection.executemany(
        "INSERT INTO notified (receiver, rule, fingerprint, alert, delivered) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (receiver, rule, fingerprint) "
        "DO UPDATE SET alert = excluded.alert, delivered = excluded.delivered",
        [
            (notification.receiver, alert.rule, alert.fingerprint, _dumps(alert), wall)
            for alert in notification.alerts
            if alert.resolved is None
        ],
    )
    connection.executemany(
        "DELETE FROM notified WHERE receiver = ? AND rule = ? AND fingerprint = ?",
        [
            (notification.receiver, alert.rule, alert.fingerprint)
            for alert in notification.alerts
            if alert.resolved is not None
        ],
    )


def newest_deliveries(connection: Connection) -> dict[tuple[str, str], NewestDelivery]:
    """Return the newest delivery to each receiver about each alert that it knows as firing, by both names.

    The second name is the alert's fingerprint. Unreadable rows are left out.
    """
    rows = connection.execute(
        "SELECT receiver, fingerprint, delivered, json_extract(alert, '$.severity'), json_extract(alert, '$.fired') "
        "FROM notified WHERE json_valid(alert)"
    )
    found = {}
    for receiver, fingerprint, at, severity, fired in rows:
        with contextlib.suppress(DocumentError), document_errors():
            found[receiver, fingerprint] = NewestDelivery(Severity(severity), float(fired), at)
    return found


def queued_alerts(connection: Connection) -> frozenset[tuple[str, str]]:
    """Return (receiver, fingerprint) of the alerts in pending notifications."""
    rows = connection.execute(
        "SELECT DISTINCT receiver, json_extract(one.value, '$.fingerprint') FROM notifications, "
        "json_each(iif(json_valid(body), body, '{}'), '$.alerts') AS one "
        "WHERE state = 'pending' AND one.type = 'object'"
    )
    return frozenset((receiver, str(fingerprint)) for receiver, fingerprint in rows)


def forget_receivers(connection: Connection, configured: Collection[str]) -> None:
    """Delete the rows of all receivers that are not in `configured`."""
    for (receiver,) in connection.execute("SELECT DISTINCT receiver FROM notified").fetchall():
        if receiver not in configured:
            connection.execute("DELETE FROM notified WHERE receiver = ?", (receiver,))


def unresolved_alerts(connection: Connection) -> list[tuple[str, Alert]]:
    """Return (receiver, alert) of everything sent as firing for which no resolved notification is pending.

    Alerts that still fire are among them; the caller knows which ones do.
    """
    found = []
    receivers = connection.execute("SELECT DISTINCT receiver FROM notified ORDER BY receiver").fetchall()
    for (receiver,) in receivers:
        resolved = _pending_resolved(connection, receiver)
        for (text,) in connection.execute(
            "SELECT alert FROM notified WHERE receiver = ? ORDER BY rule, fingerprint", (receiver,)
        ):
            alert = _alert(text)
            if alert is not None and alert.fingerprint not in resolved:
                found.append((receiver, alert))
    return found


def read_knowledge(connection: Connection, receivers: Collection[str]) -> Knowledge:
    """Return the knowledge of `receivers` by the notifications that they took and by the pending ones."""
    known: dict[tuple[str, str], KnownAlert] = {}
    for receiver in receivers:
        rows = connection.execute("SELECT fingerprint, alert FROM notified WHERE receiver = ?", (receiver,)).fetchall()
        for fingerprint, text in rows:
            with contextlib.suppress(DocumentError):
                known[receiver, fingerprint] = _known(_json_object(text))
        for body in outbox_rows.pending_bodies(connection, receiver):
            for document in _alerts(body):
                with contextlib.suppress(DocumentError):
                    known[receiver, str(document.get("fingerprint"))] = _known(document)
    chosen = frozenset(receivers)
    unresolved = [(receiver, alert) for receiver, alert in unresolved_alerts(connection) if receiver in chosen]
    return Knowledge(chosen, known, unresolved)


@document_errors()
def _known(document: Mapping[str, Any]) -> KnownAlert:
    severity = Severity(document["severity"]) if document["resolved"] is None else None
    return KnownAlert(float(document["fired"]), severity)


@document_errors()
def _json_object(text: str) -> dict[str, Any]:
    return dict(json.loads(text))


def _pending_resolved(connection: Connection, receiver: str) -> set[str]:
    # The newest pending state of each alert counts: it may fire again after it resolved.
    is_resolved: dict[str, bool] = {}
    for body in outbox_rows.pending_bodies(connection, receiver):
        for alert in _alerts(body):
            is_resolved[str(alert.get("fingerprint"))] = alert.get("resolved") is not None
    return {fingerprint for fingerprint, resolved in is_resolved.items() if resolved}


def _alerts(body: str) -> Iterator[dict[str, Any]]:
    try:
        alerts = json.loads(body)["alerts"]
    except (LookupError, RecursionError, TypeError, ValueError):
        return  # damaged: it is discarded when its turn comes
    if isinstance(alerts, list):
        yield from (alert for alert in alerts if isinstance(alert, dict))


def _dumps(alert: Alert) -> str:
    document = alert.to_json()
    document["boottimes"] = None  # of this boot: the row can be read in any later one
    document.pop("evidence", None)  # it was sent with the firing notification, and takes most of the space
    return json.dumps(document, separators=(",", ":"))


def _alert(text: str) -> Alert | None:
    try:
        return Alert.from_json_text(text)
    except DocumentError:
        return None
