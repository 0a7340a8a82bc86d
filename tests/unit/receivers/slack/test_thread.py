"""One message per group that turns from firing to resolved, whatever Slack, the network and the disk do meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slack_server import TOKEN, Workspace
from watchdog.alerts.alert import Alert, AlertState
from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError, DeliveryErrorReason, StoreError
from watchdog.receivers.base import VolatileReceiverState
from watchdog.receivers.slack.api import API_METHODS, SlackApi, SlackThrottle
from watchdog.receivers.slack.thread import CONTINUED_REMARK, MOVED_TEXT, UNCERTAIN_REMARK, SlackThread
from watchdog.receivers.transport.deadline import Deadline
from watchdog.receivers.transport.http import Endpoint, HttpResponse, HttpTransport, UncertainDeliveryError
from watchdog.receivers.transport.tls import host_tls_context
from watchdog.routing.notification import Notification, NotificationReason
from watchdog.rules.language.rule import Severity

CHANNEL = "C024BE91L"
TRANSPORT = HttpTransport(host_tls_context())


class Killed(BaseException):
    """The process is gone."""


class Line(Endpoint):
    """Takes calls to a workspace, and breaks as it is told: the next call by the first of `faults`."""

    def __init__(self, workspace: Workspace, method: str, faults: list[str]) -> None:
        super().__init__(Secret(f"https://slack.com/api/{method}"), TRANSPORT)
        self._workspace = workspace
        self._method = method
        self._faults = faults

    def post(self, body, headers, deadline_seconds, *, max_bytes=0):
        fault = self._faults.pop(0) if self._faults else "none"
        if fault == "no connection":
            raise DeliveryError(DeliveryErrorReason.CONNECT, "slack.com: cannot connect", retryable=True)
        if fault == "killed before":
            raise Killed
        if fault == "lost request":
            raise UncertainDeliveryError(
                DeliveryErrorReason.TIMEOUT, "slack.com: no complete answer in time", retryable=True
            )
        if fault == "too fast":
            return HttpResponse(429, b"", 30.0)
        status, answered, content = self._workspace.handle(f"/api/{self._method}", dict(headers), body)
        if fault == "lost answer":
            raise UncertainDeliveryError(
                DeliveryErrorReason.TIMEOUT, "slack.com: no complete answer in time", retryable=True
            )
        if fault == "killed after":
            raise Killed
        if fault == "half done":
            return HttpResponse(200, b'{"ok":false,"error":"internal_error"}', None)
        if fault == "broken":
            return HttpResponse(502, b"<html>", None)
        wait = answered.get("Retry-After")
        return HttpResponse(status, content, None if wait is None else float(wait))


class Full(VolatileReceiverState):
    """A memory on a disk that is full while `full` is set."""

    full = False

    def put(self, key, value):
        if self.full:
            raise StoreError("database or disk is full")
        super().put(key, value)


class Bot:
    """A thread, the workspace that it tells, and what lies between; a restart keeps only the memory."""

    def __init__(self, **workspace: object) -> None:
        self.workspace = Workspace(**workspace)
        self.state = Full()
        self.faults: list[str] = []
        self.restart()

    def restart(self, channel: str = CHANNEL) -> None:
        endpoints = {method: Line(self.workspace, method, self.faults) for method in API_METHODS}
        now = [0.0]

        def sleep(seconds: float) -> None:
            now[0] += seconds

        self.thread = SlackThread(SlackApi(endpoints, Secret(TOKEN), SlackThrottle(lambda: now[0], sleep)), channel)

    def deliver(self, notification: Notification) -> None:
        self.thread.deliver(notification, self.state, Deadline(10.0))

    def fails(self, notification: Notification) -> DeliveryError:
        with pytest.raises(DeliveryError) as caught:
            self.deliver(notification)
        return caught.value


@pytest.fixture
def bot() -> Bot:
    return Bot()


@pytest.fixture
def firing(make_alert, make_notification) -> Callable[..., Notification]:
    """Make a notice of a storm that fires, with an id of its own."""

    def make(identity: str, *, severity=Severity.CRITICAL, **changes: object) -> Notification:
        return make_notification(make_alert(severity=severity), id=identity * 32, **changes)

    return make


@pytest.fixture
def resolved(make_alert, make_notification) -> Callable[..., Notification]:
    """Make the notice of its end."""

    def make(identity: str, **changes: object) -> Notification:
        over = make_alert(state=AlertState.RESOLVED, resolved=1_750_000_100.0)
        return make_notification(over, id=identity * 32, reason="resolved", **changes)

    return make


def state_of(message) -> str:
    return message.text.split("[")[1].split("]")[0]


def test_one_message_turns_from_firing_to_resolved_and_the_details_are_in_its_thread(bot, firing, resolved):
    bot.deliver(firing("a"))
    [parent], [reply] = bot.workspace.parents(), bot.workspace.replies()
    assert "[FIRING] critical: crawler opens 612/s connections (limit 500/s)" in parent.words()
    assert "value 612/s, limit 500/s, peak 640/s" in parent.words()
    assert "host web-1, rule outbound-connection-storm" in reply.words()
    assert (reply.thread_ts, reply.broadcast) == (parent.ts, False)
    bot.deliver(resolved("b"))
    assert bot.workspace.parents() == [parent]
    assert "[RESOLVED]" in parent.words()
    assert "FIRING" not in parent.words() + parent.text
    assert [state_of(message) for message in bot.workspace.replies()] == ["FIRING", "RESOLVED"]
    assert bot.workspace.calls == ["chat.postMessage", "chat.postMessage", "chat.update", "chat.postMessage"]


@pytest.mark.parametrize("reason", ["new alert in group", "severity changed", "repeat"])
def test_news_that_still_burns_is_heard_in_the_channel_too(bot, firing, resolved, reason):
    bot.deliver(firing("a"))
    bot.deliver(firing("b", reason=reason))
    bot.deliver(resolved("c"))
    assert [message.broadcast for message in bot.workspace.replies()] == [False, True, False]
    assert len(bot.workspace.parents()) == 1


def test_the_next_alert_of_a_rule_gets_a_message_of_its_own(bot, firing, resolved):
    for notification in (firing("a"), resolved("b"), firing("c"), resolved("d")):
        bot.deliver(notification)
    assert [state_of(message) for message in bot.workspace.parents()] == ["RESOLVED", "RESOLVED"]


def test_groups_and_tests_have_messages_of_their_own(bot, firing, resolved):
    bot.deliver(firing("a"))
    bot.deliver(firing("b", group_key="another-rule"))
    bot.deliver(firing("c", is_test=True))
    bot.deliver(resolved("d"))
    assert [state_of(message) for message in bot.workspace.parents()] == ["RESOLVED", "FIRING", "TEST"]


def test_after_a_restart_it_is_still_the_same_message(bot, firing, resolved):
    bot.deliver(firing("a"))
    bot.restart()
    bot.deliver(resolved("b"))
    assert [state_of(message) for message in bot.workspace.parents()] == ["RESOLVED"]


def test_a_channel_by_its_name_is_changed_by_its_id(bot, firing, resolved):
    bot.restart("#oncall")
    bot.deliver(firing("a"))
    bot.deliver(resolved("b"))
    assert [state_of(message) for message in bot.workspace.parents()] == ["RESOLVED"]


def test_a_notice_that_was_told_is_not_told_twice(bot, firing):
    bot.deliver(firing("a"))
    bot.restart()
    bot.deliver(firing("a"))
    assert len(bot.workspace.calls) == 2


def test_the_next_attempt_goes_on_where_the_last_one_was(bot, firing):
    bot.faults += ["none", "too fast"]
    error = bot.fails(firing("a"))
    assert (error.reason, error.retry_after_seconds) == ("rate_limited", 30.0)
    bot.deliver(firing("a"))
    assert (len(bot.workspace.parents()), len(bot.workspace.replies())) == (1, 1)


@pytest.mark.parametrize("fault", ["no connection", "too fast"])
def test_what_was_certainly_not_posted_is_posted_without_a_word(bot, firing, fault):
    bot.faults += [fault]
    bot.fails(firing("a"))
    bot.deliver(firing("a"))
    [parent] = bot.workspace.parents()
    assert UNCERTAIN_REMARK not in parent.words()


@pytest.mark.parametrize("fault", ["lost answer", "half done", "broken", "killed after"])
class TestAPostWithoutAnAnswer:
    def attempt(self, bot, notification, fault):
        bot.faults += [fault]
        with pytest.raises((DeliveryError, Killed)):
            bot.deliver(notification)
        bot.restart()

    def test_is_posted_anew_which_says_so_and_the_new_one_changes(self, bot, firing, resolved, fault):
        self.attempt(bot, firing("a"), fault)
        bot.deliver(firing("a"))
        copy, parent = bot.workspace.parents()
        assert UNCERTAIN_REMARK in parent.words()
        bot.deliver(resolved("b"))
        assert [state_of(message) for message in bot.workspace.parents()] == ["FIRING", "RESOLVED"]
        assert UNCERTAIN_REMARK in parent.words()
        assert copy.edits == 0

    def test_is_found_where_the_app_may_read_the_channel(self, firing, resolved, fault):
        bot = Bot(scopes={"chat:write", "channels:history"})
        self.attempt(bot, firing("a"), fault)
        bot.deliver(firing("a"))
        [parent] = bot.workspace.parents()
        assert UNCERTAIN_REMARK not in parent.words()
        bot.deliver(resolved("b"))
        assert [state_of(message) for message in bot.workspace.parents()] == ["RESOLVED"]

    def test_is_found_by_the_next_notice_if_its_own_was_given_up(self, firing, resolved, fault):
        bot = Bot(scopes={"chat:write", "channels:history"})
        self.attempt(bot, firing("a"), fault)
        bot.deliver(resolved("b"))
        assert [state_of(message) for message in bot.workspace.parents()] == ["RESOLVED"]


def test_what_was_found_stays_found_though_the_next_answer_is_lost_too(firing):
    bot = Bot(scopes={"chat:write", "channels:history"})
    bot.faults += ["lost answer"]
    bot.fails(firing("a"))  # given up
    bot.faults += ["none", "lost answer"]
    bot.fails(firing("b"))  # found and changed: it is not to be known by the first notice any more
    bot.restart()
    bot.deliver(firing("b"))
    assert len(bot.workspace.parents()) == 1


def test_a_request_that_was_lost_leaves_one_message(firing):
    bot = Bot(scopes={"chat:write", "channels:history"})
    bot.faults += ["lost request"]
    bot.fails(firing("a"))
    bot.deliver(firing("a"))
    assert [UNCERTAIN_REMARK in message.words() for message in bot.workspace.parents()] == [True]


@pytest.mark.parametrize("error", ["message_not_found", "cant_update_message", "edit_window_closed"])
def test_a_message_that_can_be_changed_no_more_is_continued_by_another(bot, firing, resolved, error):
    bot.deliver(firing("a"))
    [old] = bot.workspace.parents()
    if error == "message_not_found":
        bot.workspace.messages.clear()
    else:
        bot.workspace.errors["chat.update"] = [error]
    bot.deliver(firing("b", reason="repeat"))
    new = bot.workspace.parents()[-1]
    assert new is not old
    assert CONTINUED_REMARK in new.words()
    bot.deliver(resolved("c"))
    assert state_of(new) == "RESOLVED"


def test_a_message_that_goes_while_it_is_answered_is_continued_at_the_next_attempt(bot, firing):
    bot.deliver(firing("a"))
    bot.workspace.errors["chat.postMessage"] = ["message_not_found"]
    assert bot.fails(firing("b", reason="repeat")).retryable
    bot.workspace.messages.clear()
    bot.deliver(firing("b", reason="repeat"))
    [parent] = bot.workspace.parents()
    assert CONTINUED_REMARK in parent.words()
    assert len(bot.workspace.replies()) == 1


def test_where_no_thread_is_allowed_the_message_takes_the_details(bot, firing):
    bot.workspace.errors["chat.postMessage"] = []
    bot.deliver(firing("a"))
    [parent] = bot.workspace.parents()
    parent.can_be_replied_to = False
    bot.deliver(firing("b", reason="repeat"))
    assert "host web-1, rule outbound-connection-storm" in parent.words()


def test_another_channel_in_the_configuration_leaves_no_message_firing_behind(bot, firing, resolved):
    bot.deliver(firing("a"))
    bot.restart("elsewhere")
    bot.deliver(firing("b", reason="repeat"))
    old, new = bot.workspace.parents()
    assert (old.text, old.blocks, old.channel) == (MOVED_TEXT, [], CHANNEL)
    assert new.channel != CHANNEL
    bot.deliver(resolved("c"))
    assert state_of(new) == "RESOLVED"


@pytest.mark.parametrize("error", ["invalid_blocks", "msg_blocks_too_long", "msg_too_long", "invalid_blocks_format"])
def test_what_slack_does_not_like_the_look_of_is_said_in_bare_words(bot, firing, resolved, error):
    bot.workspace.errors["chat.postMessage"] = [error]
    bot.deliver(firing("a"))
    [parent] = bot.workspace.parents()
    assert parent.text.startswith("🔴 [FIRING] critical: crawler opens 612/s connections (limit 500/s)")
    assert parent.blocks == []
    bot.workspace.errors["chat.update"] = [error]
    bot.deliver(resolved("b"))
    assert (state_of(parent), parent.blocks) == ("RESOLVED", [])


@pytest.mark.parametrize(
    ("error", "reason", "retryable", "text"),
    [
        ("ratelimited", "rate_limited", True, "slack.com answered 429"),
        ("rate_limited", "rate_limited", True, "slack.com: rate_limited"),
        ("token_revoked", "auth", False, "slack.com: token_revoked: Slack does not accept the token: create a new one"),
        ("invalid_auth", "auth", False, "slack.com: invalid_auth: Slack does not accept the token: create a new one"),
        ("not_in_channel", "client_error", True, "slack.com: not_in_channel: invite the app to the channel"),
        (
            "channel_not_found",
            "client_error",
            True,
            "slack.com: channel_not_found: no such channel, or a private one: invite the app to the channel",
        ),
        ("is_archived", "client_error", True, "slack.com: is_archived: the channel is archived"),
        ("missing_scope", "client_error", True, "slack.com: missing_scope: add the scope chat:write to the app"),
        ("service_unavailable", "server_error", True, "slack.com: service_unavailable"),
        ("internal_error", "server_error", True, "slack.com: internal_error"),
        ("something_new", "client_error", False, "slack.com: something_new"),
        ("xoxb-secret <script>", "client_error", False, "slack.com: unknown error"),
    ],
)
def test_slacks_word_says_whether_trying_again_can_help(bot, firing, error, reason, retryable, text):
    bot.workspace.errors["chat.postMessage"] = [error]
    caught = bot.fails(firing("a"))
    assert (caught.reason, caught.retryable, str(caught)) == (reason, retryable, text)
    if error == "ratelimited":
        assert caught.retry_after_seconds == 30.0


def test_an_answer_that_is_not_slacks_is_worth_another_try(bot, firing):
    bot.workspace.handle = lambda *_: (200, {}, b"<html>sign in</html>")
    error = bot.fails(firing("a"))
    assert (error.reason, error.retryable) == ("server_error", True)
    assert str(error) == "slack.com: the response is not from Slack"


def test_nothing_is_posted_that_could_not_be_remembered(bot, firing):
    bot.state.full = True
    error = bot.fails(firing("a"))
    assert (error.reason, error.retryable, bot.workspace.calls) == ("socket", True, [])


def test_what_the_full_disk_does_not_take_is_known_while_the_process_lives(bot, firing, resolved):
    fill = bot.workspace.handle

    def and_then_the_disk_fills(*call):
        bot.state.full = True
        return fill(*call)

    bot.workspace.handle = and_then_the_disk_fills
    bot.deliver(firing("a"))
    bot.deliver(resolved("b"))
    assert [state_of(message) for message in bot.workspace.parents()] == ["RESOLVED"]


@pytest.mark.parametrize("stored", ["[1, 2]", "{}", '{"step": "unknown"}', "not JSON"])
def test_a_stored_state_that_is_not_readable_counts_as_none(bot, firing, stored):
    bot.state.put("message:outbound-connection-storm", stored)
    bot.deliver(firing("a"))
    assert len(bot.workspace.parents()) == 1


def test_the_stored_state_is_json_with_the_steps_as_text(bot, firing):
    bot.deliver(firing("a"))
    stored = json.loads(bot.state.get("message:outbound-connection-storm"))
    assert (stored["step"], stored["notification_id"], stored["configured_channel"]) == ("replied", "a" * 32, CHANNEL)


def test_calls_keep_a_second_apart(firing):
    now, slept = [100.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    workspace = Workspace(now=lambda: now[0], seconds_per_message=1.0, burst=1)
    endpoints = {method: Line(workspace, method, []) for method in API_METHODS}
    thread = SlackThread(SlackApi(endpoints, Secret(TOKEN), SlackThrottle(lambda: now[0], sleep)), CHANNEL)
    for identity in "abcde":
        thread.deliver(firing(identity, group_key=identity), VolatileReceiverState(), Deadline(10.0))
    assert len(workspace.messages) == 10
    assert slept == [1.0] * 9


def test_a_turn_that_comes_too_late_is_not_waited_for():
    pace = SlackThrottle(lambda: 100.0, lambda seconds: pytest.fail("slept"))
    pace.wait_for_turn(Deadline(10.0))
    with pytest.raises(DeliveryError) as caught:
        pace.wait_for_turn(Deadline(0.5))
    assert (caught.value.reason, caught.value.retryable, caught.value.retry_after_seconds) == (
        "rate_limited",
        True,
        1.0,
    )


def test_hostile_names_stay_inside_every_limit_and_mention_nobody(bot, hostile_notification):
    bot.deliver(hostile_notification)
    assert (len(bot.workspace.parents()), len(bot.workspace.replies())) == (1, 1)
    assert all(message.blocks for message in bot.workspace.messages)  # none was refused for its form


FAULTS = st.sampled_from(
    ["none"] * 3
    + [
        "no connection",
        "lost request",
        "lost answer",
        "half done",
        "broken",
        "too fast",
        "killed before",
        "killed after",
    ]
)


@settings(max_examples=200, deadline=None)
@given(
    episodes=st.lists(st.lists(st.booleans(), min_size=2, max_size=4), min_size=1, max_size=3),
    faults=st.lists(FAULTS, max_size=25),
    may_read=st.booleans(),
)
def test_whatever_breaks_every_notice_is_told_and_no_message_fires_for_ever(episodes, faults, may_read):
    """Each episode is a list of notices, the last one of the end; True: given up when it can't be told at once."""
    bot = Bot(scopes={"chat:write", "channels:history"} if may_read else {"chat:write"})
    bot.faults += faults
    told = []
    for number, notifications in enumerate(episodes):
        for step, given_up in enumerate(notifications):
            over = step == len(notifications) - 1
            notification = _notice(f"{number}-{step}", over=over)
            for _ in range(1 if given_up and not over else len(faults) + 1):
                try:
                    bot.deliver(notification)
                except DeliveryError:
                    continue
                except Killed:
                    bot.restart()
                    continue
                told.append(notification.id)
                assert state_of(bot.workspace.parents()[-1]) == ("RESOLVED" if over else "FIRING")
                assert over or any(notification.id in words for words in bot.workspace.rung)
                break
            else:
                assert given_up
    shown = "\n".join(message.words() for message in bot.workspace.messages)
    assert [identity for identity in told if identity not in shown] == []
    parents = bot.workspace.parents()
    for index, parent in enumerate(parents):
        if state_of(parent) == "FIRING":  # a copy: a later one says that it is, and only where we may not look
            assert not may_read
            assert UNCERTAIN_REMARK in parents[index + 1].words()


@pytest.mark.parametrize("fault", ["lost answer", "killed after"])
def test_an_end_that_was_given_up_is_not_what_the_next_alert_edits(firing, resolved, fault):
    bot = Bot(scopes={"chat:write", "channels:history"})
    bot.faults += [fault]  # of an alert that fired and resolved before anybody was told
    with pytest.raises((DeliveryError, Killed)):
        bot.deliver(resolved("a"))
    bot.restart()
    bot.deliver(firing("b"))
    assert [state_of(message) for message in bot.workspace.parents()] == ["RESOLVED", "FIRING"]


def _notice(identity: str, *, over: bool) -> Notification:
    document = {
        "rule": "storm",
        "labels": [["process", "crawler"]],
        "fingerprint": "0" * 16,
        "state": "resolved" if over else "firing",
        "severity": Severity.WARNING,
        "summary": "crawler",
        "value": 1.0,
        "threshold": 1.0,
        "peak": 1.0,
        "started": 1.0,
        "fired": 1.0,
        "resolved": 2.0 if over else None,
        "reason": "",
        "receivers": None,
        "runbook": None,
        "format": "rate",
    }
    reason = NotificationReason.RESOLVED if over else NotificationReason.REPEAT
    return Notification(identity, "oncall", "storm", reason, (Alert.from_json(document),), 3.0, "web-1")
