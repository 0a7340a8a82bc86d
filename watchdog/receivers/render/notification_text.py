"""The words of a notice, the same for every receiver: for someone who has just been woken.

Everything here is plain, unsanitised text; each receiver passes what it takes through its own function of `sanitize`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence

from watchdog.alerts.alert import Alert
from watchdog.receivers.render import evidence_text
from watchdog.receivers.render.evidence_text import clock, duration
from watchdog.routing.notification import DIGEST, Notice
from watchdog.rules.language.formats import FORMATS
from watchdog.rules.language.rule import OVERFLOW

_TOLD_IN_FULL = 3  # alerts of one notice; more are each told in short
_WORDS = re.compile(r"[\w.-]+")
_AMBIGUOUS = re.compile(r'[\s,="]')
_ORDINARY = {"first notification", "new alert in group", "severity changed", "resolved", "repeat", "digest", "test"}
TEST_MARK = "[TEST] "


def alert_title(alert: Alert, notice: Notice) -> str:
    """Return the line that says it all: "[FIRING] critical: nginx opens 312/s connections (limit 100/s)"."""
    mark = TEST_MARK if notice.test else ""
    return f"{mark}[{'FIRING' if alert.resolved is None else 'RESOLVED'}] {alert.severity.label}: {alert.summary}"


def notice_title(notice: Notice) -> str:
    """Return the first line of a notice, all there is of it in a push message: its alert's words and host."""
    if len(notice.alerts) > 1:
        return headline(notice)
    title = alert_title(notice.alerts[0], notice)
    return title if notice.host in _WORDS.findall(title) else f"{title} on {notice.host}"


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
    """Return the lines under the title: `facts`, then `evidence`, so that a text cut short loses evidence first."""
    return [*facts(alert, notice), *evidence(alert, notice)]


def facts(alert: Alert, notice: Notice) -> list[str]:
    """Return what nobody may be left without: how much, who, since when and why, where; two lines each if many."""
    amounts, labels = _amounts(alert), ", ".join(f"{name}={_quoted(value)}" for name, value in alert.labels)
    times, origin = f"{_times(alert, notice)}; why: {alert.reason}", f"host {notice.host}, rule {alert.rule}"
    if len(notice.alerts) <= _TOLD_IN_FULL:
        return [line for line in (amounts, labels, times, origin) if line]
    return ["; ".join(part for part in (amounts, labels) if part), f"{times}; {origin}"]


def evidence(alert: Alert, notice: Notice) -> list[str]:
    """Return what was seen when it began: the process, its peers, what led up to it; of many alerts one line each."""
    if alert.evidence is None:
        return []
    lines = evidence_text.lines(alert.evidence, alert.labels)
    return lines if len(notice.alerts) <= _TOLD_IN_FULL else lines[:1]


def occasion(notice: Notice) -> str:
    """Return why a notice is sent where that says more than its alerts do: escalated, flapping; else ""."""
    return "" if notice.reason in _ORDINARY else notice.reason


def worst_first(alerts: Sequence[Alert]) -> list[Alert]:
    """Return `alerts` so that a list cut short leaves out the least urgent: resolved last, critical before warning."""
    return sorted(alerts, key=lambda alert: (alert.resolved is not None, -alert.severity))


def timestamp(wall: float) -> str:
    """Return a wall-clock time as RFC 3339 in UTC with milliseconds: "2026-11-23T02:13:05.250Z"."""
    moment = dt.datetime.fromtimestamp(wall, tz=dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _amounts(alert: Alert) -> str:
    write = FORMATS[alert.format]
    # The one that counts the instances beyond the worst: its value is their number, its limit is theirs.
    counts = FORMATS["count"] if alert.labels == OVERFLOW else write
    value, limit, peak = counts(alert.value), write(alert.threshold), counts(alert.peak)
    if alert.resolved is not None:
        return f"lasted {duration(_lasted(alert))}, peak {peak}, last value {value} (limit {limit})"
    return f"value {value}, limit {limit}" + (f", peak {peak}" if peak != value else "")


def _times(alert: Alert, notice: Notice) -> str:
    since = clock(alert.started)
    if alert.resolved is not None:
        return f"from {since} to {clock(alert.resolved)}"
    lasts = duration(notice.created - alert.started)
    return f"since {since}" if lasts == "0 s" else f"since {since}, for {lasts}"


def _lasted(alert: Alert) -> float:
    return alert.lasted if alert.lasted is not None else (alert.resolved or alert.started) - alert.started


def _quoted(value: str) -> str:
    """Quote what could be taken for the end of the value and the begin of another label."""
    if _AMBIGUOUS.search(value):
        return '"' + value.replace('"', '\\"') + '"'
    return value or "-"
