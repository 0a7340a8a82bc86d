from __future__ import annotations

import json
import tomllib

import pytest

from watchdog.config.document import Document
from watchdog.config.secrets import Secret
from watchdog.config.settings import read_settings
from watchdog.errors import ConfigError, DeliveryError
from watchdog.receivers.pagerduty import MAX_EVENT_BYTES, PagerDuty, dedup_key
from watchdog.receivers.registry import build_receivers
from watchdog.receivers.transport.http import Endpoint, HttpResponse
from watchdog.rules.language.rule import Severity

KEY = "R" + "0123456789abcde" * 2 + "f"
ACCEPTED = HttpResponse(202, b'{"status":"success","message":"Event processed"}', None)
BUSY = HttpResponse(429, b"", None)


def refusal(*errors):
    document = {"status": "invalid event", "message": "Event object is invalid", "errors": errors}
    return HttpResponse(400, json.dumps(document).encode(), None)


class ScriptedEndpoint(Endpoint):
    """An endpoint that gives the answers in turn, then accepts. It keeps the posts."""

    def __init__(self, *answers):
        super().__init__(Secret("https://events.pagerduty.com/v2/enqueue"))
        self.answers = list(answers)
        self.posts = []

    def post(self, body, headers, deadline_seconds):
        self.posts.append(json.loads(body))
        return self.answers.pop(0) if self.answers else ACCEPTED

    def fingerprints(self):
        return [event["payload"]["custom_details"]["process"] for event in self.posts]


def pagerduty(*answers):
    endpoint = ScriptedEndpoint(*answers)
    return PagerDuty("oncall", endpoint, Secret(KEY)), endpoint


@pytest.fixture
def three(make_alert, make_notification):
    """Return a notification about three processes."""
    return make_notification(*(make_alert(fingerprint=name * 16, labels=(("process", name),)) for name in "abc"))


def test_a_firing_alert_is_a_trigger_event(make_alert, make_notification):
    receiver, endpoint = pagerduty()
    receiver.send(make_notification(make_alert(runbook="https://wiki.example/storm")), 10.0)
    [event] = endpoint.posts
    details = event["payload"].pop("custom_details")
    assert event == {
        "routing_key": KEY,
        "event_action": "trigger",
        "dedup_key": dedup_key(make_alert(), "web-1"),
        "client": "bpf-watchdog",
        "payload": {
            "summary": "[FIRING] critical: crawler opens 612/s connections (limit 500/s)",
            "source": "web-1",
            "severity": "critical",
            "timestamp": "2025-06-15T15:06:50.250Z",
            "class": "outbound-connection-storm",
            "component": "crawler",
            "group": "crawler.service",
        },
        "links": [{"href": "https://wiki.example/storm", "text": "runbook"}],
    }
    assert details["value"] == "612.0"
    assert details["process"] == "crawler"
    assert details["notification_id"] == "5f0c7e7a8d9b4c6e8f1a2b3c4d5e6f70"


def test_a_resolved_alert_resolves_the_same_incident(make_alert, make_notification):
    receiver, endpoint = pagerduty()
    receiver.send(make_notification(), 10.0)
    receiver.send(make_notification(make_alert(resolved=1_750_000_100.0), id="2" * 32), 10.0)
    assert [event["event_action"] for event in endpoint.posts] == ["trigger", "resolve"]
    assert endpoint.posts[0]["dedup_key"] == endpoint.posts[1]["dedup_key"]


def test_a_warning_has_severity_warning(make_alert, make_notification):
    receiver, endpoint = pagerduty()
    receiver.send(make_notification(make_alert(severity=Severity.WARNING)), 10.0)
    assert endpoint.posts[0]["payload"]["severity"] == "warning"


def test_the_dedup_key_depends_on_host_and_alert_but_not_on_severity(make_alert):
    alert = make_alert()
    keys = {
        dedup_key(alert, "web-1"),
        dedup_key(alert, "web-2"),
        dedup_key(make_alert(fingerprint="f" * 16), "web-1"),
        dedup_key(make_alert(severity=Severity.WARNING), "web-1"),
    }
    assert len(keys) == 3
    assert {len(key) for key in keys} == {64}


def test_a_retry_does_not_repeat_accepted_events(three):
    receiver, endpoint = pagerduty(ACCEPTED, BUSY)
    with pytest.raises(DeliveryError) as caught:
        receiver.send(three, 10.0)
    assert (caught.value.reason, caught.value.retryable) == ("rate_limited", True)
    assert caught.value.retry_after_seconds == 30
    receiver.send(three, 10.0)
    assert endpoint.fingerprints() == ["a", "b", "b", "c"]
    assert not receiver._unfinished


def test_after_a_crash_all_events_are_sent_again_with_the_same_keys(three):
    receiver, endpoint = pagerduty(ACCEPTED, BUSY)
    with pytest.raises(DeliveryError):
        receiver.send(three, 10.0)
    other, later = pagerduty()
    other.send(three, 10.0)
    assert endpoint.posts[0] == later.posts[0]
    assert later.fingerprints() == ["a", "b", "c"]


def test_a_refused_event_delays_no_other(three):
    receiver, endpoint = pagerduty(ACCEPTED, refusal("'payload.summary' is missing or blank"))
    with pytest.raises(DeliveryError) as caught:
        receiver.send(three, 10.0)
    assert endpoint.fingerprints() == ["a", "b", "c"]
    assert (caught.value.reason, caught.value.retryable) == ("client_error", False)
    assert str(caught.value) == (
        "1 of 3 events refused: events.pagerduty.com answered 400: "
        "PagerDuty rejects the form of the event: please report this as a bug"
    )


def test_a_refusal_is_raised_after_the_other_events_are_accepted(three):
    receiver, endpoint = pagerduty(refusal("x"), BUSY)
    with pytest.raises(DeliveryError) as caught:
        receiver.send(three, 10.0)
    assert caught.value.retryable
    with pytest.raises(DeliveryError, match=r"^1 of 3 events refused: ") as caught:
        receiver.send(three, 10.0)
    assert not caught.value.retryable
    assert endpoint.fingerprints() == ["a", "b", "b", "c"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            refusal("Length of 'routing_key' is incorrect (should be 32 characters)"),
            ": unknown routing key: use the key of an Events API v2 integration",
        ),
        (
            HttpResponse(400, b'{"status":"invalid","message":"Invalid routing key"}', None),
            ": unknown routing key: use the key of an Events API v2 integration",
        ),
        (HttpResponse(400, b"<html>secret", None), ""),
        (HttpResponse(400, b'["secret"]', None), ""),
        (HttpResponse(400, b'{"errors":7,"status":{}}', None), ""),
    ],
)
def test_a_refusal_is_explained_without_the_text_of_the_answer(make_notification, answer, text):
    receiver, _ = pagerduty(answer)
    with pytest.raises(DeliveryError) as caught:
        receiver.send(make_notification(), 10.0)
    assert str(caught.value) == f"events.pagerduty.com answered 400{text}"


def test_retry_after_has_precedence_over_the_default_wait(make_notification):
    receiver, _ = pagerduty(HttpResponse(429, b"", 7.0))
    with pytest.raises(DeliveryError) as caught:
        receiver.send(make_notification(), 10.0)
    assert caught.value.retry_after_seconds == 7


def test_events_after_the_deadline_are_left_for_the_retry(three):
    receiver, endpoint = pagerduty()
    with pytest.raises(DeliveryError) as caught:
        receiver.send(three, 0.0)
    assert (caught.value.reason, caught.value.retryable) == ("timeout", True)
    assert endpoint.posts == []


def test_at_most_a_hundred_unfinished_notifications_are_kept(make_notification):
    receiver, _ = pagerduty(*[BUSY] * 300)
    for number in range(300):
        with pytest.raises(DeliveryError):
            receiver.send(make_notification(id=str(number)), 10.0)
    assert len(receiver._unfinished) == 100


def test_hostile_names_stay_inside_every_limit(hostile_notification):
    receiver, endpoint = pagerduty()
    receiver.send(hostile_notification, 10.0)
    [event] = endpoint.posts
    payload = event["payload"]
    assert 1 <= len(payload["summary"].encode("utf-16-le")) // 2 <= 1_024
    assert payload["source"]
    assert all(
        line.isprintable()
        for text in (*payload["custom_details"].values(), payload["summary"], payload["source"], payload["class"])
        for line in text.split("\n")
    )


def test_excess_details_are_left_out(make_alert, make_notification):
    labels = tuple((f"label{number}", "é" * 1_000) for number in range(400))
    notification = make_notification(make_alert(labels=labels))
    receiver, endpoint = pagerduty()
    receiver.send(notification, 10.0)
    assert endpoint.posts[0]["payload"]["custom_details"] == {"truncated": "true"}
    assert len(receiver.render(notification)) <= MAX_EVENT_BYTES


def test_rendering_masks_the_routing_key(three):
    receiver, _ = pagerduty()
    events = [json.loads(line) for line in receiver.render(three).splitlines()]
    assert [event["routing_key"] for event in events] == ["<secret>"] * 3


def test_limit_usage_has_the_size_of_each_event(three):
    receiver, _ = pagerduty()
    sizes = [len(event) for event in receiver.render(three).splitlines()]
    assert receiver.limit_usage(three) == [
        f"summary 64 of 1,024 characters, event {size:,} of 512,000 octets" for size in sizes
    ]


def build(text):
    return build_receivers(read_settings(Document(text, tomllib.loads(text), "watchdog.toml")))["pd"]


def test_the_destination_is_the_host():
    text = f'[[receiver]]\nname="pd"\ntype="pagerduty"\nrouting_key="{KEY}"\n'
    assert build(text).destination() == "PagerDuty events.pagerduty.com"
    assert build(f'{text}url="https://events.eu.pagerduty.com/v2/enqueue"').destination() == (
        "PagerDuty events.eu.pagerduty.com"
    )


def test_an_impossible_routing_key_is_reported_but_not_shown():
    with pytest.raises(ConfigError) as caught:
        build('[[receiver]]\nname="pd"\ntype="pagerduty"\nrouting_key="secret+key"\nurl="pagerduty.com"\n')
    assert [str(each) for each in caught.value.problems] == [
        "watchdog.toml:4: receiver.routing_key: must be the key of an Events API v2 integration: 32 letters and digits",
        "watchdog.toml:5: receiver.url: must begin with https:// or http:// and a host name",
    ]
