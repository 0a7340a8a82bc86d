"""Facts of one alert as names and texts, for receivers whose records have fields (syslog, journald, templates)."""

from __future__ import annotations

import enum

from watchdog.alerts.alert import Alert
from watchdog.receivers.render.notification_text import rfc3339
from watchdog.routing.notification import Notification, NotificationReason


class AlertEvent(enum.Enum):
    """The event that a record of an alert reports."""

    FIRING = "FIRING"
    REMINDER = "REMINDER"
    RESOLVED = "RESOLVED"


def alert_event(alert: Alert, notification: Notification) -> AlertEvent:
    """Return the event that `notification` reports of `alert`."""
    if alert.resolved is not None:
        return AlertEvent.RESOLVED
    return AlertEvent.REMINDER if notification.reason is NotificationReason.REPEAT else AlertEvent.FIRING


def alert_status(alert: Alert) -> str:
    """Return "firing" or "resolved"."""
    return "firing" if alert.resolved is None else "resolved"


def alert_facts(alert: Alert, notification: Notification) -> dict[str, str]:
    """Return the facts of `alert` by name, without its labels.

    The texts are not sanitised. Numbers are written by `repr`, times in RFC 3339. `resolved` is missing while the alert
    fires, `test` unless the notification is a test.
    """
    facts = {
        "rule": alert.rule,
        "state": alert_status(alert),
        "severity": alert.severity.label,
        "fingerprint": alert.fingerprint,
        "notification_id": notification.id,
        "value": repr(alert.value),
        "threshold": repr(alert.threshold),
        "peak": repr(alert.peak),
        "started": rfc3339(alert.started),
    }
    if alert.resolved is not None:
        facts["resolved"] = rfc3339(alert.resolved)
    if notification.is_test:
        facts["test"] = "true"
    return facts
