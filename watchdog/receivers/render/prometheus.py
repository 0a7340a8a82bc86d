"""An alert in Prometheus's words, as Alertmanager takes and sends it: labels say which, annotations what of it.

Source: prometheus/alertmanager, template/template.go (Alert), api/v2/openapi.yaml.
"""

from __future__ import annotations

import math
from typing import Any

from watchdog import sanitize
from watchdog.alerts.alert import Alert
from watchdog.receivers.render import evidence_text, notification_text
from watchdog.routing.notification import Notice

_LONGEST_VALUE = 1_024
_NOT_ENDED = "0001-01-01T00:00:00Z"  # Go's zero time: what Alertmanager sends while an alert fires


def alert_json(alert: Alert, notice: Notice) -> dict[str, Any]:
    """Return an alert as Alertmanager's webhooks write it."""
    return {
        "status": "firing" if alert.resolved is None else "resolved",
        "labels": labels_of(alert, notice),
        "annotations": annotations_of(alert, notice),
        "startsAt": notification_text.timestamp(alert.fired),
        "endsAt": _NOT_ENDED if alert.resolved is None else notification_text.timestamp(alert.resolved),
        "generatorURL": "",
        "fingerprint": alert.fingerprint,
    }


def labels_of(alert: Alert, notice: Notice) -> dict[str, str]:
    """Return what the alert is about: Prometheus knows it again by these."""
    found = {name: text(value) for name, value in alert.labels if value}  # Prometheus: empty and missing are one
    found |= {"alertname": alert.rule, "severity": alert.severity.label}
    found |= {"host": text(notice.host), "instance": text(notice.host)}
    if notice.test:
        found["test"] = "true"
    return found


def annotations_of(alert: Alert, notice: Notice) -> dict[str, str]:
    """Return what is said of the alert."""
    mark = notification_text.TEST_MARK if notice.test else ""
    said = {
        "summary": text(mark + alert.summary),
        "description": "\n".join(text(line) for line in notification_text.details(alert, notice)),
        "value": _number(alert.value),
        "threshold": _number(alert.threshold),
        "peak": _number(alert.peak),
        "reason": text(alert.reason),
        "since": notification_text.timestamp(alert.started),
    }
    if alert.evidence is not None:
        said |= {name: text(part) for name, part in evidence_text.sections(alert.evidence).items()}
    if alert.runbook is not None:
        said["runbook_url"] = text(alert.runbook)
    return said


def text(value: str) -> str:
    """Return a text of the host's as every label and annotation has it."""
    return sanitize.visible(value, _LONGEST_VALUE)


def _number(value: float) -> str:
    """Return `value` as a program reads it, in Go's and Prometheus's words where it is not finite."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)
