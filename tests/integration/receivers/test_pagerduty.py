"""PagerDuty against a stand-in that holds events to everything that its documentation says."""

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
MOST_A_MINUTE = 120  # per key


class StandIn(http.server.ThreadingHTTPServer):
    """Takes events as PagerDuty documents it: `incidents` holds those that are open, by dedup_key, `log` every event.

    `now` is its clock; `answers` are the statuses of what comes next, None for what it would answer.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), StandInHandler)
        self.incidents = {}
        self.opened = []
        self.resolved = []
        self.dropped = []
        self.log = []
        self.answers = deque()
        self.now = time.monotonic
        self.limit = MOST_A_MINUTE
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
    """Yield what PagerDuty would find wrong with an event."""
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


class StandInHandler(http.server.BaseHTTPRequestHandler):
    server: StandIn

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, document = self.server.take(self.path, self.headers, body)
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Keep the tests' output clean."""


@pytest.fixture
def stand_in():
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def receiver(stand_in):
    return PagerDuty("oncall", Endpoint(Secret(stand_in.url)), Secret(KEY))


def crowd(notification, count):
    """Return `notification` with as many alerts."""
    [alert] = notification.alerts
    alerts = (dataclasses.replace(alert, fingerprint=f"{number:016x}") for number in range(count))
    return dataclasses.replace(notification, alerts=tuple(alerts))


def test_an_incident_opens_and_closes_with_its_alert(receiver, stand_in, firing, resolved):
    receiver.send(firing, DEADLINE)
    assert len(stand_in.incidents) == 1
    receiver.send(dataclasses.replace(firing, id="c" * 32, reason="repeat"), DEADLINE)
    assert len(stand_in.opened) == 1  # a reminder opens nothing new
    receiver.send(resolved, DEADLINE)
    assert (stand_in.opened, stand_in.incidents, stand_in.dropped) == (stand_in.resolved, {}, [])


def test_the_end_of_what_it_never_heard_of_is_taken_and_dropped(receiver, stand_in, resolved):
    receiver.send(resolved, DEADLINE)
    assert len(stand_in.dropped) == 1


def test_a_notice_cut_short_anywhere_opens_each_incident_once(receiver, stand_in, firing):
    notification = crowd(firing, 5)
    for failure in (500, 429, 503):
        stand_in.answers.extend([None, failure])
        with pytest.raises(DeliveryError) as caught:
            receiver.send(notification, DEADLINE)
        assert caught.value.retryable
    receiver.send(notification, DEADLINE)
    assert len(stand_in.opened) == len(stand_in.log) == 5


def test_more_events_than_a_minute_takes_arrive_over_several_without_one_sent_twice(receiver, stand_in, firing):
    stand_in.now = lambda: minutes * 60.0
    notification = crowd(firing, 2 * MOST_A_MINUTE + 30)
    for minutes in range(2):  # noqa: B007 - the stand-in's clock reads it
        with pytest.raises(DeliveryError) as caught:
            receiver.send(notification, 60.0)
        assert (caught.value.reason, caught.value.retry_after_seconds) == ("rate_limited", 30.0)
    minutes = 2
    receiver.send(notification, 60.0)
    assert len(stand_in.opened) == len(stand_in.log) == 2 * MOST_A_MINUTE + 30


def test_a_key_that_is_not_its_own_is_refused_for_good(stand_in, firing):
    receiver = PagerDuty("oncall", Endpoint(Secret(stand_in.url)), Secret("f" * 32))
    with pytest.raises(DeliveryError) as caught:
        receiver.send(firing, DEADLINE)
    assert not caught.value.retryable
    assert "routing key" in str(caught.value)
    assert "f" * 32 not in str(caught.value)


def test_nothing_that_a_host_can_be_called_is_refused(receiver, stand_in, firing):
    [alert] = firing.alerts
    names = ("", "\x1b[2J", "\ud800", "é" * 5_000, "\U0001f525" * 5_000, "\x00" * 5_000, "<!channel>\r\n", "\U000e0041")
    for number, name in enumerate(names):
        hostile = dataclasses.replace(alert, labels=(("process", name), ("unit", name)), summary=name, reason=name)
        receiver.send(
            dataclasses.replace(firing, id=f"{number:032x}", alerts=(hostile,), host=name, group_key=name), DEADLINE
        )
    assert len(stand_in.opened) == len(names)
