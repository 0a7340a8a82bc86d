"""A notice as plain text, for mail and for whatever takes no more than a title and some lines."""

from __future__ import annotations

from collections.abc import Callable

from watchdog.receivers.render import notification_text
from watchdog.routing.notification import Notice


def letter(notice: Notice, most_alerts: int, write: Callable[[str], str]) -> str:
    """Return of each alert what it is and what there is to say of it; `write` makes a line fit for where it goes."""
    parts = []
    alerts = notification_text.worst_first(notice.alerts)
    for alert in alerts[:most_alerts]:
        lines = [
            notification_text.alert_title(alert, notice),
            *(f"  {line}" for line in notification_text.details(alert, notice)),
        ]
        if alert.runbook is not None:
            lines.append(f"  runbook: {alert.runbook}")
        parts.append("\n".join(write(line) for line in lines))
    if len(alerts) > most_alerts:
        parts.append(f"and {len(alerts) - most_alerts} more alerts")
    parts.append(write(f"{notice.reason}, notification {notice.id}"))
    return "\n\n".join(parts) + "\n"
