from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from watchdog.config.document import Document
from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError
from watchdog.receivers.render import notification_text
from watchdog.receivers.slack.slack_receiver import Slack
from watchdog.receivers.transport.http import Endpoint, HttpResponse
from watchdog.rules.language.rule import Severity


class AnsweringEndpoint(Endpoint):
    """Answers every POST with one given response."""

    def __init__(self, answer):
        super().__init__(Secret("https://hooks.slack.com/services/T000/B000/token"))
        self.answer = answer

    def post(self, body, headers, deadline_seconds):
        return self.answer


def slack_answering(status, body):
    return Slack("oncall", AnsweringEndpoint(HttpResponse(status, body, None)))


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
    """Check a message against every documented limit of Slack, and the undocumented one."""
    assert len(body.decode()) <= 8_000
    message = json.loads(body)
    assert 1 <= len(message["blocks"]) <= 50
    assert message["text"]
    max_units = {"header": 150, "section": 3_000, "context": 2_000}
    for block in message["blocks"]:
        for text in (block["text"],) if "text" in block else block["elements"]:
            assert 1 <= len(text["text"].encode("utf-16-le")) // 2 <= max_units[block["type"]]
    for text in texts(message):
        assert all(line.isprintable() for line in text.split("\n"))
    return message


def test_a_message_has_text_header_sections_and_context(slack, make_alert, make_notification):
    message = check_limits(slack.render(make_notification(make_alert(runbook="https://wiki.example/storm?a=1&b=2|3"))))
    title = "[FIRING] critical: crawler opens 612/s connections (limit 500/s)"
    assert message == {
        "text": f"🔴 {title} on web-1",
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
                    "<https://wiki.example/storm?a=1&amp;b=2%7C3|runbook>\n"
                    "value 612/s, limit 500/s, peak 640/s\n"
                    "process=crawler, unit=crawler.service\n"
                    "since 2025-06-15 15:06:40 UTC, for 12 s; why: value above 500/s for 10 s\n"
                    "host web-1, rule outbound-connection-storm",
                    "verbatim": True,
                },
            },
            {
                "type": "context",
                "block_id": "notification-5f0c7e7a8d9b4c6e8f1a2b3c4d5e6f70",
                "elements": [
                    {
                        "type": "plain_text",
                        "text": "first notification, notification 5f0c7e7a8d9b4c6e8f1a2b3c4d5e6f70",
                        "emoji": False,
                    },
                    {
                        "type": "plain_text",
                        "text": "next: bpf-watchdog alerts show 01234567; to silence: bpf-watchdog ack 01234567;"
                        " delivery: bpf-watchdog notifications show 5f0c7e7a8d9b",
                        "emoji": False,
                    },
                ],
            },
        ],
    }


@pytest.mark.parametrize(
    ("changes", "sign"),
    [({}, "🔴"), ({"severity": Severity.WARNING}, "🟠"), ({"resolved": 1_750_000_100.0}, "🟢")],
    ids=["critical", "warning", "resolved"],
)
def test_the_sign_shows_severity_and_status(slack, make_alert, make_notification, changes, sign):
    assert json.loads(slack.render(make_notification(make_alert(**changes))))["text"].startswith(f"{sign} ")


def test_of_many_alerts_the_worst_are_listed_and_the_rest_counted(slack, make_alert, make_notification):
    warnings = [make_alert(severity=Severity.WARNING) for _ in range(40)]
    message = check_limits(slack.render(make_notification(*warnings, make_alert())))
    assert message["text"] == "🔴 [FIRING:41] critical: outbound-connection-storm on web-1"
    sections = [block["text"]["text"] for block in message["blocks"] if block["type"] == "section"]
    assert sections[0].startswith("*[FIRING] critical: ")
    assert all(section.startswith("*[FIRING] warning: ") for section in sections[1:-1])
    listed = len(sections) - 1
    assert listed >= 10
    assert sections[-1] == f"and {41 - listed} more alerts"


def test_hostile_names_stay_inside_every_limit_and_mention_no_user(slack, hostile_notification):
    message = check_limits(slack.render(hostile_notification))
    for text in texts(message):
        assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", text)


def test_many_alerts_with_hostile_names_stay_inside_every_limit(slack, make_alert, make_notification, hostile_name):
    changes = {"summary": hostile_name, "runbook": "https://x/" + "&" * 3_000}
    alerts = [make_alert(labels=(("process", hostile_name),), fingerprint="0" * 16, **changes)]
    check_limits(slack.render(make_notification(*alerts * 30, host=hostile_name, group_key="r" * 300)))


def test_status_200_means_delivered(slack, make_notification):
    slack.send(make_notification(), 10.0)


@pytest.mark.parametrize(
    ("status", "body", "reason", "text"),
    [
        (
            404,
            b"no_service",
            "client_error",
            "hooks.slack.com answered 404: the webhook was removed or disabled: create a new one",
        ),
        (
            410,
            b"channel_is_archived",
            "client_error",
            "hooks.slack.com answered 410: the channel of the webhook is archived",
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
            "hooks.slack.com answered 400: Slack refuses the layout of the message: please report this",
        ),
        (400, b"<secret page>", "client_error", "hooks.slack.com answered 400"),
    ],
)
def test_a_refusal_by_slack_is_final_and_names_the_remedy(make_notification, status, body, reason, text):
    with pytest.raises(DeliveryError) as caught:
        slack_answering(status, body).send(make_notification(), 10.0)
    assert (caught.value.reason, str(caught.value), caught.value.retryable) == (reason, text, False)


def test_the_destination_is_the_host_without_the_path(slack):
    assert slack.destination() == "Slack hooks.slack.com"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 10, 21])
def test_the_facts_of_every_alert_take_precedence_over_evidence(slack, make_alert, make_notification, evidence, count):
    wordy = replace(evidence, top_process=replace(evidence.top_process, command="&" * 256), peers=evidence.peers * 5)
    labels = (("process", "<" * 60), ("unit", "crawler.service"))
    alert = make_alert(evidence=wordy, labels=labels, runbook="https://wiki.example/storm")
    without_evidence = replace(alert, evidence=None)
    message = check_limits(slack.render(make_notification(*[alert] * count)))
    facts = json.loads(slack.render(make_notification(*[without_evidence] * count)))
    shown, expected = (
        [block["text"]["text"] for block in one["blocks"] if "text" in block] for one in (message, facts)
    )

    assert len(shown) == len(expected)
    assert all(text.startswith(fact) for text, fact in zip(shown, expected, strict=True))
    assert (sum(map(len, shown)) > sum(map(len, expected))) == (
        count < 21
    )  # evidence of the worst alerts fills the space left


def problems_of(**keys):
    document = Document("", keys, "watchdog.toml")
    slack = Slack.from_table("oncall", document.root)
    document.root.reject_unknown_keys()
    return slack, [f"{problem.key}: {problem.message}" for problem in document.problems]


def test_the_destination_of_a_bot_is_host_and_channel_without_the_token():
    slack, problems = problems_of(bot_token="xoxb-1", channel="#oncall")
    assert (slack.destination(), problems) == ("Slack slack.com, channel #oncall", [])
    assert problems_of(bot_token="xoxb-1", channel="C1", api_url="https://slack-gov.com/api/")[0].destination() == (
        "Slack slack-gov.com, channel C1"
    )


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"bot_token": "xoxb-1"}, "channel: missing"),
        ({"bot_token": "xoxb 1", "channel": "C1"}, "bot_token: not a Slack token"),
        ({"bot_token": "xoxb-1", "channel": "C1", "api_url": "slack"}, "api_url: must begin with https:// or http://"),
        (
            {"bot_token": "xoxb-1", "channel": "C1", "webhook_url": "https://hooks.slack.com/x"},
            "webhook_url: give either a webhook_url or a bot_token",
        ),
        ({"webhook_url": "https://hooks.slack.com/x", "channel": "C1"}, 'channel: unknown key "channel"'),
        ({}, "webhook_url: missing: give one of webhook_url"),
    ],
)
def test_reports_every_problem_of_its_table(keys, problem):
    [found] = problems_of(**keys)[1]
    assert found.startswith(problem)


def test_a_bot_renders_both_messages_and_returns_their_sizes(make_notification):
    slack, _ = problems_of(bot_token="xoxb-1", channel="C1")
    brief, full = slack.render(make_notification()).split(b"\n")
    assert len(brief) < len(full)
    check_limits(brief)
    check_limits(full)
    sizes = slack.limit_usage(make_notification())
    assert all(re.fullmatch(r"[\d,]+ of 8,000 characters; 3 of 50 blocks", size) for size in sizes)
    assert len(sizes) == 2


def test_an_alert_with_many_lines_stays_inside_every_limit(slack, make_alert, make_notification, monkeypatch):
    monkeypatch.setattr(
        notification_text,
        "fact_lines",
        lambda alert, notification: [f"line {number}: {'x' * 200}" for number in range(90)],
    )
    message = check_limits(slack.render(make_notification(make_alert(), make_alert())))
    sections = [block["text"]["text"] for block in message["blocks"] if block["type"] == "section"]
    assert len(sections) == 4
    assert sections[0].startswith("*[FIRING] critical: ")
    assert sections[2].endswith("\n…")
    assert sections[3] == "and 1 more alert"
