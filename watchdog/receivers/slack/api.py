"""Slack's Web API: one method called, its answer judged.

Slack answers 200 to nearly everything and says in the body whether it did as asked. Source: docs.slack.dev, "Using the
Slack Web API", "Rate limits", and the pages of the methods.
"""

from __future__ import annotations

import json
import re
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.receivers.transport import http
from watchdog.receivers.transport.deadline import Deadline

API_URL = "https://slack.com/api"
API_METHODS = ("chat.postMessage", "chat.update", "conversations.history")

MIN_MESSAGE_INTERVAL_SECONDS = (
    1.0  # "one message per second per channel"; chat.update alone would be allowed 50 a minute
)

_MOST_ANSWER_BYTES = 1_048_576  # a hundred messages

_TRANSIENT = (
    "external_channel_migrating",
    "org_login_required",
    "request_timeout",
    "service_unavailable",
    "team_added_to_org",
    "update_failed",
)
# "It's possible some aspect of the operation succeeded before the error was raised."
_HALF_DONE = ("fatal_error", "internal_error")
_NEW_TOKEN = "the token is not taken, make a new one"
_FORBIDDEN = {
    "account_inactive": _NEW_TOKEN,
    "invalid_auth": _NEW_TOKEN,
    "not_allowed_token_type": "the token is not a bot's: it begins with xoxb-",
    "not_authed": _NEW_TOKEN,
    "token_expired": _NEW_TOKEN,
    "token_revoked": _NEW_TOKEN,
    "ekm_access_denied": "the administrators have suspended posting",
    "access_denied": "the workspace does not allow it",
    "no_permission": "the workspace does not allow it",
    "team_access_not_granted": "the token is not for this workspace",
}
# What people can put right in Slack while we wait.
_CURABLE = {
    "channel_not_found": "no such channel, or a private one: invite the app to it",
    "not_in_channel": "invite the app to the channel",
    "is_archived": "the channel is archived",
    "is_inactive": "the channel is archived",
    "missing_scope": "give the app the scope chat:write",
    "restricted_action": "the workspace does not let the app post there",
    "restricted_action_read_only_channel": "the channel is read-only for the app",
    "restricted_action_thread_only_channel": "the channel takes threads only",
}
_CODE = re.compile(r"[a-z_]{1,60}")


class SlackApiError(DeliveryError):
    """Slack has understood, and said no; `code` is its word for why."""

    def __init__(self, code: str, reason: DeliveryErrorReason, text: str, *, retryable: bool) -> None:
        """Keep Slack's word."""
        super().__init__(reason, text, retryable=retryable)
        self.code = code


class SlackThrottle:
    """Lets one call a second go."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Let the first one go at once."""
        self._clock = clock
        self._sleep = sleep
        self._next = clock()

    def wait_for_turn(self, deadline: Deadline) -> None:
        """Wait for the next turn.

        Raises:
            DeliveryError: `rate_limited`, at once, if it comes after the deadline.
        """
        wait = self._next - self._clock()
        if wait > deadline.remaining():
            raise DeliveryError(
                DeliveryErrorReason.RATE_LIMITED,
                "Slack: one message a second",
                retryable=True,
                retry_after_seconds=wait,
            )
        if wait > 0:
            self._sleep(wait)
        self._next = max(self._clock(), self._next) + MIN_MESSAGE_INTERVAL_SECONDS


class SlackApi:
    """The methods that we call, with a bot's token."""

    def __init__(self, endpoints: Mapping[str, http.Endpoint], token: Secret, throttle: SlackThrottle) -> None:
        """Call `endpoints`, by method."""
        self._endpoints = endpoints
        self._token = token
        self._pace = throttle
        self.host = endpoints[API_METHODS[0]].host

    def call_write(
        self, method: str, arguments: Mapping[str, Any], deadline: Deadline, notification_id: str = ""
    ) -> dict[str, Any]:
        """Post or change a message when its turn has come; return Slack's answer.

        Raises:
            DeliveryError: with `SlackApiError` for Slack's own word, `http.Unanswered` where it may have done it all
            the
                same.
        """
        self._pace.wait_for_turn(deadline)
        body = json.dumps(arguments, ensure_ascii=False, separators=(",", ":")).encode()
        kind = {"Content-Type": "application/json; charset=utf-8", "X-Notification-Id": notification_id}
        return self._call(method, body, kind, deadline)

    def call_read(self, method: str, arguments: Mapping[str, str], deadline: Deadline) -> dict[str, Any]:
        """Read something; raises as `say`. Methods that only read take forms, not JSON."""
        body = urllib.parse.urlencode(arguments).encode()
        return self._call(method, body, {"Content-Type": "application/x-www-form-urlencoded"}, deadline)

    def _call(self, method: str, body: bytes, kind: dict[str, str], deadline: Deadline) -> dict[str, Any]:
        headers = {**kind, "Authorization": f"Bearer {self._token.reveal()}"}
        answer = self._endpoints[method].post(body, headers, deadline.remaining(), max_bytes=_MOST_ANSWER_BYTES)
        if answer.status >= 500:  # noqa: PLR2004 - RFC 9110 §15.6
            raise http.UncertainDeliveryError(
                DeliveryErrorReason.SERVER_ERROR,
                f"{self.host} answered {answer.status}",
                retryable=True,
                retry_after_seconds=answer.retry_after_seconds,
            )
        http.raise_for_status(answer, self.host)
        said = _read(answer.body)
        if said is None:
            raise http.UncertainDeliveryError(
                DeliveryErrorReason.SERVER_ERROR, f"{self.host}: the answer is not Slack's", retryable=True
            )
        if said.get("ok") is not True:
            raise self._refusal(str(said.get("error")), answer.retry_after_seconds)
        return said

    def _refusal(self, code: str, wait: float | None) -> DeliveryError:
        told = code if _CODE.fullmatch(code) else "an unknown error"
        text = f"{self.host}: {told}"
        if code in {"ratelimited", "rate_limited"}:
            return DeliveryError(DeliveryErrorReason.RATE_LIMITED, text, retryable=True, retry_after_seconds=wait)
        if code in _HALF_DONE:
            return http.UncertainDeliveryError(DeliveryErrorReason.SERVER_ERROR, text, retryable=True)
        if code in _TRANSIENT:
            return SlackApiError(code, DeliveryErrorReason.SERVER_ERROR, text, retryable=True)
        if code in _FORBIDDEN:
            return SlackApiError(code, DeliveryErrorReason.AUTH, f"{text}: {_FORBIDDEN[code]}", retryable=False)
        if code in _CURABLE:
            return SlackApiError(code, DeliveryErrorReason.CLIENT_ERROR, f"{text}: {_CURABLE[code]}", retryable=True)
        return SlackApiError(code, DeliveryErrorReason.CLIENT_ERROR, text, retryable=False)


def _read(body: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(body)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None
