"""Severity of an alert in the words of each service."""

from __future__ import annotations

from typing import Final

from watchdog.alerts.alert import Alert
from watchdog.rules.language.rule import Severity

_SYSLOG_LEVELS: Final = {Severity.CRITICAL: 2, Severity.WARNING: 4}  # RFC 5424 §6.2.1: critical, warning
_SYSLOG_LEVEL_RESOLVED: Final = 5  # notice: normal but significant

PAGERDUTY_SEVERITIES: Final = {Severity.CRITICAL: "critical", Severity.WARNING: "warning"}
"""PagerDuty Events API v2, `payload.severity`."""

APPRISE_TYPES: Final = {Severity.CRITICAL: "failure", Severity.WARNING: "warning"}
"""`notify_type` of an Apprise notification that has a firing alert."""


def syslog_level(alert: Alert) -> int:
    """Return the syslog level of an alert: 2 for critical, 4 for warning, 5 when it is resolved."""
    return _SYSLOG_LEVELS[alert.severity] if alert.resolved is None else _SYSLOG_LEVEL_RESOLVED
