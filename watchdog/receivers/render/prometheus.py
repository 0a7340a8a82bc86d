"""Alerts as Prometheus labels and annotations, in the form that Alertmanager receives and sends.

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

_MAX_VALUE_LENGTH = 1_024
_NOT_ENDED = "0001-01-01T00:00:00Z"  # Go's zero time: Alertmanager sends it while an alert fires


def prometheus_alert(alert: Alert, notification: Notification) -> dict[str, Any]:
    """Return an alert in the form of Alertmanager's webhooks."""
    return {
        "status": alert_status(alert),
        "labels": prometheus_labels(alert, notification),
        "annotations": prometheus_annotations(alert, notification),
        "startsAt": notification_text.rfc3339(alert.fired),
        "endsAt": _NOT_ENDED if alert.resolved is None else notification_text.rfc3339(alert.resolved),
        "generatorURL": label_value(alert.identity.generator_url),
        "fingerprint": alert.fingerprint,
    }


def prometheus_labels(alert: Alert, notification: Notification) -> dict[str, str]:
    """Return the labels, which identify the alert in Prometheus."""
    labels = {
        name: label_value(value) for name, value in alert.all_labels if value
    }  # in Prometheus an empty label is a missing label
    labels |= {"alertname": alert.rule, "severity": alert.severity.label}
    host = label_value(alert.identity.host or notification.host)
    labels |= {"host": host, "instance": host}
    if notification.is_test:
        labels["test"] = "true"
    return labels


def prometheus_annotations(alert: Alert, notification: Notification) -> dict[str, str]:
    """Return the annotations: summary, facts and evidence."""
    mark = notification_text.TEST_PREFIX if notification.is_test else ""
    annotations = {
        "summary": label_value(mark + alert.summary),
        "description": "\n".join(label_value(line) for line in notification_text.detail_lines(alert, notification)),
        "value": _number(alert.value),
        "threshold": _number(alert.threshold),
        "peak": _number(alert.peak),
        "reason": label_value(alert.reason),
        "since": notification_text.rfc3339(alert.started),
    }
    if alert.evidence is not None:
        annotations |= {
            name: label_value(part) for name, part in evidence_text.evidence_sections(alert.evidence).items()
        }
    if alert.runbook is not None:
        annotations["runbook_url"] = label_value(alert.runbook)
    return annotations


def label_value(value: str) -> str:
    """Return a text from the host, sanitised for labels and annotations."""
    return sanitize.escape_unprintable(value, _MAX_VALUE_LENGTH)


def _number(value: float) -> str:
    """Return `value` for programs; infinite values in the form of Go and Prometheus."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)
