from __future__ import annotations

import json
import re

import pytest

from watchdog.errors import DeliveryError
from watchdog.notify.http import Answer, Endpoint
from watchdog.notify.slack import Slack
from watchdog.rules.schema import Severity
from watchdog.secret import Secret


class AnsweringEndpoint(Endpoint):
    """Gives one answer to whatever is posted."""

    def __init__(self, answer):
        super().__init__(Secret("https://hooks.slack.com/services/T000/B000/token"))
        self.answer = answer

    def post(self, body, headers, deadline_seconds):
        return self.answer


def slack_answering(status, body):
    return Slack("oncall", AnsweringEndpoint(Answer(status, body, None)))


@pytest.fixture
def slack():
    return slack_answering(200, b"ok")


def texts(message):
    yield message["text"]
    for block in message["blocks"]:
        yield from (element["text"] for element in block.get("elements", ()))
        if "text" in block:
            yield block["text"]["text"]


def check_limits(body):
    """Hold a message against every limit that Slack documents, and the one that it does not."""
    assert len(body.decode()) <= 8_000
    message = json.loads(body)
    assert 1 <= len(message["blocks"]) <= 50
    assert message["text"]
    longest = {"header": 150, "section": 3_000, "context": 2_000}
    for block in message["blocks"]:
        for text in (block["text"],) if "text" in block else block["elements"]:
            assert 1 <= len(text["text"].encode("utf-16-le")) // 2 <= longest[block["type"]]
    for text in texts(message):
        assert all(line.isprintable() for line in text.split("\n"))
    return message


def test_a_message_says_it_all_in_text_header_and_sections(slack, make_alert, make_notice):
    message = check_limits(slack.render(make_notice(make_alert(runbook="https://wiki.example/storm?a=1&b=2|3"))))
    title = "[FIRING] critical: crawler opens 612/s connections (limit 500/s)"
    assert message == {
        "text": f"🔴 {title}",
        "blocks": [
            {
                "type": "header",
                "text": {
                    "type": "plain_text",
                    "text": "🔴 [FIRING] critical: outbound-connection-storm on web-1",
                    "emoji": False,
                },
            },
            {
                "type": "section",
                "text": {
                    "type": "mrkdwn",
                    "text": f"*{title}*\n"
                    "value 612/s, limit 500/s, peak 640/s\n"
                    "since 2025-06-15 15:06:40 UTC, for 12 s\n"
                    "why: value above 500/s for 10 s\n"
                    "process=crawler, unit=crawler.service\n"
                    "host web-1, rule outbound-connection-storm\n"
                    "<https://wiki.example/storm?a=1&amp;b=2%7C3|runbook>",
                    "verbatim": True,
                },
            },
            {
                "type": "context",
                "elements": [
                    {
                        "type": "plain_text",
                        "text": "first notification, notification 5f0c7e7a8d9b4c6e8f1a2b3c4d5e6f70",
                        "emoji": False,
                    }
                ],
            },
        ],
    }


@pytest.mark.parametrize(
    ("changes", "sign"),
    [({}, "🔴"), ({"severity": Severity.WARNING}, "🟠"), ({"resolved": 1_750_000_100.0}, "🟢")],
    ids=["critical", "warning", "resolved"],
)
def test_the_sign_tells_how_bad_it_is(slack, make_alert, make_notice, changes, sign):
    assert json.loads(slack.render(make_notice(make_alert(**changes))))["text"].startswith(f"{sign} ")


def test_of_many_alerts_the_worst_are_listed_and_the_rest_counted(slack, make_alert, make_notice):
    warnings = [make_alert(severity=Severity.WARNING) for _ in range(40)]
    message = check_limits(slack.render(make_notice(*warnings, make_alert())))
    assert message["text"] == "🔴 [FIRING:41] critical: outbound-connection-storm on web-1"
    sections = [block["text"]["text"] for block in message["blocks"] if block["type"] == "section"]
    assert sections[0].startswith("*[FIRING] critical: ")
    assert all(section.startswith("*[FIRING] warning: ") for section in sections[1:-1])
    listed = len(sections) - 1
    assert listed >= 10
    assert sections[-1] == f"and {41 - listed} more alerts"


def test_hostile_names_stay_inside_every_limit_and_mention_nobody(slack, hostile_notice):
    message = check_limits(slack.render(hostile_notice))
    for text in texts(message):
        assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", text)


def test_many_alerts_with_hostile_names_stay_inside_every_limit(slack, make_alert, make_notice, hostile_name):
    alerts = [make_alert(labels=(("process", hostile_name),), summary=hostile_name, runbook="https://x/" + "&" * 3_000)]
    check_limits(slack.render(make_notice(*alerts * 30, host=hostile_name, group="r" * 300)))


def test_ok_is_taken_for_delivered(slack, make_notice):
    slack.send(make_notice(), 10.0)


@pytest.mark.parametrize(
    ("status", "body", "reason", "text"),
    [
        (
            404,
            b"no_service",
            "client_error",
            "hooks.slack.com answered 404: the webhook has been removed or disabled, make a new one",
        ),
        (
            410,
            b"channel_is_archived",
            "client_error",
            "hooks.slack.com answered 410: the webhook's channel is archived",
        ),
        (
            403,
            b"action_prohibited",
            "auth",
            "hooks.slack.com answered 403: an administrator of the workspace does not allow this webhook",
        ),
        (
            400,
            b"invalid_blocks",
            "client_error",
            "hooks.slack.com answered 400: Slack refuses the message's form, please report this",
        ),
        (400, b"<secret page>", "client_error", "hooks.slack.com answered 400"),
    ],
)
def test_what_slack_refuses_is_final_and_says_the_remedy(make_notice, status, body, reason, text):
    with pytest.raises(DeliveryError) as caught:
        slack_answering(status, body).send(make_notice(), 10.0)
    assert (caught.value.reason, str(caught.value), caught.value.retryable) == (reason, text, False)


def test_says_where_it_posts_without_the_path(slack):
    assert slack.destination() == "Slack hooks.slack.com"
