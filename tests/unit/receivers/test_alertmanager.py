from __future__ import annotations

import json
import queue
import threading
import tomllib

import pytest

from watchdog.config.document import Document
from watchdog.config.secrets import Secret
from watchdog.config.settings import read_settings
from watchdog.errors import ConfigError, DeliveryError, DeliveryErrorReason
from watchdog.receivers import alertmanager
from watchdog.receivers.alertmanager import _GIVE_THE_BASE, Alertmanager
from watchdog.receivers.registry import build_receivers
from watchdog.receivers.transport.http import Endpoint, HttpResponse
from watchdog.rules.language.rule import Severity

ACCEPTED = HttpResponse(200, b"", None)


class ScriptedEndpoint(Endpoint):
    """An endpoint with a set answer. It keeps the posts and waits while `answering` is not set."""

    def __init__(self, host, answer=ACCEPTED):
        super().__init__(Secret(f"http://{host}/api/v2/alerts"))
        self.answer = answer
        self.posted = queue.SimpleQueue()
        self.accepted_posts = queue.SimpleQueue()
        self.answering = threading.Event()
        self.answering.set()

    def post(self, body, headers, deadline_seconds):
        self.posted.put(json.loads(body))
        assert self.answering.wait(60)
        answer = self.answer
        if isinstance(answer, Exception):
            raise answer
        if answer.is_success:
            self.accepted_posts.put(json.loads(body))
        return answer


@pytest.fixture
def cluster(clock):
    """Return a function that builds a receiver for endpoints."""
    made = []

    def make(*endpoints):
        made.append(Alertmanager("am", endpoints, clock))
        return made[-1]

    yield make
    for receiver in made:
        receiver.close()


def test_a_firing_alert_ends_four_refresh_intervals_ahead(cluster, clock, make_alert, make_notification):
    receiver = cluster(ScriptedEndpoint("am-1"))
    [alert] = json.loads(receiver.render(make_notification(make_alert(runbook="https://wiki.example/storm"))))
    assert alert == {
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
            "runbook_url": "https://wiki.example/storm",
        },
        "startsAt": "2025-06-15T15:06:50.250Z",
        "endsAt": "2025-06-15T15:10:40.000Z",
    }
    assert receiver.alert_expiry_seconds == 4 * receiver.refresh_interval_seconds


def test_a_resolved_alert_ends_at_its_end(cluster, make_alert, make_notification):
    [alert] = json.loads(
        cluster(ScriptedEndpoint("am-1")).render(make_notification(make_alert(resolved=1_750_000_100.0)))
    )
    assert alert["endsAt"] == "2025-06-15T15:08:20.000Z"


def test_every_member_gets_every_alert(cluster, make_notification):
    members = ScriptedEndpoint("am-1"), ScriptedEndpoint("am-2")
    receiver = cluster(*members)
    notification = make_notification()
    receiver.send(notification, 10.0)
    expected = json.loads(receiver.render(notification))
    assert [member.posted.get(timeout=60) for member in members] == [expected, expected]


def test_one_member_is_enough_and_a_hanging_one_causes_no_delay(cluster, make_notification):
    hanging, running = ScriptedEndpoint("am-1"), ScriptedEndpoint("am-2")
    hanging.answering.clear()
    cluster(hanging, running).send(make_notification(), 10.0)  # raises no error
    hanging.answering.set()


def test_a_member_gets_missed_alerts_when_it_is_back(cluster, make_alert, make_notification, monkeypatch):
    monkeypatch.setattr(alertmanager, "RETRY_SECONDS", 0.001)
    down = ScriptedEndpoint("am-1", DeliveryError(DeliveryErrorReason.CONNECT, "am-1: cannot connect", retryable=True))
    receiver = cluster(down, ScriptedEndpoint("am-2"))
    receiver.send(make_notification(make_alert(resolved=1_750_000_100.0)), 10.0)
    receiver.send(make_notification(make_alert(rule="other", fingerprint="f" * 16)), 10.0)
    for _ in range(3):
        down.posted.get(timeout=60)
    down.answer = ACCEPTED
    accepted = down.accepted_posts.get(timeout=60)
    assert {alert["labels"]["alertname"] for alert in accepted} == {"outbound-connection-storm", "other"}
    assert down.accepted_posts.empty()


def test_hosts_that_lose_a_member_together_try_it_again_at_different_times_and_then_more_seldom():
    longest = (5.0, 10.0, 10.0, 10.0)
    for failures, upper_seconds in enumerate(longest, start=1):
        waits = [alertmanager._retry_wait_seconds(failures) for _ in range(1_000)]
        assert upper_seconds / 2 <= min(waits) < 0.55 * upper_seconds
        assert 0.95 * upper_seconds < max(waits) <= upper_seconds


def test_retry_after_of_a_member_is_obeyed(cluster, make_notification, monkeypatch):
    monkeypatch.setattr(alertmanager, "RETRY_SECONDS", 0.001)
    busy = ScriptedEndpoint("am-1", HttpResponse(429, b"", 60.0))
    receiver = cluster(busy, ScriptedEndpoint("am-2"))
    receiver.send(make_notification(), 10.0)
    busy.posted.get(timeout=60)
    with pytest.raises(queue.Empty):
        busy.posted.get(timeout=0.2)


def test_a_newer_state_replaces_a_missed_alert(cluster, make_alert, make_notification):
    down = ScriptedEndpoint("am-1", DeliveryError(DeliveryErrorReason.CONNECT, "am-1: cannot connect", retryable=True))
    receiver = cluster(down, ScriptedEndpoint("am-2"))
    receiver.send(make_notification(), 10.0)
    down.posted.get(timeout=60)
    receiver.send(make_notification(make_alert(resolved=1_750_000_100.0)), 10.0)
    assert [alert["endsAt"] for alert in down.posted.get(timeout=60)] == ["2025-06-15T15:08:20.000Z"]


def test_a_missed_alert_is_dropped_after_its_expiry(cluster, clock, make_alert, make_notification):
    down = ScriptedEndpoint("am-1", DeliveryError(DeliveryErrorReason.CONNECT, "am-1: cannot connect", retryable=True))
    receiver = cluster(down, ScriptedEndpoint("am-2"))
    receiver.send(make_notification(), 10.0)
    down.posted.get(timeout=60)
    clock.advance(receiver.alert_expiry_seconds)
    receiver.send(make_notification(make_alert(rule="other", fingerprint="f" * 16)), 10.0)
    assert [alert["labels"]["alertname"] for alert in down.posted.get(timeout=60)] == ["other"]


def test_an_alert_that_no_member_accepted_is_not_pending(cluster, make_notification):
    endpoints = [ScriptedEndpoint(f"am-{number}", HttpResponse(503, b"", None)) for number in range(2)]
    receiver = cluster(*endpoints)
    with pytest.raises(DeliveryError):
        receiver.send(make_notification(), 10.0)
    assert [member._pending for member in receiver._members] == [{}, {}]


def test_pending_alerts_are_limited_to_the_newest(cluster, make_alert, make_notification):
    hung = ScriptedEndpoint("am-1")
    hung.answering.clear()
    receiver = cluster(hung, ScriptedEndpoint("am-2"))
    for number in range(60):
        alerts = [
            make_alert(labels=(("pid", f"{number}.{each}"),), fingerprint=f"{number}.{each}") for each in range(20)
        ]
        receiver.send(make_notification(*alerts), 10.0)
    pending = [alert.labels["pid"] for _, alert in receiver._members[0]._pending.values()]
    assert (len(pending), pending[0], pending[-1]) == (1_000, "10.0", "59.19")
    hung.answering.set()


def test_a_changed_severity_ends_the_alert_with_the_former_one(cluster, clock, make_alert, make_notification):
    member = ScriptedEndpoint("am-1")
    receiver = cluster(member)
    receiver.send(make_notification(make_alert(severity=Severity.WARNING)), 10.0)
    [warning] = member.posted.get(timeout=60)
    clock.advance(30)
    receiver.send(make_notification(reason="severity changed"), 10.0)
    critical, ended = member.posted.get(timeout=60)
    assert critical["labels"]["severity"] == "critical"
    assert ended == {**warning, "endsAt": "2025-06-15T15:07:10.000Z"}
    receiver.send(make_notification(reason="repeat"), 10.0)
    assert len(member.posted.get(timeout=60)) == 1


def test_a_retry_ends_the_former_severity_again(cluster, make_alert, make_notification):
    member = ScriptedEndpoint("am-1")
    receiver = cluster(member)
    receiver.send(make_notification(make_alert(severity=Severity.WARNING)), 10.0)
    member.answer = HttpResponse(503, b"", None)
    with pytest.raises(DeliveryError):
        receiver.send(make_notification(), 10.0)
    member.answer = ACCEPTED
    receiver.send(make_notification(), 10.0)
    severities = [[alert["labels"]["severity"] for alert in member.posted.get(timeout=60)] for _ in range(3)]
    assert severities == [["warning"], ["critical", "warning"], ["critical", "warning"]]


def test_a_refresh_moves_the_end(cluster, clock, make_alert):
    member = ScriptedEndpoint("am-1")
    receiver = cluster(member)
    clock.advance(60)
    receiver.refresh([make_alert()], "web-1", 10.0)
    [alert] = member.posted.get(timeout=60)
    assert (alert["startsAt"], alert["endsAt"]) == ("2025-06-15T15:06:50.250Z", "2025-06-15T15:11:40.000Z")
    assert alert["labels"]["host"] == "web-1"


def test_a_refresh_without_alerts_posts_nothing(cluster):
    member = ScriptedEndpoint("am-1")
    cluster(member).refresh([], "web-1", 10.0)
    assert member.posted.empty()


@pytest.mark.parametrize(
    ("answers", "reasons", "retryable", "wait"),
    [
        ((HttpResponse(400, b"", None), HttpResponse(503, b"", 7.0)), {"server_error"}, True, None),
        ((HttpResponse(429, b"", 30.0), HttpResponse(503, b"", 7.0)), {"rate_limited", "server_error"}, True, 7.0),
        ((HttpResponse(400, b"", None), HttpResponse(401, b"", None)), {"client_error", "auth"}, False, None),
    ],
)
def test_delivery_fails_if_no_member_accepts(cluster, make_notification, answers, reasons, retryable, wait):
    receiver = cluster(*(ScriptedEndpoint(f"am-{number}", answer) for number, answer in enumerate(answers, 1)))
    with pytest.raises(DeliveryError) as caught:
        receiver.send(make_notification(), 10.0)
    failure = caught.value
    expected = {f"am-{number} answered {answer.status}" for number, answer in enumerate(answers, 1)}
    assert set(str(failure).split("; ")) == expected
    assert (failure.reason in reasons, failure.retryable, failure.retry_after_seconds) == (True, retryable, wait)


def test_delivery_fails_at_the_deadline_if_all_members_hang(cluster, make_notification):
    member = ScriptedEndpoint("am-1")
    member.answering.clear()
    with pytest.raises(DeliveryError) as caught:
        cluster(member).send(make_notification(), 0.01)
    assert (caught.value.reason, caught.value.retryable) == ("timeout", True)
    member.answering.set()


def test_hostile_names_are_visible_labels(cluster, hostile_notification):
    [alert] = json.loads(cluster(ScriptedEndpoint("am-1")).render(hostile_notification))
    for text in (*alert["labels"].values(), *alert["annotations"].values()):
        assert all(line.isprintable() for line in text.split("\n"))
    assert all(alert["labels"].get(name) != "" for name in ("process", "unit"))


def build(text):
    return build_receivers(read_settings(Document(text, tomllib.loads(text), "watchdog.toml")))["am"]


def test_the_destination_lists_the_hosts():
    text = '[[receiver]]\nname="am"\ntype="alertmanager"\nurls=["http://user:pass@am-1:9093/x/", "https://am-2"]\n'
    assert build(text).destination() == "Alertmanager am-1, am-2"


@pytest.mark.parametrize(
    ("urls", "problem"),
    [
        ("[]", "watchdog.toml:4: receiver.urls: must contain at least one URL"),
        *(
            (
                f'["http://am-1:9093{path}"]',
                f"watchdog.toml:4: receiver.urls: {_GIVE_THE_BASE}",
            )
            for path in ("/api/v2/alerts", "/api/v1/alerts", "/api/v2", "/am/api/v2/", "/#/alerts", "?x=y")
        ),
        ('["am-1:9093"]', "watchdog.toml:4: receiver.urls: must begin with https:// or http:// and a host name"),
    ],
)
def test_bad_urls_are_reported(urls, problem):
    with pytest.raises(ConfigError) as caught:
        build(f'[[receiver]]\nname="am"\ntype="alertmanager"\nurls={urls}\n')
    assert [str(each) for each in caught.value.problems] == [problem]
