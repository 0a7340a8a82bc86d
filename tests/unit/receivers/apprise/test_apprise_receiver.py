from __future__ import annotations

import importlib.util
import json
import re
import tomllib

import pytest

from watchdog import sanitize
from watchdog.config.document import Document
from watchdog.config.secrets import Secret
from watchdog.config.settings import read_settings
from watchdog.errors import ConfigError
from watchdog.receivers.apprise.apprise_receiver import Apprise
from watchdog.receivers.registry import build_receivers
from watchdog.rules.language.rule import Severity


def build(urls):
    text = f'[[receiver]]\nname = "all"\ntype = "apprise"\nurls = {json.dumps(urls)}\n'
    return build_receivers(read_settings(Document(text, tomllib.loads(text), "watchdog.toml")))["all"]


def problems_of(urls):
    with pytest.raises(ConfigError) as caught:
        build(urls)
    return [str(problem) for problem in caught.value.problems]


@pytest.fixture
def receiver():
    return Apprise("all", (Secret("json://127.0.0.1/secret"),))


def test_urls_are_one_per_line_and_only_their_schemes_are_shown():
    receiver = build("# on call\nmatrix://user:hidden@host/#room\n\n  ntfys://hidden-topic\nmatrix://other:hidden@host")
    assert receiver.destination() == "Apprise matrix, ntfys"
    assert "hidden" not in repr(vars(receiver))


def test_a_line_that_is_not_a_url_is_reported_by_number_and_not_shown():
    assert problems_of("json://host\nsecret-token\n") == [
        "watchdog.toml:4: receiver.urls: line 2 is not an Apprise URL"
    ]
    assert problems_of("# none\n") == ["watchdog.toml:4: receiver.urls: contains no URL"]


def test_without_the_extra_the_problem_names_the_command_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert problems_of("json://host") == [
        "watchdog.toml:3: receiver.type: Apprise is not installed: pip install 'bpf-watchdog[apprise]'"
    ]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [({}, "failure"), ({"severity": Severity.WARNING}, "warning"), ({"resolved": 1_750_000_100.0}, "success")],
    ids=["critical", "warning", "resolved"],
)
def test_a_message_has_title_body_and_type(receiver, make_alert, make_notification, changes, kind):
    message = json.loads(receiver.render(make_notification(make_alert(**changes))))
    assert message["type"] == kind
    assert message["title"].endswith(": crawler opens 612/s connections (limit 500/s) on web-1")
    assert "\n  process=crawler, unit=crawler.service\n" in message["body"]


def test_hostile_names_mention_no_user_and_stay_inside_the_limits(receiver, hostile_notification):
    message = json.loads(receiver.render(hostile_notification))
    assert len(message["title"]) <= 250
    for line in (message["title"], *message["body"].split("\n")):
        assert line.isprintable()
        assert len(line) <= 480
        assert not re.search(r"[<`]|(?<!\w)@\w", line)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("<!channel>", r"\x3c!channel>"),
        ("@everyone", r"\x40everyone"),
        ("getty@tty1.service", "getty@tty1.service"),
        ("[click](https://evil.example)", r"\x5bclick](https://evil.example)"),
        ("[FIRING] critical", "[FIRING] critical"),
        ("`code`", r"\x60code\x60"),
    ],
)
def test_mentions_and_markup_are_escaped(text, written):
    assert sanitize.for_apprise(text, 100) == written
