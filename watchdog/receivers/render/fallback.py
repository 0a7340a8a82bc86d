"""Fallback form of a notification, sent when a receiver cannot render its text."""

from __future__ import annotations

import math
from dataclasses import replace

from watchdog import sanitize
from watchdog.alerts.alert import Alert
from watchdog.routing.notification import Notification

_MAX_CHARACTERS = 120


def fallback_notification(notification: Notification, error: str) -> Notification:
    """Return `notification` in short ASCII texts and finite numbers, with `error` in each summary.

    Rule, labels, times and state are kept; evidence and runbook are left out.
    """
    return replace(
        notification,
        host=_ascii(notification.host),
        alerts=tuple(_fallback_alert(alert, error) for alert in notification.alerts),
    )


def _fallback_alert(alert: Alert, error: str) -> Alert:
    labels = ", ".join(f"{name}={_ascii(value)}" for name, value in alert.labels)
    return Alert(
        rule=alert.rule,
        labels=tuple((name, _ascii(value)) for name, value in alert.labels),
        fingerprint=alert.fingerprint,
        state=alert.state,
        severity=alert.severity,
        summary=f"{alert.rule}{f' ({labels})' if labels else ''}; text cannot be rendered: {_ascii(error)}",
        value=_finite(alert.value),
        threshold=_finite(alert.threshold),
        peak=_finite(alert.peak),
        started=alert.started,
        fired=alert.fired,
        resolved=alert.resolved,
        reason=_ascii(alert.reason),
        receivers=alert.receivers,
        runbook=None,
        identity=replace(
            alert.identity,
            host=_ascii(alert.identity.host),
            labels=tuple((name, _ascii(value)) for name, value in alert.identity.labels),
        ),
    )


def _ascii(text: str) -> str:
    visible = sanitize.escape_unprintable(text, _MAX_CHARACTERS)
    return visible.encode("ascii", "backslashreplace").decode()


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
