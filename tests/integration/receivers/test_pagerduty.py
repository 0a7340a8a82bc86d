"""PagerDuty against a fake server that enforces its documentation."""

from __future__ import annotations

import dataclasses
import http.server
import json
import threading
import time
from collections import deque

import pytest

from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError
from watchdog.receivers.pagerduty import PagerDuty
from watchdog.receivers.transport.http import Endpoint

KEY = "0123456789abcdef0123456789abcdef"
DEADLINE = 10.0
MOST_BYTES = 512_000
MAX_PER_MINUTE = 120  # per key


class FakePagerDuty(http.server.ThreadingHTTPServer):
    """A server that accepts events as PagerDuty documents. `incidents`: open ones by dedup_key; `log`: every event.

    `now`: its clock. `answers`: the statuses of the next answers, None for the regular one.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), FakePagerDutyHandler)
        self.incidents = {}
        self.opened = []
        self.resolved = []
        self.dropped = []
        self.log = []
        self.answers = deque()
        self.now = time.monotonic
        self.limit = MAX_PER_MINUTE
        self._recent = deque()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v2/enqueue"

    def take(self, path, headers, body):
        """Return status and answer for one request."""
        failure = self.answers.popleft() if self.answers else None
        if failure is not None:
            return failure, {}
        if path != "/v2/enqueue":
            return 404, {}
        while self._recent and self._recent[0] <= self.now() - 60:
            self._recent.popleft()
        if len(self._recent) >= self.limit:
            return 429, {
                "status": "throttle exceeded",
                "message": "Requests for this service are arriving too quickly.",
            }
        self._recent.append(self.now())
        errors = list(faults(headers, body))
        if errors:
            return 400, {"status": "invalid event", "message": "Event object is invalid", "errors": errors}
        event = json.loads(body)
        self.log.append(event)
        self._apply(event)
        return 202, {"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]}

    def _apply(self, event):
        key = event["dedup_key"]
        if event["event_action"] == "trigger":
            if key not in self.incidents:
                self.opened.append(key)
            self.incidents[key] = event
        elif self.incidents.pop(key, None) is not None:
            self.resolved.append(key)
        else:
            self.dropped.append(key)


def faults(headers, body):
    """Yield the errors that PagerDuty would find in an event."""
    if len(body) > MOST_BYTES:
        yield "Payload too large"
        return
    if headers["Content-Type"] != "application/json":
        yield "not JSON"
    event = json.loads(body)
    if event.get("routing_key") != KEY:
        yield "Invalid routing key"
    if event.get("event_action") not in ("trigger", "acknowledge", "resolve"):
        yield "'event_action' is invalid"
    if not 1 <= len(event.get("dedup_key", "")) <= 255:
        yield "'dedup_key' is too long"
    payload = event.get("payload", {})
    if event.get("event_action") == "trigger":
        yield from (f"'payload.{name}' is missing or blank" for name in ("summary", "source") if not payload.get(name))
        if payload.get("severity") not in ("critical", "error", "warning", "info"):
            yield "'payload.severity' is invalid"
    if len(payload.get("summary", "").encode("utf-16-le")) // 2 > 1_024:
        yield "'payload.summary' is too long"
    if not isinstance(payload.get("custom_details", {}), dict):
        yield "'payload.custom_details' is no object"
    yield from ("'links' without 'href'" for link in event.get("links", ()) if not link.get("href"))


class FakePagerDutyHandler(http.server.BaseHTTPRequestHandler):
    server: FakePagerDuty

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, document = self.server.take(self.path, self.headers, body)
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Log nothing."""


@pytest.fixture
def fake():
    server = FakePagerDuty()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def receiver(fake):
    return PagerDuty("oncall", Endpoint(Secret(fake.url)), Secret(KEY))


def crowd(notification, count):
    """Return `notification` with `count` alerts."""
    [alert] = notification.alerts
    alerts = (dataclasses.replace(alert, fingerprint=f"{number:016x}") for number in range(count))
    return dataclasses.replace(notification, alerts=tuple(alerts))


def test_an_incident_opens_and_closes_with_its_alert(receiver, fake, firing, resolved):
    receiver.send(firing, DEADLINE)
    assert len(fake.incidents) == 1
    receiver.send(dataclasses.replace(firing, id="c" * 32, reason="repeat"), DEADLINE)
    assert len(fake.opened) == 1  # a reminder opens no new incident
    receiver.send(resolved, DEADLINE)
    assert (fake.opened, fake.incidents, fake.dropped) == (fake.resolved, {}, [])


def test_the_end_of_an_unknown_alert_is_accepted_and_ignored(receiver, fake, resolved):
    receiver.send(resolved, DEADLINE)
    assert len(fake.dropped) == 1


def test_a_notification_interrupted_anywhere_opens_each_incident_once(receiver, fake, firing):
    notification = crowd(firing, 5)
    for failure in (500, 429, 503):
        fake.answers.extend([None, failure])
        with pytest.raises(DeliveryError) as caught:
            receiver.send(notification, DEADLINE)
        assert caught.value.retryable
    receiver.send(notification, DEADLINE)
    assert len(fake.opened) == len(fake.log) == 5


def test_events_above_the_rate_limit_arrive_over_several_minutes_without_duplicates(receiver, fake, firing):
    fake.now = lambda: minutes * 60.0
    notification = crowd(firing, 2 * MAX_PER_MINUTE + 30)
    for minutes in range(2):  # noqa: B007 - the clock of the fake reads it
        with pytest.raises(DeliveryError) as caught:
            receiver.send(notification, 60.0)
        assert (caught.value.reason, caught.value.retry_after_seconds) == ("rate_limited", 30.0)
    minutes = 2
    receiver.send(notification, 60.0)
    assert len(fake.opened) == len(fake.log) == 2 * MAX_PER_MINUTE + 30


def test_an_unknown_routing_key_is_a_final_failure(fake, firing):
    receiver = PagerDuty("oncall", Endpoint(Secret(fake.url)), Secret("f" * 32))
    with pytest.raises(DeliveryError) as caught:
        receiver.send(firing, DEADLINE)
    assert not caught.value.retryable
    assert "routing key" in str(caught.value)
    assert "f" * 32 not in str(caught.value)


def test_no_host_name_is_refused(receiver, fake, firing):
    [alert] = firing.alerts
    names = ("", "\x1b[2J", "\ud800", "é" * 5_000, "\U0001f525" * 5_000, "\x00" * 5_000, "<!channel>\r\n", "\U000e0041")
    for number, name in enumerate(names):
        hostile = dataclasses.replace(alert, labels=(("process", name), ("unit", name)), summary=name, reason=name)
        receiver.send(
            dataclasses.replace(firing, id=f"{number:032x}", alerts=(hostile,), host=name, group_key=name), DEADLINE
        )
    assert len(fake.opened) == len(names)
