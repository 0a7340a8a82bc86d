"""Slack: an incoming webhook, or a bot that keeps one message per group up to date.

Source: docs.slack.dev, "Sending messages using incoming webhooks", and what `slack_message`, `slack_api` and
`slack_thread` name.
"""

from __future__ import annotations

import json
import re
from typing import ClassVar, Self

from watchdog.config.document import Table
from watchdog.config.secrets import Secret
from watchdog.receivers.base import Receiver, ReceiverOptions
from watchdog.receivers.slack import message as slack_message
from watchdog.receivers.slack.api import API_METHODS, API_URL, SlackApi, SlackThrottle
from watchdog.receivers.slack.thread import SlackThread
from watchdog.receivers.transport import http
from watchdog.receivers.transport.deadline import Deadline
from watchdog.routing.notification import Notification

_GONE = ": the webhook has been removed or disabled, make a new one"
_REFUSED = ": Slack refuses the message's form, please report this"
_HINTS = {
    b"no_service": _GONE,
    b"no_service_id": _GONE,
    b"no_active_hooks": _GONE,
    b"no_team": _GONE,
    b"team_disabled": _GONE,
    b"invalid_token": _GONE,
    b"user_not_found": _GONE,
    b"channel_not_found": ": the webhook's channel is gone, make a new webhook",
    b"channel_is_archived": ": the webhook's channel is archived",
    b"action_prohibited": ": an administrator of the workspace does not allow this webhook",
    b"posting_to_general_channel_denied": ": the workspace does not let webhooks post to its general channel",
    b"invalid_payload": _REFUSED,
    b"invalid_blocks": _REFUSED,
    b"msg_blocks_too_long": _REFUSED,
}


class Slack(Receiver):
    """Posts to an incoming webhook each notice as one message, or has a bot tell it in a thread."""

    type: ClassVar[str] = "slack"

    def __init__(
        self,
        name: str,
        backend: http.Endpoint | SlackThread,
        destination_name: str = "",
        throttle: SlackThrottle | None = None,
        options: ReceiverOptions | None = None,
    ) -> None:
        """Post to an incoming webhook, or tell a thread at `host`."""
        super().__init__(name, options)
        self._way = backend
        self._host = destination_name or (backend.host if isinstance(backend, http.Endpoint) else "")
        self._pace = throttle or SlackThrottle()

    @classmethod
    def from_table(cls, name: str, table: Table, options: ReceiverOptions | None = None) -> Self:
        """Read `webhook_url`, or `bot_token` and `channel` (secrets also in their other forms)."""
        bot = table.given_form("bot_token")
        if bot is None:
            return cls(name, http.endpoint_from_table(table, "webhook_url"), options=options)
        if (hook := table.given_form("webhook_url")) is not None:
            table.add_problem(hook, f"give either a webhook_url or a {bot}")
        token = table.secret("bot_token") or Secret("")
        if not re.fullmatch(r"[!-~]*", token.reveal()):  # a header takes nothing else
            table.add_problem(bot, "is no token of Slack's")
        channel, pace = table.text("channel"), SlackThrottle()
        api = SlackApi(_endpoints_from_table(table), token, pace)
        return cls(name, SlackThread(api, channel), f"{api.host}, channel {channel}", pace, options)

    def render(self, notification: Notification) -> bytes:
        """Return the message's JSON; of a bot the message of the channel, then the reply in its thread."""
        return b"\n".join(
            json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
            for message in self._messages(notification)
        )

    def send(self, notification: Notification, deadline_seconds: float) -> None:
        """Post it; a webhook's 2xx status, a bot's `"ok": true` to every message, say that Slack has it."""
        deadline = Deadline(deadline_seconds)
        if isinstance(self._way, SlackThread):
            self._way.deliver(notification, self.state, deadline)
            return
        self._pace.wait_for_turn(deadline)
        headers = {"Content-Type": "application/json; charset=utf-8", "X-Notification-Id": notification.id}
        answer = self._way.post(self.render(notification), headers, deadline.remaining())
        http.raise_for_status(answer, self._way.host, _HINTS.get(answer.body.strip(), ""))

    def limit_usage(self, notification: Notification) -> list[str]:
        """Return the characters and blocks of each message."""
        return [slack_message.describe_size(message) for message in self._messages(notification)]

    def destination(self) -> str:
        """Name the host, and the channel of a bot."""
        return f"Slack {self._host}"

    def _messages(self, notification: Notification) -> list[slack_message.JsonObject]:
        if isinstance(self._way, SlackThread):
            return [slack_message.build_message(notification, brief=True), slack_message.build_message(notification)]
        return [slack_message.build_message(notification)]


def _endpoints_from_table(table: Table) -> dict[str, http.Endpoint]:
    transport = http.http_transport_from_table(table)
    base = table.text("api_url", API_URL).rstrip("/")
    return {
        method: http.endpoint_from_url(table, "api_url", Secret(f"{base}/{method}"), transport)
        for method in API_METHODS
    }
