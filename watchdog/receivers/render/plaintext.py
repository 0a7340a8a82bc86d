"""Notification as plain text, for e-mail and other services that accept a title and some lines."""

from __future__ import annotations

from collections.abc import Callable

from watchdog.config.counts import format_count
from watchdog.receivers.render import notification_text
from watchdog.routing.notification import Notification


def plaintext_body(notification: Notification, max_alerts: int, format_line: Callable[[str], str]) -> str:
    """Return title, details and runbook of at most `max_alerts` alerts; `format_line` sanitises each line."""
    parts = []
    alerts = notification_text.worst_first(notification.alerts)
    for alert in alerts[:max_alerts]:
        lines = [
            notification_text.alert_title(alert, notification),
            *(f"  {line}" for line in notification_text.detail_lines(alert, notification)),
        ]
        if alert.runbook is not None:
            lines.append(f"  runbook: {alert.runbook}")
        if alert.identity.generator_url:
            lines.append(f"  dashboard: {alert.identity.generator_url}")
        parts.append("\n".join(format_line(line) for line in lines))
    if len(alerts) > max_alerts:
        parts.append(f"and {format_count(len(alerts) - max_alerts, 'more alert')}")
    origin = f"{notification.reason_text}, notification {notification.id}"
    parts.append("\n".join(format_line(line) for line in (origin, notification_text.next_step(notification)) if line))
    return "\n\n".join(parts) + "\n"
