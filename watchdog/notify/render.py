"""The words of a notice, the same for every receiver: for someone who has just been woken.

Everything here is plain, unsanitised text; each receiver passes what it takes through its own function of `sanitize`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence

from watchdog.alerts.alert import Alert
from watchdog.alerts.notice import DIGEST, Notice
from watchdog.rules.formats import FORMATS

_AMBIGUOUS = re.compile(r'[\s,="]')
TEST_MARK = "[TEST] "

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


def alert_title(alert: Alert, notice: Notice) -> str:
    """Return the line that says it all: "[FIRING] critical: nginx opens 312/s connections (limit 100/s)"."""
    mark = TEST_MARK if notice.test else ""
    return f"{mark}[{'FIRING' if alert.resolved is None else 'RESOLVED'}] {alert.severity.label}: {alert.summary}"


def notice_title(notice: Notice) -> str:
    """Return the first line of a notice: the alert's own if there is one only, else the headline."""
    return alert_title(notice.alerts[0], notice) if len(notice.alerts) == 1 else headline(notice)


def headline(notice: Notice) -> str:
    """Return what a notice is about, without words of alerts: "[FIRING:3, RESOLVED:1] critical: some-rule on web-1"."""
    firing = sum(alert.resolved is None for alert in notice.alerts)
    counts = {"FIRING": firing, "RESOLVED": len(notice.alerts) - firing}
    told = [f"{name}:{count}" if len(notice.alerts) > 1 else name for name, count in counts.items() if count]
    mark = TEST_MARK if notice.test else ""
    return (
        f"{mark}[{', '.join(told)}] {worst_first(notice.alerts)[0].severity.label}: {subject(notice)} on {notice.host}"
    )


def subject(notice: Notice) -> str:
    """Return what the alerts of a notice have in common: its rule, "unit=nginx.service", "digest of 3 rules"."""
    rules = len({alert.rule for alert in notice.alerts})
    counted = f"{rules} rule{'' if rules == 1 else 's'}"
    if notice.group == DIGEST:
        return f"digest of {counted}"
    if notice.by is None:
        return notice.group
    return ", ".join(value if name == "rule" else f"{name}={_quoted(value)}" for name, value in notice.by) or counted


def details(alert: Alert, notice: Notice) -> list[str]:
    """Return the lines under the title: how much, since when, why, who and where."""
    lines = [_amounts(alert), _times(alert, notice), f"why: {alert.reason}"]
    if alert.labels:
        lines.append(", ".join(f"{name}={_quoted(value)}" for name, value in alert.labels))
    return [*lines, f"host {notice.host}, rule {alert.rule}"]


def worst_first(alerts: Sequence[Alert]) -> list[Alert]:
    """Return `alerts` so that a list cut short leaves out the least urgent: resolved last, critical before warning."""
    return sorted(alerts, key=lambda alert: (alert.resolved is not None, -alert.severity))


def timestamp(wall: float) -> str:
    """Return a wall-clock time as RFC 3339 in UTC with milliseconds: "2026-11-23T02:13:05.250Z"."""
    moment = dt.datetime.fromtimestamp(wall, tz=dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration(seconds: float) -> str:
    """Return a duration for people, in its two greatest units: "4 s", "7 min 6 s", "2 h 5 min", "3 d 1 h"."""
    whole = max(0, round(seconds))
    for unit, name, below, below_name in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // below} {below_name}"
    return f"{whole} s"


def _amounts(alert: Alert) -> str:
    write = FORMATS[alert.format]
    return f"value {write(alert.value)}, limit {write(alert.threshold)}, peak {write(alert.peak)}"


def _times(alert: Alert, notice: Notice) -> str:
    since = _clock(alert.started)
    if alert.resolved is None:
        lasts = duration(notice.created - alert.started)
        return f"since {since}" if lasts == "0 s" else f"since {since}, for {lasts}"
    return f"from {since} to {_clock(alert.resolved)}, lasted {duration(alert.resolved - alert.started)}"


def _clock(wall: float) -> str:
    return dt.datetime.fromtimestamp(wall, tz=dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _quoted(value: str) -> str:
    """Quote what could be taken for the end of the value and the begin of another label."""
    if _AMBIGUOUS.search(value):
        return '"' + value.replace('"', '\\"') + '"'
    return value or "-"
