from __future__ import annotations

import hashlib
import hmac
import json

import pytest

from watchdog.config.secrets import Secret
from watchdog.receivers.transport.http import Endpoint, HttpResponse
from watchdog.receivers.webhook import Webhook


class RecordingEndpoint(Endpoint):
    """An endpoint that only records the posts."""

    def __init__(self):
        super().__init__(Secret("https://alerts.example.net/in/token"))
        self.posts = []

    def post(self, body, headers, deadline_seconds):
        self.posts.append((body, dict(headers), deadline_seconds))
        return HttpResponse(200, b"", None)


@pytest.fixture
def endpoint():
    return RecordingEndpoint()


@pytest.fixture
def webhook(endpoint, clock):
    return Webhook("hook", endpoint, None, clock)


def test_the_document_is_alertmanagers_json_version_4(webhook, make_notification):
    assert json.loads(webhook.render(make_notification())) == {
        "version": "4",
        "groupKey": '{}:{alertname="outbound-connection-storm"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "oncall",
        "groupLabels": {"alertname": "outbound-connection-storm"},
        "commonLabels": {
            "alertname": "outbound-connection-storm",
            "severity": "critical",
            "host": "web-1",
            "instance": "web-1",
            "process": "crawler",
            "unit": "crawler.service",
        },
        "commonAnnotations": {
            "summary": "crawler opens 612/s connections (limit 500/s)",
            "description": "value 612/s, limit 500/s, peak 640/s\n"
            "process=crawler, unit=crawler.service\n"
            "since 2025-06-15 15:06:40 UTC, for 12 s; why: value above 500/s for 10 s\n"
            "host web-1, rule outbound-connection-storm",
            "value": "612.0",
            "threshold": "500.0",
            "peak": "640.5",
            "reason": "value above 500/s for 10 s",
            "since": "2025-06-15T15:06:40.000Z",
        },
        "externalURL": "",
        "notification_reason": "first notification",
        "alerts": [
            {
                "status": "firing",
                "labels": {
                    "alertname": "outbound-connection-storm",
                    "severity": "critical",
                    "host": "web-1",
                    "instance": "web-1",
                    "process": "crawler",
                    "unit": "crawler.service",
                },
                "annotations": {
                    "summary": "crawler opens 612/s connections (limit 500/s)",
                    "description": "value 612/s, limit 500/s, peak 640/s\n"
                    "process=crawler, unit=crawler.service\n"
                    "since 2025-06-15 15:06:40 UTC, for 12 s; why: value above 500/s for 10 s\n"
                    "host web-1, rule outbound-connection-storm",
                    "value": "612.0",
                    "threshold": "500.0",
                    "peak": "640.5",
                    "reason": "value above 500/s for 10 s",
                    "since": "2025-06-15T15:06:40.000Z",
                },
                "startsAt": "2025-06-15T15:06:50.250Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "",
                "fingerprint": "0123456789abcdef",
            }
        ],
    }


def test_a_resolved_alert_has_its_end_in_ends_at(webhook, make_alert, make_notification):
    document = json.loads(webhook.render(make_notification(make_alert(resolved=1_750_000_100.0))))
    assert document["status"] == "resolved"
    assert document["alerts"][0]["status"] == "resolved"
    assert document["alerts"][0]["endsAt"] == "2025-06-15T15:08:20.000Z"


def test_a_notification_with_a_firing_alert_fires_and_has_the_common_labels(webhook, make_alert, make_notification):
    over = make_alert(labels=(("process", "other"), ("unit", "crawler.service")), resolved=1_750_000_100.0)
    document = json.loads(webhook.render(make_notification(over, make_alert())))
    assert document["status"] == "firing"
    assert [alert["status"] for alert in document["alerts"]] == ["firing", "resolved"]
    assert document["commonLabels"] == {
        "alertname": "outbound-connection-storm",
        "severity": "critical",
        "host": "web-1",
        "instance": "web-1",
        "unit": "crawler.service",
    }


def test_the_runbook_is_the_annotation_runbook_url(webhook, make_alert, make_notification):
    document = json.loads(webhook.render(make_notification(make_alert(runbook="https://wiki.example/storm"))))
    assert document["alerts"][0]["annotations"]["runbook_url"] == "https://wiki.example/storm"


def test_an_infinite_value_has_the_form_of_prometheus(webhook, make_alert, make_notification):
    document = json.loads(webhook.render(make_notification(make_alert(value=float("inf"), peak=float("-inf")))))
    assert document["alerts"][0]["annotations"]["value"] == "+Inf"
    assert document["alerts"][0]["annotations"]["peak"] == "-Inf"


def test_an_empty_label_is_no_label(webhook, make_alert, make_notification):
    document = json.loads(webhook.render(make_notification(make_alert(labels=(("process", "x"), ("unit", ""))))))
    assert "unit" not in document["alerts"][0]["labels"]


def test_a_test_has_a_label_and_a_marked_summary(webhook, make_notification):
    alert = json.loads(webhook.render(make_notification(is_test=True)))["alerts"][0]
    assert alert["labels"]["test"] == "true"
    assert alert["annotations"]["summary"].startswith("[TEST] ")


def test_hostile_names_are_plain_printable_text(webhook, hostile_notification, hostile_name):
    document = json.loads(webhook.render(hostile_notification).decode("utf-8", "strict"))
    alert = document["alerts"][0]
    for text in (*alert["labels"].values(), *alert["annotations"]["description"].split("\n")):
        assert text.isprintable()
        assert len(text) <= 1_024
    if len(hostile_name) <= 100 and hostile_name.isprintable() and "\\" not in hostile_name:
        assert alert["labels"].get("process", "") == hostile_name


def test_every_request_carries_the_notifications_id(webhook, endpoint, make_notification):
    notification = make_notification()
    webhook.send(notification, 10.0)
    assert endpoint.posts == [
        (webhook.render(notification), {"Content-Type": "application/json", "X-Notification-Id": notification.id}, 10.0)
    ]


def test_a_signature_covers_time_and_body(endpoint, clock, make_notification):
    webhook = Webhook("hook", endpoint, Secret("key of ours"), clock)
    webhook.send(make_notification(), 10.0)
    body, headers, _ = endpoint.posts[0]
    assert headers["X-Watchdog-Timestamp"] == "1750000000"
    expected = hmac.new(b"key of ours", b"1750000000:" + body, hashlib.sha256).hexdigest()
    assert headers["X-Watchdog-Signature"] == f"sha256={expected}"


def test_the_destination_has_no_path(webhook):
    assert webhook.destination() == "webhook alerts.example.net"


def test_evidence_has_its_own_annotations(webhook, make_alert, make_notification, evidence):
    document = json.loads(webhook.render(make_notification(make_alert(evidence=evidence))))
    annotations = document["alerts"][0]["annotations"]
    assert annotations["process"].startswith("crawler, pid 4711 (")
    assert [annotations[name] for name in ("command", "parents", "peers", "history")] == [
        "/usr/bin/crawler --token=***",
        "supervisor (640), systemd (1)",
        "within 1 s: to 192.0.2.7:443: 580 connects (95 %), 580 refused; and 32 more",
        "▁·▄█ 0/s to 612/s in 4 s",
    ]
