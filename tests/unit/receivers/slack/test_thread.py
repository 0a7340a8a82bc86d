"""One Slack message per group, updated from firing to resolved, despite faults of Slack, the network and the disk."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import factories
from slack_server import TOKEN, Workspace
from watchdog.alerts.alert import AlertState
from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError, DeliveryErrorReason, StoreError, UncertainDeliveryError
from watchdog.receivers.base import VolatileReceiverState
from watchdog.receivers.slack.api import API_METHODS, SlackApi, SlackThrottle
from watchdog.receivers.slack.thread import CONTINUED_REMARK, MOVED_TEXT, UNCERTAIN_REMARK, SlackThread
from watchdog.receivers.transport.deadline import Deadline
from watchdog.receivers.transport.http import Endpoint, HttpResponse, HttpTransport
from watchdog.receivers.transport.tls import host_tls_context
from watchdog.routing.notification import Notification, NotificationReason
from watchdog.rules.language.rule import Severity

CHANNEL = "C024BE91L"
TRANSPORT = HttpTransport(host_tls_context())


class Killed(BaseException):
    """Simulates that the process was killed."""


class FaultyEndpoint(Endpoint):
    """Passes calls to a fake workspace; each call takes the first of `faults` and fails in that way."""

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


class StateOnDisk(VolatileReceiverState):
    """Receiver state on a disk that is full while `is_disk_full` is set."""

    is_disk_full = False

    def put(self, key, value):
        if self.is_disk_full:
            raise StoreError("database or disk is full")
        super().put(key, value)


class Bot:
    """A `SlackThread` with a fake workspace, a faulty network and a state on disk; a restart keeps only the state."""

    def __init__(self, **workspace: object) -> None:
        self.workspace = Workspace(**workspace)
        self.state = StateOnDisk()
        self.faults: list[str] = []
        self.restart()

    def restart(self, channel: str = CHANNEL) -> None:
        endpoints = {method: FaultyEndpoint(self.workspace, method, self.faults) for method in API_METHODS}
        now = [0.0]

        def sleep(seconds: float) -> None:
            now[0] += seconds

        self.thread = SlackThread(SlackApi(endpoints, Secret(TOKEN), SlackThrottle(lambda: now[0], sleep)), channel)

    def deliver(self, notification: Notification) -> None:
        self.thread.deliver(notification, self.state, Deadline(10.0))

    def fail_to_deliver(self, notification: Notification) -> DeliveryError:
        with pytest.raises(DeliveryError) as caught:
            self.deliver(notification)
        return caught.value


@pytest.fixture
def bot() -> Bot:
    return Bot()


@pytest.fixture
def firing(make_alert, make_notification) -> Callable[..., Notification]:
    """Return a function that makes a firing notification with a given id."""

    def make(identity: str, *, severity=Severity.CRITICAL, **changes: object) -> Notification:
        return make_notification(make_alert(severity=severity), id=identity * 32, **changes)

    return make


@pytest.fixture
def resolved(make_alert, make_notification) -> Callable[..., Notification]:
    """Return a function that makes a resolved notification with a given id."""

    def make(identity: str, **changes: object) -> Notification:
        alert = make_alert(state=AlertState.RESOLVED, resolved=1_750_000_100.0)
        return make_notification(alert, id=identity * 32, reason="resolved", **changes)

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
def test_an_update_while_alerts_fire_is_broadcast_to_the_channel(bot, firing, resolved, reason):
    bot.deliver(firing("a"))
    bot.deliver(firing("b", reason=reason))
    bot.deliver(resolved("c"))
    assert [message.broadcast for message in bot.workspace.replies()] == [False, True, False]
    assert len(bot.workspace.parents()) == 1


def test_after_resolved_the_next_alert_of_a_rule_gets_a_new_message(bot, firing, resolved):
    for notification in (firing("a"), resolved("b"), firing("c"), resolved("d")):
        bot.deliver(notification)
    assert [state_of(message) for message in bot.workspace.parents()] == ["RESOLVED", "RESOLVED"]


def test_groups_and_test_notifications_have_separate_messages(bot, firing, resolved):
    bot.deliver(firing("a"))
    bot.deliver(firing("b", group_key="another-rule"))
    bot.deliver(firing("c", is_test=True))
    bot.deliver(resolved("d"))
    assert [state_of(message) for message in bot.workspace.parents()] == ["RESOLVED", "FIRING", "TEST"]


def test_after_a_restart_the_same_message_is_updated(bot, firing, resolved):
    bot.deliver(firing("a"))
    bot.restart()
    bot.deliver(resolved("b"))
    assert [state_of(message) for message in bot.workspace.parents()] == ["RESOLVED"]


def test_a_message_in_a_channel_given_by_name_is_updated_by_channel_id(bot, firing, resolved):
    bot.restart("#oncall")
    bot.deliver(firing("a"))
    bot.deliver(resolved("b"))
    assert [state_of(message) for message in bot.workspace.parents()] == ["RESOLVED"]


def test_a_delivered_notification_is_not_delivered_again(bot, firing):
    bot.deliver(firing("a"))
    bot.restart()
    bot.deliver(firing("a"))
    assert len(bot.workspace.calls) == 2


def test_the_next_attempt_continues_at_the_failed_step(bot, firing):
    bot.faults += ["none", "too fast"]
    error = bot.fail_to_deliver(firing("a"))
    assert (error.reason, error.retry_after_seconds) == ("rate_limited", 30.0)
    bot.deliver(firing("a"))
    assert (len(bot.workspace.parents()), len(bot.workspace.replies())) == (1, 1)


@pytest.mark.parametrize("fault", ["no connection", "too fast"])
def test_a_post_that_certainly_failed_is_repeated_without_a_remark(bot, firing, fault):
    bot.faults += [fault]
    bot.fail_to_deliver(firing("a"))
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

    def test_is_posted_again_with_a_remark_and_only_the_new_message_is_updated(self, bot, firing, resolved, fault):
        self.attempt(bot, firing("a"), fault)
        bot.deliver(firing("a"))
        copy, parent = bot.workspace.parents()
        assert UNCERTAIN_REMARK in parent.words()
        bot.deliver(resolved("b"))
        assert [state_of(message) for message in bot.workspace.parents()] == ["FIRING", "RESOLVED"]
        assert UNCERTAIN_REMARK in parent.words()
        assert copy.edits == 0

    def test_is_found_if_the_app_is_history_readable_the_channel(self, firing, resolved, fault):
        bot = Bot(scopes={"chat:write", "channels:history"})
        self.attempt(bot, firing("a"), fault)
        bot.deliver(firing("a"))
        [parent] = bot.workspace.parents()
        assert UNCERTAIN_REMARK not in parent.words()
        bot.deliver(resolved("b"))
        assert [state_of(message) for message in bot.workspace.parents()] == ["RESOLVED"]

    def test_is_found_by_the_next_notification_if_its_own_failed_for_good(self, firing, resolved, fault):
        bot = Bot(scopes={"chat:write", "channels:history"})
        self.attempt(bot, firing("a"), fault)
        bot.deliver(resolved("b"))
        assert [state_of(message) for message in bot.workspace.parents()] == ["RESOLVED"]


def test_a_found_message_stays_known_if_the_next_response_is_lost_too(firing):
    bot = Bot(scopes={"chat:write", "channels:history"})
    bot.faults += ["lost answer"]
    bot.fail_to_deliver(firing("a"))  # fails for good
    bot.faults += ["none", "lost answer"]
    bot.fail_to_deliver(firing("b"))  # found and updated: its block id is no longer that of the first notification
    bot.restart()
    bot.deliver(firing("b"))
    assert len(bot.workspace.parents()) == 1


def test_a_lost_request_leaves_one_message(firing):
    bot = Bot(scopes={"chat:write", "channels:history"})
    bot.faults += ["lost request"]
    bot.fail_to_deliver(firing("a"))
    bot.deliver(firing("a"))
    assert [UNCERTAIN_REMARK in message.words() for message in bot.workspace.parents()] == [True]


@pytest.mark.parametrize("error", ["message_not_found", "cant_update_message", "edit_window_closed"])
def test_a_message_that_cannot_be_updated_any_more_is_continued_by_a_new_one(bot, firing, resolved, error):
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


def test_a_message_deleted_before_its_reply_is_continued_at_the_next_attempt(bot, firing):
    bot.deliver(firing("a"))
    bot.workspace.errors["chat.postMessage"] = ["message_not_found"]
    assert bot.fail_to_deliver(firing("b", reason="repeat")).retryable
    bot.workspace.messages.clear()
    bot.deliver(firing("b", reason="repeat"))
    [parent] = bot.workspace.parents()
    assert CONTINUED_REMARK in parent.words()
    assert len(bot.workspace.replies()) == 1


def test_without_threads_the_message_contains_the_details(bot, firing):
    bot.workspace.errors["chat.postMessage"] = []
    bot.deliver(firing("a"))
    [parent] = bot.workspace.parents()
    parent.can_be_replied_to = False
    bot.deliver(firing("b", reason="repeat"))
    assert "host web-1, rule outbound-connection-storm" in parent.words()


def test_after_a_change_of_channel_no_message_stays_firing_in_the_old_one(bot, firing, resolved):
    bot.deliver(firing("a"))
    bot.restart("elsewhere")
    bot.deliver(firing("b", reason="repeat"))
    old, new = bot.workspace.parents()
    assert (old.text, old.blocks, old.channel) == (MOVED_TEXT, [], CHANNEL)
    assert new.channel != CHANNEL
    bot.deliver(resolved("c"))
    assert state_of(new) == "RESOLVED"


@pytest.mark.parametrize("error", ["invalid_blocks", "msg_blocks_too_long", "msg_too_long", "invalid_blocks_format"])
def test_a_refused_layout_is_sent_again_as_text(bot, firing, resolved, error):
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
def test_the_error_code_of_slack_decides_whether_to_retry(bot, firing, error, reason, retryable, text):
    bot.workspace.errors["chat.postMessage"] = [error]
    caught = bot.fail_to_deliver(firing("a"))
    assert (caught.reason, caught.retryable, str(caught)) == (reason, retryable, text)
    if error == "ratelimited":
        assert caught.retry_after_seconds == 30.0


def test_a_response_that_is_not_from_slack_is_retryable(bot, firing):
    bot.workspace.handle = lambda *_: (200, {}, b"<html>sign in</html>")
    error = bot.fail_to_deliver(firing("a"))
    assert (error.reason, error.retryable) == ("server_error", True)
    assert str(error) == "slack.com: the response is not from Slack"


def test_nothing_is_posted_if_the_state_cannot_be_stored(bot, firing):
    bot.state.is_disk_full = True
    error = bot.fail_to_deliver(firing("a"))
    assert (error.reason, error.retryable, bot.workspace.calls) == ("socket", True, [])


def test_a_state_refused_by_a_full_disk_is_kept_in_the_process(bot, firing, resolved):
    handle = bot.workspace.handle

    def fill_disk_and_handle(*call):
        bot.state.is_disk_full = True
        return handle(*call)

    bot.workspace.handle = fill_disk_and_handle
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


def test_calls_are_at_least_one_second_apart(firing):
    now, slept = [100.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    workspace = Workspace(now=lambda: now[0], seconds_per_message=1.0, burst=1)
    endpoints = {method: FaultyEndpoint(workspace, method, []) for method in API_METHODS}
    thread = SlackThread(SlackApi(endpoints, Secret(TOKEN), SlackThrottle(lambda: now[0], sleep)), CHANNEL)
    for identity in "abcde":
        thread.deliver(firing(identity, group_key=identity), VolatileReceiverState(), Deadline(10.0))
    assert len(workspace.messages) == 10
    assert slept == [1.0] * 9


def test_the_throttle_does_not_wait_beyond_the_deadline():
    throttle = SlackThrottle(lambda: 100.0, lambda seconds: pytest.fail("slept"))
    throttle.wait_for_turn(Deadline(10.0))
    with pytest.raises(DeliveryError) as caught:
        throttle.wait_for_turn(Deadline(0.5))
    assert (caught.value.reason, caught.value.retryable, caught.value.retry_after_seconds) == (
        "rate_limited",
        True,
        1.0,
    )


def test_hostile_names_stay_inside_every_limit_and_mention_no_user(bot, hostile_notification):
    bot.deliver(hostile_notification)
    assert (len(bot.workspace.parents()), len(bot.workspace.replies())) == (1, 1)
    assert all(message.blocks for message in bot.workspace.messages)  # Slack refused none for its layout


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
    is_history_readable=st.booleans(),
)
def test_with_any_faults_every_notification_is_delivered_and_no_message_stays_firing(
    episodes, faults, is_history_readable
):
    """Each episode is a list of notifications, the last one resolved; True: it fails for good at its first failure."""
    bot = Bot(scopes={"chat:write", "channels:history"} if is_history_readable else {"chat:write"})
    bot.faults += faults
    delivered_ids = []
    for number, notifications in enumerate(episodes):
        for step, fails_for_good in enumerate(notifications):
            is_resolved = step == len(notifications) - 1
            notification = _make_notification(f"{number}-{step}", is_resolved=is_resolved)
            for _ in range(1 if fails_for_good and not is_resolved else len(faults) + 1):
                try:
                    bot.deliver(notification)
                except DeliveryError:
                    continue
                except Killed:
                    bot.restart()
                    continue
                delivered_ids.append(notification.id)
                assert state_of(bot.workspace.parents()[-1]) == ("RESOLVED" if is_resolved else "FIRING")
                assert is_resolved or any(notification.id in words for words in bot.workspace.push_texts)
                break
            else:
                assert fails_for_good
    shown = "\n".join(message.words() for message in bot.workspace.messages)
    assert [identity for identity in delivered_ids if identity not in shown] == []
    parents = bot.workspace.parents()
    for index, parent in enumerate(parents):
        if state_of(parent) == "FIRING":  # a copy: the next message has the remark, and only without the scope to read
            assert not is_history_readable
            assert UNCERTAIN_REMARK in parents[index + 1].words()


@pytest.mark.parametrize("fault", ["lost answer", "killed after"])
def test_a_resolved_message_that_failed_for_good_is_not_edited_by_the_next_alert(firing, resolved, fault):
    bot = Bot(scopes={"chat:write", "channels:history"})
    bot.faults += [fault]  # of an alert that was resolved before its first notification
    with pytest.raises((DeliveryError, Killed)):
        bot.deliver(resolved("a"))
    bot.restart()
    bot.deliver(firing("b"))
    assert [state_of(message) for message in bot.workspace.parents()] == ["RESOLVED", "FIRING"]


def _make_notification(identity: str, *, is_resolved: bool) -> Notification:
    alert = factories.make_alert(resolved=1_750_000_100.0 if is_resolved else None)
    reason = NotificationReason.RESOLVED if is_resolved else NotificationReason.REPEAT
    return factories.make_notification(alert, id=identity, reason=reason)
