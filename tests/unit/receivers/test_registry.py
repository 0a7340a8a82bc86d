from __future__ import annotations

import tomllib

import pytest

from watchdog.config.document import Document, secret_forms
from watchdog.config.settings import read_settings
from watchdog.errors import ConfigError
from watchdog.receivers.registry import RECEIVER_TYPES, build_receivers, receiver_class

EVERYWHERE = (
    "escalate_after, escalate_to, escalate_unacknowledged, name, rate_limit, send_resolved, suppress, timeout, type"
)
URL = '"http://127.0.0.1:1/"'


def config_of(text, **options):
    return read_settings(Document(text, tomllib.loads(text), "watchdog.toml", **options))


def problems_of(text):
    with pytest.raises(ConfigError) as caught:
        build_receivers(config_of(text))
    return [str(problem) for problem in caught.value.problems]


def test_each_type_is_the_type_of_its_class():
    assert sorted(RECEIVER_TYPES) == [
        "alertmanager",
        "apprise",
        "command",
        "console",
        "email",
        "journald",
        "pagerduty",
        "slack",
        "syslog",
        "webhook",
    ]
    assert [receiver_class(kind).type for kind in RECEIVER_TYPES] == list(RECEIVER_TYPES)


def test_receivers_have_their_names_in_the_order_of_the_file():
    receivers = build_receivers(
        config_of("""
[[receiver]]
name = "oncall"
type = "slack"
webhook_url = "https://hooks.slack.com/services/T000/B000/token"
[[receiver]]
name = "hook"
type = "webhook"
url = "http://127.0.0.1:8080/in"
hmac_secret = "key"
[[receiver]]
name = "log"
type = "syslog"
[[receiver]]
name = "far"
type = "syslog"
address = "tcp://log.example:601"
facility = "local3"
""")
    )
    assert {name: receiver.destination() for name, receiver in receivers.items()} == {
        "oncall": "Slack hooks.slack.com",
        "hook": "webhook 127.0.0.1",
        "log": "syslog unix:///dev/log",
        "far": "syslog tcp://log.example:601",
    }
    assert list(receivers) == ["oncall", "hook", "log", "far"]
    assert [receiver.name for receiver in receivers.values()] == list(receivers)


def test_each_type_of_receiver_has_a_default_rate_limit():
    tables = {"slack": "webhook_url", "webhook": "url", "syslog": None, "console": None}
    text = "".join(
        f'[[receiver]]\nname = "{name}"\ntype = "{name}"\n{f"{key} = {URL}" if key else ""}\n'
        for name, key in tables.items()
    )
    receivers = build_receivers(config_of(f'{text}[[receiver]]\nname = "few"\ntype = "console"\nrate_limit = "3/h"'))
    assert {kind: receiver_class(kind).default_rate_limit for kind in RECEIVER_TYPES} == {
        "alertmanager": "none", "apprise": "30/h", "command": "600/h", "console": "none", "email": "30/h",
        "journald": "none", "pagerduty": "30/h", "slack": "30/h", "syslog": "none", "webhook": "600/h",
    }  # fmt: skip
    rate_limits = {name: receiver.rate_limit for name, receiver in receivers.items()}
    assert {name: limit and limit.max_notifications for name, limit in rate_limits.items()} == {
        "slack": 30, "webhook": 600, "syslog": None, "console": None, "few": 3,
    }  # fmt: skip


def test_without_configuration_the_receiver_is_the_console():
    assert [receiver.type for receiver in build_receivers(config_of("")).values()] == ["console"]


def test_every_problem_of_every_receiver_is_reported_with_its_line():
    assert problems_of("""
[[receiver]]
name = "a"
type = "slakc"
[[receiver]]
name = "b"
type = "webhook"
url = "ftp://secret-host/secret-path"
hmac_secrets = "x"
[[receiver]]
name = "c"
type = "slack"
[[receiver]]
name = "d"
type = "syslog"
address = "ssl://log.example"
facility = "demon"
[[receiver]]
name = "e"
type = "syslog"
address = "udp://log.example"
format = "local"
[[receiver]]
name = "f"
type = "console"
colour = true
""") == [
        'watchdog.toml:4: receiver.type: unknown type "slakc": did you mean "slack"?',
        "watchdog.toml:8: receiver.url: must begin with https:// or http:// and a host name",
        'watchdog.toml:9: receiver.hmac_secrets: unknown key "hmac_secrets": did you mean "hmac_secret"?',
        "watchdog.toml:10: receiver.webhook_url: missing: give one of " + ", ".join(secret_forms("webhook_url")),
        "watchdog.toml:16: receiver.address: must begin with unix://, udp://, tcp:// or tls://",
        'watchdog.toml:17: receiver.facility: unknown value "demon": did you mean "daemon"?',
        'watchdog.toml:22: receiver.format: "local" is for unix:// addresses: servers expect "rfc5424"',
        f'watchdog.toml:26: receiver.colour: unknown key "colour": known are {EVERYWHERE}',
    ]


def test_a_bad_url_in_the_environment_is_reported_by_its_key_but_not_shown(monkeypatch):
    monkeypatch.setenv("HOOK_URL", "hooks.example/secret-path")
    text = '[[receiver]]\nname = "hook"\ntype = "webhook"\nurl_env = "HOOK_URL"\n'
    assert problems_of(text) == [
        "watchdog.toml:4: receiver.url_env: must begin with https:// or http:// and a host name"
    ]


def test_an_unreadable_secret_is_no_problem_without_require_secrets():
    text = '[[receiver]]\nname = "hook"\ntype = "webhook"\nurl_env = "NOT_SET_ANYWHERE"\n'
    assert list(build_receivers(config_of(text, require_secrets=False))) == ["hook"]


@pytest.mark.parametrize(
    ("address", "form", "start"),
    [
        ("unix:///dev/log", None, b"<26>Jun"),
        ("unix:///run/systemd/journal/dev-log", None, b"<26>Jun"),
        ("unix:///run/syslog-ng/5424", None, b"<26>1 2025-06-"),
        ("unix:///dev/log", "rfc5424", b"<26>1 2025-06-"),
        ("unix:///run/syslog-ng/old", "local", b"<26>Jun"),
        ("udp://log.example", None, b"<26>1 2025-06-"),
    ],
)
def test_the_default_format_follows_the_address(make_notification, address, form, start):
    text = f'[[receiver]]\nname = "log"\ntype = "syslog"\naddress = "{address}"\n'
    if form is not None:
        text += f'format = "{form}"\n'
    assert build_receivers(config_of(text))["log"].render(make_notification()).startswith(start)
