"""A digest, and groups of more than one rule, as each receiver renders them."""

from __future__ import annotations

import json
import os

import pytest

from watchdog.clock import SystemClock
from watchdog.config.secrets import Secret
from watchdog.receivers.console import Console
from watchdog.receivers.render import notification_text
from watchdog.receivers.slack.slack_receiver import Slack
from watchdog.receivers.syslog.syslog_receiver import Syslog
from watchdog.receivers.syslog.wires import UnixWire
from watchdog.receivers.transport.http import Endpoint
from watchdog.receivers.webhook import Webhook
from watchdog.routing.notification import DIGEST_GROUP_KEY, Notification
from watchdog.rules.language.rule import Severity
from watchdog.state.rate_limiter import MAX_DIGEST_ALERTS

ENDPOINT = Endpoint(Secret("http://127.0.0.1:1/"))


@pytest.fixture
def digest(make_alert, make_notification):
    """Alerts of two rules, one of them resolved."""
    over = make_alert(rule="spike", severity=Severity.WARNING, resolved=1_750_000_100.0, summary="db sends 4 MB/s")
    return make_notification(make_alert(), over, group_key=DIGEST_GROUP_KEY, group_labels=(), reason="digest")


def test_a_title_has_the_labels_that_all_alerts_share(digest, make_alert, make_notification):
    assert notification_text.status_line(digest) == "[FIRING:1, RESOLVED:1] critical: digest of 2 rules on web-1"
    both = make_alert(), make_alert(rule="spike")
    by_unit = make_notification(*both, group_key='{unit="a b"}', group_labels=(("unit", "a b"),))
    assert notification_text.status_line(by_unit) == '[FIRING:2] critical: unit="a b" on web-1'
    by_both = make_notification(*both, group_labels=(("rule", "storm"), ("unit", "")))
    assert notification_text.status_line(by_both) == "[FIRING:2] critical: storm, unit=- on web-1"
    assert (
        notification_text.status_line(make_notification(*both, group_labels=()))
        == "[FIRING:2] critical: 2 rules on web-1"
    )


def test_a_webhook_has_no_label_of_the_group_for_a_digest(digest):
    message = json.loads(Webhook("hook", ENDPOINT, None, SystemClock()).render(digest))
    assert (message["groupKey"], message["groupLabels"], message["status"]) == ("{}:{}", {}, "firing")
    assert message["notification_reason"] == "digest"
    assert [(alert["labels"]["alertname"], alert["status"]) for alert in message["alerts"]] == [
        ("outbound-connection-storm", "firing"),
        ("spike", "resolved"),
    ]
    assert "alertname" not in message["commonLabels"]


def test_a_webhook_has_the_labels_that_a_route_groups_by(make_notification):
    by = (("unit", 'ev\udcff"il'), ("rule", "storm"))
    message = json.loads(Webhook("hook", ENDPOINT, None, SystemClock()).render(make_notification(group_labels=by)))
    assert message["groupLabels"] == {"unit": 'ev\\xff"il', "alertname": "storm"}
    assert message["groupKey"] == r'{}:{alertname="storm", unit="ev\\xff\"il"}'


def test_slack_shows_every_alert_of_a_digest(make_alert, make_notification):
    alerts = [
        make_alert(rule=f"rule-{number}", summary=f"crawler {number} opens {'many ' * 50}")
        for number in range(MAX_DIGEST_ALERTS)
    ]
    message = json.loads(
        Slack("oncall", ENDPOINT).render(
            make_notification(*alerts, group_key=DIGEST_GROUP_KEY, group_labels=(), reason="digest")
        )
    )
    sections = [block["text"]["text"] for block in message["blocks"] if block["type"] == "section"]
    lines = "\n".join(sections).split("\n")
    assert [line.split(" opens")[0] for line in lines] == [
        f"*[FIRING] critical: crawler {number}" for number in range(MAX_DIGEST_ALERTS)
    ]
    assert all(len(line) <= 142 for line in lines)
    assert len(json.dumps(message, ensure_ascii=False)) <= 8_000
    assert message["blocks"][-1]["elements"][0]["text"].startswith("digest, notification ")


def test_syslog_and_the_console_name_the_rule_of_each_alert(digest):
    records = Syslog("log", UnixWire("/dev/log"), 3, use_local_format=False).render(digest).split(b"\n")
    assert [b'rule="spike"' in record for record in records] == [False, True]
    assert [record.split()[5] for record in records] == [b"FIRING", b"RESOLVED"]
    read_end, write_end = os.pipe()
    lines = Console("console", write_end).render(digest).decode().splitlines()
    os.close(read_end)
    os.close(write_end)
    assert [line.strip() for line in lines if "rule " in line] == [
        "host web-1, rule outbound-connection-storm",
        "host web-1, rule spike",
    ]


def test_a_notification_keeps_its_group_labels_in_the_state_file(make_notification, digest):
    for notification in (digest, make_notification(group_labels=(("unit", "x"),)), make_notification()):
        assert Notification.from_json(json.loads(json.dumps(notification.to_json()))) == notification
    without = make_notification().to_json()
    assert without.keys().isdisjoint({"group_labels", "is_test", "reason_detail"})
    assert Notification.from_json(without).group_labels is None
