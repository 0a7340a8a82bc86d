"""The least that can be said of a notice: what is sent when its own words cannot be rendered."""

from __future__ import annotations

import math
from dataclasses import replace

from watchdog import sanitize
from watchdog.alerts.alert import Alert
from watchdog.routing.notification import Notification

_MOST_CHARACTERS = 120


def fallback_notification(notification: Notification, error: str) -> Notification:
    """Return `notification` with nothing in it that a receiver could stumble over, and `error` told in each summary.

    What stays is who, what rule, since when and whether it is over, in short printable words.
    """
    return replace(
        notification,
        host=_words(notification.host),
        alerts=tuple(_plain(alert, error) for alert in notification.alerts),
    )


def _plain(alert: Alert, error: str) -> Alert:
    who = ", ".join(f"{name}={_words(value)}" for name, value in alert.labels)
    return Alert(
        rule=alert.rule,
        labels=tuple((name, _words(value)) for name, value in alert.labels),
        fingerprint=alert.fingerprint,
        state=alert.state,
        severity=alert.severity,
        summary=f"{alert.rule}{f' ({who})' if who else ''}; its own words cannot be rendered: {_words(error)}",
        value=_number(alert.value),
        threshold=_number(alert.threshold),
        peak=_number(alert.peak),
        started=alert.started,
        fired=alert.fired,
        resolved=alert.resolved,
        reason=_words(alert.reason),
        receivers=alert.receivers,
        runbook=None,
    )


def _words(text: str) -> str:
    visible = sanitize.escape_unprintable(text, _MOST_CHARACTERS)
    return visible.encode("ascii", "backslashreplace").decode()


def _number(value: float) -> float:
    return value if math.isfinite(value) else 0.0
