"""Slack by webhook and by bot, against a fake server that enforces Slack's limits; with senders that are killed."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import textwrap

import pytest

from slack_server import HOOK, TOKEN, SlackServer, Workspace
from watchdog.config.document import Document
from watchdog.errors import DeliveryError
from watchdog.receivers.slack.slack_receiver import Slack

DEADLINE = 10.0
CHANNEL = "C024BE91L"


@pytest.fixture
def slack():
    """Serve a workspace that accepts at most two messages per second."""
    server = SlackServer(Workspace(seconds_per_message=0.5, burst=2))
    yield server
    server.stop()


def receiver_of(keys):
    document = Document("", keys, "watchdog.toml")
    receiver = Slack.from_table("oncall", document.root)
    document.root.reject_unknown_keys()
    document.raise_problems()
    return receiver


def hook_of(server):
    return receiver_of({"webhook_url": f"{server.url}{HOOK}"})


def bot_of(server, token=TOKEN):
    return receiver_of({"bot_token": token, "channel": CHANNEL, "api_url": f"{server.url}/api/"})


def test_a_webhook_posts_each_notification_within_the_rate_limit(slack, firing, resolved):
    receiver = hook_of(slack)
    for notification in (firing, firing, resolved):
        receiver.send(notification, DEADLINE)
    assert [message.text.split("]")[0] for message in slack.workspace.messages] == [
        "🔴 [FIRING",
        "🔴 [FIRING",
        "🟢 [RESOLVED",
    ]


def test_a_bot_updates_one_message_within_the_rate_limit(slack, firing, resolved):
    receiver = bot_of(slack)
    for notification in (firing, resolved):
        receiver.send(notification, DEADLINE)
    [parent] = slack.workspace.parents()
    assert "[RESOLVED]" in parent.words()
    assert len(slack.workspace.replies()) == 2


def test_many_alerts_and_long_lines_stay_inside_the_limits_of_webhook_and_bot(slack, firing):
    slack.workspace.seconds_per_message = None
    [alert] = firing.alerts
    hostile = dataclasses.replace(
        alert, summary="🔥<!channel>" * 900, reason="&" * 5_000, runbook="https://x/" + "|" * 99
    )
    for alerts in ((hostile,), (alert,) * 200, (hostile,) * 60):
        notification = dataclasses.replace(firing, alerts=alerts, host="h" * 300, id="c" * 300)
        hook_of(slack).send(notification, DEADLINE)
        bot_of(slack).send(notification, DEADLINE)
    assert len(slack.workspace.messages) == 9
    assert all(message.blocks for message in slack.workspace.messages)


def test_retry_after_of_slacks_429_is_used(slack, firing):
    slack.workspace.burst = 0
    for receiver in (hook_of(slack), bot_of(slack)):
        with pytest.raises(DeliveryError) as caught:
            receiver.send(firing, DEADLINE)
        assert (caught.value.reason, caught.value.retry_after_seconds) == ("rate_limited", 30.0)


def test_a_refused_token_is_reported_and_not_shown(slack, firing):
    with pytest.raises(DeliveryError) as caught:
        bot_of(slack, "xoxb-secret").send(firing, DEADLINE)
    assert (caught.value.reason, caught.value.retryable) == ("auth", False)
    assert str(caught.value) == "127.0.0.1: invalid_auth: Slack does not accept the token: create a new one"


# --------------------------------------------------------------------------------------------------------- real crashes

SENDER = """
    import json, sys
    from watchdog.routing.notification import Notification
    from watchdog.clock import SystemClock
    from watchdog.config.document import Document
    from watchdog.state.receiver_state import StoredReceiverState
    from watchdog.receivers.base import ReceiverOptions
    from watchdog.receivers.slack.slack_receiver import Slack
    from watchdog.storage.database import Database
    from pathlib import Path

    keys, state, notification = json.loads(sys.stdin.read())
    database = Database(Path(state))
    options = ReceiverOptions(state=StoredReceiverState(database, "oncall", SystemClock()))
    receiver = Slack.from_table("oncall", Document("", keys, "watchdog.toml").root, options)
    receiver.send(Notification.from_json(notification), 10.0)
    database.close()
"""


def send_from_a_process(server, folder, notification, kill_at=None):
    """Send `notification` in a new process, which is killed once its call number `kill_at` has taken effect."""
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(SENDER)], stdin=subprocess.PIPE, text=True)
    calls_before = len(server.workspace.calls)

    def kill(method):
        if kill_at is None or len(server.workspace.calls) - calls_before < kill_at:
            return True
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        return False

    server.before_answer = kill
    keys = {"bot_token": TOKEN, "channel": CHANNEL, "api_url": f"{server.url}/api"}
    process.stdin.write(json.dumps([keys, str(folder / "state.sqlite3"), notification.to_json()]))
    process.stdin.close()
    assert process.wait(60) == (0 if kill_at is None else -signal.SIGKILL)


@pytest.mark.parametrize("is_history_readable", [True, False], ids=["reading", "not reading"])
def test_after_kills_at_each_call_no_message_stays_firing(slack, tmp_path, firing, resolved, is_history_readable):
    slack.workspace.seconds_per_message = None
    if is_history_readable:
        slack.workspace.scopes.add("channels:history")
    for notification in (firing, resolved):
        for call in (1, 2):
            send_from_a_process(slack, tmp_path, notification, kill_at=call)
        send_from_a_process(slack, tmp_path, notification)
    parents = slack.workspace.parents()
    assert "[RESOLVED]" in parents[-1].words()
    if is_history_readable:
        assert len(parents) == 1
    else:
        assert "posted again: an earlier attempt got no answer" in parents[-1].words()
    replies = "".join(message.words() for message in slack.workspace.replies())
    assert all(notification.id in replies for notification in (firing, resolved))
