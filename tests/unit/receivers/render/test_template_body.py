"""A user's own webhook body."""

from __future__ import annotations

import json

import pytest

from watchdog.clock import SystemClock
from watchdog.config.document import Document
from watchdog.config.secrets import Secret
from watchdog.receivers.render.template_body import parse_template_body
from watchdog.receivers.transport.http import Endpoint, HttpResponse
from watchdog.receivers.webhook import Webhook


def body_of(given, **keys):
    document = Document("", {"template": given, **keys}, "watchdog.toml")
    body = parse_template_body(document.root)
    document.root.reject_unknown_keys()
    return body, [f"{problem.key}: {problem.message}" for problem in document.problems]


def rendered(given, notification, **keys):
    body, problems = body_of(given, **keys)
    assert problems == []
    return body.render(notification).decode()


def test_a_table_becomes_json_with_every_field_replaced(make_alert, make_notification):
    given = {
        "text": "{title}\n{since}",
        "level": "{severity}/{status}",
        "tags": ["{rule}", "{process} on {host}", {"n": 1, "on": True}],
        "numbers": "{value} {value:count} {threshold:bytes} {peak}",
        "{not a field}": "{{literal}} {firing}",
    }
    notification = make_notification(make_alert(), make_alert(resolved=1_750_000_100.0))
    document = json.loads(rendered(given, notification))
    assert document == {
        "text": "[FIRING:1, RESOLVED:1] critical: outbound-connection-storm on web-1\n12 s ago",
        "level": "critical/firing",
        "tags": ["outbound-connection-storm", "crawler on web-1", {"n": 1, "on": True}],
        "numbers": "612/s 612 500 B 640/s",
        "{not a field}": "{literal} 1",
    }


def test_the_details_are_those_of_every_alert(make_alert, make_notification):
    text = rendered("{details}", make_notification(make_alert(), make_alert(summary="another")))
    assert text.count("value 612/s, limit 500/s, peak 640/s\n") == 2
    assert "[FIRING] critical: another\n" in text


def test_a_missing_value_is_a_dash(make_notification):
    assert rendered("{runbook} {resolved} {container}", make_notification()) == "- - -"


@pytest.mark.parametrize(
    ("keys", "content_type"),
    [
        ({}, "text/plain; charset=utf-8"),
        ({"content_type": "text/markdown; charset=utf-8"}, "text/markdown; charset=utf-8"),
        ({"content_type": "application/x-ndjson"}, "application/x-ndjson"),
    ],
)
def test_a_text_has_the_configured_media_type(keys, content_type):
    body, problems = body_of("{{}}" if "json" in content_type else "{title}", **keys)
    assert (body.content_type, problems) == (content_type, [])


JSON = '{{"text": "{summary}", "lines": "{details}", "host": "{host}"}}'


def test_hostile_names_cannot_end_the_string_around_them(hostile_notification):
    for text in (
        rendered({"text": "{summary}", "lines": "{details}", "host": "{host}"}, hostile_notification),
        rendered(JSON, hostile_notification, content_type="application/json"),
    ):
        document = json.loads(text)
        assert document.keys() == {"text", "lines", "host"}
        assert all(line.isprintable() for value in document.values() for line in value.split("\n"))
        assert len(document["text"]) <= 1_024
    assert all(line.isprintable() for line in rendered("{summary}\n{details}", hostile_notification).split("\n"))


@pytest.mark.parametrize(
    ("given", "keys", "problem"),
    [
        ("{vaule}", {}, 'template: unknown field "vaule": did you mean "value"?'),
        ({"a": ["{value:rat}"]}, {}, 'template: unknown format "rat": did you mean "rate"?'),
        ("{for} {window}", {}, "template: {for} is not available when a notification is sent"),
        ("{", {}, "template: single {: write {{ for a brace"),
        ("{title:count}", {}, "template: {title} is a text and takes no format"),
        ("{value.__class__}", {}, 'template: unknown field "value.__class__"'),
        ('{{"a": {details}}}', {"content_type": "application/json"}, "template: does not make JSON: "),
        (3, {}, "template: must be a text, or a table"),
        ({"a": "b"}, {"content_type": "text/plain"}, "content_type: applies only to a template that is a text"),
        ("x", {"content_type": "text/plain\r\nX: y"}, "content_type: must be a media type, such as text/plain"),
    ],
)
def test_a_bad_template_is_reported_when_the_file_is_read(given, keys, problem):
    body, problems = body_of(given, **keys)
    assert [message.startswith(problem) for message in problems] == [True], problems
    assert body is None or keys


class RecordingEndpoint(Endpoint):
    """An endpoint that only records the posts."""

    def __init__(self):
        super().__init__(Secret("https://alerts.example.net/in/token"))
        self.posts = []

    def post(self, body, headers, deadline_seconds):
        self.posts.append((body, dict(headers)))
        return HttpResponse(200, b"", None)


def test_a_failing_template_is_replaced_by_alertmanagers_form_with_the_error(make_alert, make_notification):
    body, problems = body_of('{{"n": {value:count}}}', content_type="application/json")
    assert problems == []
    endpoint = RecordingEndpoint()
    webhook = Webhook("hook", endpoint, None, SystemClock(), body=body)
    webhook.send(make_notification(), 10.0)
    webhook.send(make_notification(make_alert(value=1_234.0)), 10.0)  # "1,234" is not a JSON number
    (good, _), (document, headers) = endpoint.posts
    assert json.loads(good) == {"n": 612}
    document = json.loads(document)
    assert (document["version"], document["status"], len(document["alerts"])) == ("4", "firing", 1)
    assert document["template_error"].startswith("JSONDecodeError: ")
    assert headers["Content-Type"] == "application/json"
