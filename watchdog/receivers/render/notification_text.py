"""Text of notifications, shared by all receivers.

The text is plain and not sanitised: each receiver passes it through its own function of `sanitize`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence

from watchdog.alerts.alert import Alert
from watchdog.receivers.render import evidence_text
from watchdog.receivers.render.evidence_text import duration_text, utc_text
from watchdog.routing.notification import DIGEST_GROUP_KEY, Notification
from watchdog.rules.language.formats import FORMATS, format_number
from watchdog.rules.language.rule import OVERFLOW_LABELS

_MAX_DETAILED_ALERTS = 3  # with more alerts in a notification, each is shown in short
_WORDS = re.compile(r"[\w.-]+")
_AMBIGUOUS = re.compile(r'[\s,="]')
_SHOWN_ID = 12  # characters that identify a notification in practice …
_SHOWN_FINGERPRINT = 8  # … and an alert
TEST_PREFIX = "[TEST] "


def alert_title(alert: Alert, notification: Notification) -> str:
    """Return the title: "[FIRING] critical: nginx opens 312/s connections (limit 100/s)"."""
    mark = TEST_PREFIX if notification.is_test else ""
    return f"{mark}[{'FIRING' if alert.resolved is None else 'RESOLVED'}] {alert.severity.label}: {alert.summary}"


def notification_title(notification: Notification) -> str:
    """Return the first line of a notification: title and host of its alert, or the counts of several alerts."""
    if len(notification.alerts) > 1:
        return status_line(notification)
    title = alert_title(notification.alerts[0], notification)
    return title if notification.host in _WORDS.findall(title) else f"{title} on {notification.host}"


def status_line(notification: Notification) -> str:
    """Return the counts and the group without summaries: "[FIRING:3, RESOLVED:1] critical: some-rule on web-1"."""
    firing = sum(alert.resolved is None for alert in notification.alerts)
    counts = {"FIRING": firing, "RESOLVED": len(notification.alerts) - firing}
    states = [f"{name}:{count}" if len(notification.alerts) > 1 else name for name, count in counts.items() if count]
    mark = TEST_PREFIX if notification.is_test else ""
    severity = worst_first(notification.alerts)[0].severity.label
    return f"{mark}[{', '.join(states)}] {severity}: {group_title(notification)} on {notification.host}"


def group_title(notification: Notification) -> str:
    """Return the name of the group: a rule id, "unit=nginx.service", "digest of 3 rules"."""
    rules = len({alert.rule for alert in notification.alerts})
    counted = f"{rules} rule{'' if rules == 1 else 's'}"
    if notification.group_key == DIGEST_GROUP_KEY:
        return f"digest of {counted}"
    if notification.group_labels is None:
        return notification.group_key
    return (
        ", ".join(value if name == "rule" else f"{name}={_quoted(value)}" for name, value in notification.group_labels)
        or counted
    )


def detail_lines(alert: Alert, notification: Notification) -> list[str]:
    """Return the lines under the title: facts, then evidence, so that a shortened text loses evidence first."""
    return [*fact_lines(alert, notification), *evidence_lines(alert, notification)]


def fact_lines(alert: Alert, notification: Notification) -> list[str]:
    """Return the facts: value and limit, labels, times and reason, host and rule; two lines with many alerts."""
    shown = ((name, value) for name, value in alert.all_labels if value)
    amounts, labels = _amounts(alert, notification), ", ".join(f"{name}={_quoted(value)}" for name, value in shown)
    times, origin = (
        f"{_times(alert, notification)}; why: {alert.reason}",
        f"host {notification.host}, rule {alert.rule}",
    )
    if len(notification.alerts) <= _MAX_DETAILED_ALERTS:
        return [line for line in (amounts, labels, times, origin) if line]
    return ["; ".join(part for part in (amounts, labels) if part), f"{times}; {origin}"]


def evidence_lines(alert: Alert, notification: Notification) -> list[str]:
    """Return the evidence of the alert; only its first line if the notification has many alerts."""
    if alert.evidence is None:
        return []
    lines = evidence_text.evidence_lines(alert.evidence, alert.labels)
    return lines if len(notification.alerts) <= _MAX_DETAILED_ALERTS else lines[:1]


def unusual_reason(notification: Notification) -> str:
    """Return the reason of a notification if it has a detail that its alerts do not show: escalated; else ""."""
    return notification.reason_text if notification.reason_detail else ""


def next_step(notification: Notification) -> str:
    """Return the commands that show the firing alert, acknowledge it, and show the notification with its attempts.

    "" for a test, which is not recorded.
    """
    if notification.is_test:
        return ""
    delivery = f"bpf-watchdog notifications show {notification.id[:_SHOWN_ID]}"
    firing = [alert.fingerprint[:_SHOWN_FINGERPRINT] for alert in notification.alerts if alert.resolved is None]
    match firing:
        case []:
            return f"next: {delivery}"
        case [alert]:
            return f"next: bpf-watchdog alerts show {alert}; to silence: bpf-watchdog ack {alert}; delivery: {delivery}"
    return f"next: bpf-watchdog alerts; to silence one: bpf-watchdog ack FINGERPRINT; delivery: {delivery}"


def worst_first(alerts: Sequence[Alert]) -> list[Alert]:
    """Return `alerts` by urgency, so that a shortened list loses the least urgent: critical, warning, resolved."""
    return sorted(alerts, key=lambda alert: (alert.resolved is not None, -alert.severity))


def seconds_lasted(alert: Alert, notification: Notification) -> float:
    """Return the seconds from the start of `alert` to its end, or to the notification while it fires."""
    if alert.duration_seconds is not None:
        return alert.duration_seconds
    ended = notification.created if alert.resolved is None else alert.resolved
    return max(0.0, ended - alert.started)


def rfc3339(wall: float) -> str:
    """Return a wall-clock time as RFC 3339 in UTC with milliseconds: "2026-11-23T02:13:05.250Z"."""
    moment = dt.datetime.fromtimestamp(wall, tz=dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _amounts(alert: Alert, notification: Notification) -> str:
    if alert.labels == OVERFLOW_LABELS:  # the value is a number of instances; the limit is that of the rule
        value, peak = FORMATS["count"](alert.value), FORMATS["count"](alert.peak)
    else:
        value, peak = (format_number(alert.format, number, alert.threshold) for number in (alert.value, alert.peak))
    limit = alert.limit.text
    if alert.resolved is not None:
        lasted = duration_text(seconds_lasted(alert, notification))
        return f"lasted {lasted}, peak {peak}, last value {value} (limit {limit})"
    return f"value {value}, limit {limit}" + (f", peak {peak}" if peak != value else "")


def _times(alert: Alert, notification: Notification) -> str:
    since = utc_text(alert.started)
    if alert.resolved is not None:
        return f"from {since} to {utc_text(alert.resolved)}"
    lasts = duration_text(seconds_lasted(alert, notification))
    return f"since {since}" if lasts == "0 s" else f"since {since}, for {lasts}"


def _quoted(value: str) -> str:
    """Quote a value that looks like the begin of another label."""
    if _AMBIGUOUS.search(value):
        return '"' + value.replace('"', '\\"') + '"'
    return value or "-"
