"""Logins of receivers: none in a file that others can read, and one way to log in at a time."""

from __future__ import annotations

import tomllib

import pytest

from watchdog.config.document import Document
from watchdog.config.settings import read_settings
from watchdog.errors import ConfigError
from watchdog.receivers.registry import build_receivers

LOGIN = "http://user:s3cret@service.example"
URLS = {
    "webhook": f'url = "{LOGIN}/in"',
    "alertmanager": f'urls = ["http://am-1.example", "{LOGIN}"]',
    "pagerduty": f'routing_key_env = "KEY"\nurl = "{LOGIN}/v2/enqueue"',
    "slack": f'webhook_url = "{LOGIN}/services/x"',
}


def build(receiver_type, keys, *, others="everyone on this host"):
    text = f'[[receiver]]\nname = "r"\ntype = "{receiver_type}"\n{keys}\n'
    document = Document(text, tomllib.loads(text), "watchdog.toml", other_readers=others)
    return build_receivers(read_settings(document))["r"]


def problems(*args, **options):
    with pytest.raises(ConfigError) as caught:
        build(*args, **options)
    return [f"{problem.key}: {problem.message}" for problem in caught.value.problems]


@pytest.mark.parametrize("receiver_type", URLS)
def test_a_login_in_a_file_that_others_can_read_is_refused_under_every_key_of_a_url(receiver_type, monkeypatch):
    monkeypatch.setenv("KEY", "R" + "0123456789abcde" * 2 + "f")
    [problem] = problems(receiver_type, URLS[receiver_type])
    assert "is written in a file that is open to everyone on this host" in problem
    assert "s3cret" not in problem
    build(receiver_type, URLS[receiver_type], others=None).close()
    if receiver_type != "slack":  # the whole URL of a Slack webhook is a secret
        build(receiver_type, URLS[receiver_type].replace("user:s3cret@", "")).close()


def test_the_members_of_a_cluster_can_stand_in_a_file(tmp_path):
    path = tmp_path / "urls"
    path.write_text(f"# the cluster\n{LOGIN}\n\n http://am-2.example \n")
    path.chmod(0o600)
    receiver = build("alertmanager", f'urls_file = "{path}"')
    assert receiver.destination() == "Alertmanager service.example, am-2.example"
    path.write_text("http://am-1.example\nam-2.example:9093\n")
    assert problems("alertmanager", f'urls_file = "{path}"') == [
        "receiver.urls_file: must begin with https:// or http:// and a host name"
    ]


SECOND_LOGINS = [
    'bearer_token = "token"',
    'username = "other"\npassword = "other"',
    '[receiver.headers]\nAuthorization = "Api token"',
    '[receiver.headers]\nauthorization = "Api token"',
]


@pytest.mark.parametrize("second", SECOND_LOGINS)
@pytest.mark.parametrize("login", ["user:s3cret", "s3cret"])
def test_a_login_in_the_url_besides_another_is_refused(second, login):
    url = f'url = "https://{login}@service.example/in"\n'
    assert problems("webhook", url + second, others=None) == [
        "receiver.url: give only one of a login in the URL, bearer_token, username and an Authorization header"
    ]
    build("webhook", url, others=None)
    build("webhook", url.replace(f"{login}@", "") + second, others=None)


def test_the_api_url_of_a_bot_has_no_login():
    keys = f'bot_token = "xoxb-1"\nchannel = "C1"\napi_url = "{LOGIN}/api"'
    assert problems("slack", keys, others=None) == [
        "receiver.api_url: must have no login: the bot logs in with its token"
    ]
