"""Services that document their answer to a delivery: any other 2xx answer is a login page."""

from __future__ import annotations

import pytest

import factories
from watchdog.clock import SystemClock
from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError, UncertainDeliveryError
from watchdog.receivers.alertmanager import Alertmanager
from watchdog.receivers.pagerduty import PagerDuty
from watchdog.receivers.slack.slack_receiver import Slack
from watchdog.receivers.transport.http import Endpoint, HttpResponse

PAGE = b"<!DOCTYPE html><html><title>Sign in</title><form action=/login>...</form></html>"


class AnsweringEndpoint(Endpoint):
    def __init__(self, answer):
        super().__init__(Secret("https://service.example/in"))
        self.answer = answer

    def post(self, body, headers, deadline_seconds, **options):
        return self.answer


KINDS = {
    "slack": lambda endpoint: Slack("r", endpoint),
    "pagerduty": lambda endpoint: PagerDuty("r", endpoint, Secret("0" * 32)),
    "alertmanager": lambda endpoint: Alertmanager("r", [endpoint], SystemClock()),
}


def send(kind, status, body):
    receiver = KINDS[kind](AnsweringEndpoint(HttpResponse(status, body, None)))
    try:
        receiver.send(factories.make_notification(), 5.0)
    finally:
        receiver.close()


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("slack", 200, b"ok"),
        ("slack", 200, b"ok\n"),
        ("pagerduty", 202, b'{"status":"success","message":"Event processed","dedup_key":"x"}'),
        ("alertmanager", 200, b""),
    ],
)
def test_the_documented_answer_is_a_delivery(kind, status, body):
    send(kind, status, body)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [200, 202])
@pytest.mark.parametrize("body", [PAGE, b'{"login": "required"}', b"Welcome", b"\xff\xfe"])
def test_any_other_answer_is_retried(kind, status, body):
    with pytest.raises(DeliveryError, match=f"service.example answered {status} without") as caught:
        send(kind, status, body)
    assert (caught.value.reason, caught.value.retryable) == ("server_error", True)
    assert not isinstance(caught.value, UncertainDeliveryError)


@pytest.mark.parametrize("kind", ["slack", "pagerduty"])
def test_an_empty_answer_is_retried_where_a_text_is_documented(kind):
    with pytest.raises(DeliveryError):
        send(kind, 200, b"")
