"""An alert in Prometheus's words, as Alertmanager takes and sends it: labels say which, annotations what of it.

Source: prometheus/alertmanager, template/template.go (Alert), api/v2/openapi.yaml.
"""

from __future__ import annotations

import math
from typing import Any

from watchdog import sanitize
from watchdog.alerts.alert import Alert
from watchdog.receivers.render import evidence_text, notification_text
from watchdog.receivers.render.alert_facts import alert_status
from watchdog.routing.notification import Notification

_LONGEST_VALUE = 1_024
_NOT_ENDED = "0001-01-01T00:00:00Z"  # Go's zero time: what Alertmanager sends while an alert fires


def prometheus_alert(alert: Alert, notification: Notification) -> dict[str, Any]:
    """Return an alert as Alertmanager's webhooks write it."""
    return {
        "status": alert_status(alert),
        "labels": prometheus_labels(alert, notification),
        "annotations": prometheus_annotations(alert, notification),
        "startsAt": notification_text.rfc3339(alert.fired),
        "endsAt": _NOT_ENDED if alert.resolved is None else notification_text.rfc3339(alert.resolved),
        "generatorURL": "",
        "fingerprint": alert.fingerprint,
    }


def prometheus_labels(alert: Alert, notification: Notification) -> dict[str, str]:
    """Return what the alert is about: Prometheus knows it again by these."""
    found = {name: label_value(value) for name, value in alert.labels if value}  # Prometheus: empty and missing are one
    found |= {"alertname": alert.rule, "severity": alert.severity.label}
    found |= {"host": label_value(notification.host), "instance": label_value(notification.host)}
    if notification.is_test:
        found["test"] = "true"
    return found


def prometheus_annotations(alert: Alert, notification: Notification) -> dict[str, str]:
    """Return what is said of the alert."""
    mark = notification_text.TEST_PREFIX if notification.is_test else ""
    said = {
        "summary": label_value(mark + alert.summary),
        "description": "\n".join(label_value(line) for line in notification_text.detail_lines(alert, notification)),
        "value": _number(alert.value),
        "threshold": _number(alert.threshold),
        "peak": _number(alert.peak),
        "reason": label_value(alert.reason),
        "since": notification_text.rfc3339(alert.started),
    }
    if alert.evidence is not None:
        said |= {name: label_value(part) for name, part in evidence_text.evidence_sections(alert.evidence).items()}
    if alert.runbook is not None:
        said["runbook_url"] = label_value(alert.runbook)
    return said


def label_value(value: str) -> str:
    """Return a text of the host's as every label and annotation has it."""
    return sanitize.escape_unprintable(value, _LONGEST_VALUE)


def _number(value: float) -> str:
    """Return `value` as a program reads it, in Go's and Prometheus's words where it is not finite."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)
