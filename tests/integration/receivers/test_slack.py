"""Slack by both ways against a stand-in that enforces its limits, over HTTP; processes that are killed in between."""

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
    """Serve a workspace that takes no three messages within a second."""
    server = SlackServer(Workspace(seconds_per_message=0.5, burst=2))
    yield server
    server.stop()


def receiver_of(keys):
    document = Document("", keys, "watchdog.toml")
    made = Slack.from_table("oncall", document.root)
    document.root.reject_unknown_keys()
    document.raise_problems()
    return made


def hook_of(server):
    return receiver_of({"webhook_url": f"{server.url}{HOOK}"})


def bot_of(server, token=TOKEN):
    return receiver_of({"bot_token": token, "channel": CHANNEL, "api_url": f"{server.url}/api/"})


def test_a_webhook_posts_each_notice_and_keeps_to_the_rate(slack, firing, resolved):
    receiver = hook_of(slack)
    for notification in (firing, firing, resolved):
        receiver.send(notification, DEADLINE)
    assert [message.text.split("]")[0] for message in slack.workspace.messages] == [
        "🔴 [FIRING",
        "🔴 [FIRING",
        "🟢 [RESOLVED",
    ]


def test_a_bot_keeps_one_message_up_to_date_and_keeps_to_the_rate(slack, firing, resolved):
    receiver = bot_of(slack)
    for notification in (firing, resolved):
        receiver.send(notification, DEADLINE)
    [parent] = slack.workspace.parents()
    assert "[RESOLVED]" in parent.words()
    assert len(slack.workspace.replies()) == 2


def test_crowds_and_long_lines_stay_inside_the_limits_by_both_ways(slack, firing):
    slack.workspace.seconds_per_message = None
    [alert] = firing.alerts
    nasty = dataclasses.replace(
        alert, summary="🔥<!channel>" * 900, reason="&" * 5_000, runbook="https://x/" + "|" * 99
    )
    for alerts in ((nasty,), (alert,) * 200, (nasty,) * 60):
        notification = dataclasses.replace(firing, alerts=alerts, host="h" * 300, id="c" * 300)
        hook_of(slack).send(notification, DEADLINE)
        bot_of(slack).send(notification, DEADLINE)
    assert len(slack.workspace.messages) == 9
    assert all(message.blocks for message in slack.workspace.messages)


def test_slacks_429_says_how_long_to_wait(slack, firing):
    slack.workspace.burst = 0
    for receiver in (hook_of(slack), bot_of(slack)):
        with pytest.raises(DeliveryError) as caught:
            receiver.send(firing, DEADLINE)
        assert (caught.value.reason, caught.value.retry_after_seconds) == ("rate_limited", 30.0)


def test_a_token_that_is_not_taken_is_told_and_not_shown(slack, firing):
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

    keys, state, notice = json.loads(sys.stdin.read())
    database = Database(Path(state))
    options = ReceiverOptions(state=StoredReceiverState(database, "oncall", SystemClock()))
    receiver = Slack.from_table("oncall", Document("", keys, "watchdog.toml").root, options)
    receiver.send(Notification.from_json(notice), 10.0)
    database.close()
"""


def send_from_a_process(server, folder, notification, kill_at=None):
    """Send `notification` in a process of its own, killed when its call number `kill_at` has taken effect."""
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(SENDER)], stdin=subprocess.PIPE, text=True)
    begun = len(server.workspace.calls)

    def kill(method):
        if kill_at is None or len(server.workspace.calls) - begun < kill_at:
            return True
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        return False

    server.before_answer = kill
    keys = {"bot_token": TOKEN, "channel": CHANNEL, "api_url": f"{server.url}/api"}
    process.stdin.write(json.dumps([keys, str(folder / "state.sqlite3"), notification.to_json()]))
    process.stdin.close()
    assert process.wait(30) == (0 if kill_at is None else -signal.SIGKILL)


@pytest.mark.parametrize("may_read", [True, False], ids=["reading", "not reading"])
def test_killed_after_each_call_no_message_fires_for_ever(slack, tmp_path, firing, resolved, may_read):
    slack.workspace.seconds_per_message = None
    if may_read:
        slack.workspace.scopes.add("channels:history")
    for notification in (firing, resolved):
        for call in (1, 2):
            send_from_a_process(slack, tmp_path, notification, kill_at=call)
        send_from_a_process(slack, tmp_path, notification)
    parents = slack.workspace.parents()
    assert "[RESOLVED]" in parents[-1].words()
    if may_read:
        assert len(parents) == 1
    else:
        assert "posted again: an earlier attempt got no answer" in parents[-1].words()
    told = "".join(message.words() for message in slack.workspace.replies())
    assert all(notification.id in told for notification in (firing, resolved))
