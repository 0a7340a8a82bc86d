"""Slack: an incoming webhook, or a bot that updates one message per notification group.

Source: docs.slack.dev, "Sending messages using incoming webhooks", and the pages named in `message`, `api` and
`thread`.
"""

from __future__ import annotations

import re
from typing import ClassVar, Self

from watchdog.config.document import Table
from watchdog.config.secrets import Secret
from watchdog.receivers.base import Receiver, ReceiverOptions
from watchdog.receivers.slack import message as slack_message
from watchdog.receivers.slack.api import API_METHODS, API_URL, SlackApi, SlackThrottle, encode_json, json_headers
from watchdog.receivers.slack.thread import SlackThread
from watchdog.receivers.transport import http
from watchdog.receivers.transport.deadline import Deadline
from watchdog.receivers.transport.http_headers import has_login
from watchdog.routing.notification import Notification

_REMOVED = ": the webhook was removed or disabled: create a new one"
_LAYOUT_REFUSED = ": Slack refuses the layout of the message: please report this"
_HINTS = {
    b"no_service": _REMOVED,
    b"no_service_id": _REMOVED,
    b"no_active_hooks": _REMOVED,
    b"no_team": _REMOVED,
    b"team_disabled": _REMOVED,
    b"invalid_token": _REMOVED,
    b"user_not_found": _REMOVED,
    b"channel_not_found": ": the channel of the webhook does not exist any more: create a new webhook",
    b"channel_is_archived": ": the channel of the webhook is archived",
    b"action_prohibited": ": an administrator of the workspace does not allow this webhook",
    b"posting_to_general_channel_denied": ": the workspace does not allow webhooks to post to its general channel",
    b"invalid_payload": _LAYOUT_REFUSED,
    b"invalid_blocks": _LAYOUT_REFUSED,
    b"msg_blocks_too_long": _LAYOUT_REFUSED,
}


class Slack(Receiver):
    """Posts each notification as one message to an incoming webhook, or as a bot in one thread per group."""

    type: ClassVar[str] = "slack"

    def __init__(
        self,
        name: str,
        backend: http.Endpoint | SlackThread,
        destination_name: str = "",
        throttle: SlackThrottle | None = None,
        options: ReceiverOptions | None = None,
    ) -> None:
        """Post to `backend`: the endpoint of an incoming webhook, or a bot's threads.

        `destination_name`: host and channel for logs; by default the host of the webhook.
        """
        super().__init__(name, options)
        self._backend = backend
        self.joins_copies = isinstance(backend, SlackThread)  # which searches the channel for its message
        self._destination_name = destination_name or (backend.host if isinstance(backend, http.Endpoint) else "")
        self._throttle = throttle or SlackThrottle()

    @classmethod
    def from_table(cls, name: str, table: Table, options: ReceiverOptions | None = None) -> Self:
        """Read `webhook_url`, or `bot_token` and `channel`; secrets in any of their forms."""
        bot = table.given_form("bot_token")
        if bot is None:
            return cls(name, http.endpoint_from_table(table, "webhook_url"), options=options)
        if (hook := table.given_form("webhook_url")) is not None:
            table.add_problem(hook, f"give either a webhook_url or a {bot}")
        token = table.secret("bot_token") or Secret("")
        if not re.fullmatch(r"[!-~]*", token.reveal()):  # the token is sent in a header field
            table.add_problem(bot, "not a Slack token: it must be printable ASCII without spaces")
        channel, throttle = table.text("channel"), SlackThrottle()
        api = SlackApi(_endpoints_from_table(table), token, throttle)
        return cls(name, SlackThread(api, channel), f"{api.host}, channel {channel}", throttle, options)

    def render(self, notification: Notification) -> bytes:
        """Return the message as JSON; for a bot the message in the channel, then the reply in its thread."""
        return b"\n".join(map(encode_json, self._messages(notification)))

    def send(self, notification: Notification, deadline_seconds: float) -> None:
        """Post; delivered means the text `ok` from a webhook, or `"ok": true` for each message of a bot.

        Raises:
            DeliveryError: Slack refused the message or did not answer.
        """
        deadline = Deadline(deadline_seconds)
        if isinstance(self._backend, SlackThread):
            self._backend.deliver(notification, self.state, deadline)
            return
        self._throttle.wait_for_turn(deadline)
        headers = json_headers(notification.id)
        response = self._backend.post(self.render(notification), headers, deadline.remaining())
        http.raise_for_status(response, self._backend.host, _HINTS.get(response.body.strip(), ""))
        if response.body.strip() != b"ok":
            raise http.undocumented_answer(self._backend.host, response.status, 'Slack\'s "ok"')

    def limit_usage(self, notification: Notification) -> list[str]:
        """Return characters and blocks of each message, with their limits."""
        return [slack_message.describe_size(message) for message in self._messages(notification)]

    def destination(self) -> str:
        """Return the host, for a bot also the channel."""
        return f"Slack {self._destination_name}"

    def _messages(self, notification: Notification) -> list[slack_message.JsonObject]:
        if isinstance(self._backend, SlackThread):
            return [slack_message.build_message(notification, brief=True), slack_message.build_message(notification)]
        return [slack_message.build_message(notification)]


def _endpoints_from_table(table: Table) -> dict[str, http.Endpoint]:
    transport = http.http_transport_from_table(table)
    url = table.url_with_login("api_url", API_URL)
    base, key = url.reveal().rstrip("/"), table.given_form("api_url") or "api_url"
    if has_login(url):
        table.add_problem(key, "must have no login: the bot logs in with its token")
    return {method: http.endpoint_from_url(table, key, Secret(f"{base}/{method}"), transport) for method in API_METHODS}
