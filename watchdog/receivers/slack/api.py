"""Slack's Web API: calls of one method, and errors from its responses.

Slack answers almost every call with status 200; the field `ok` of the body holds the result. Source: docs.slack.dev,
"Using the Slack Web API", "Rate limits", and the pages of the methods.
"""

from __future__ import annotations

import json
import re
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError, DeliveryErrorReason, UncertainDeliveryError
from watchdog.receivers.transport import http
from watchdog.receivers.transport.deadline import Deadline

API_URL = "https://slack.com/api"
API_METHODS = ("chat.postMessage", "chat.update", "conversations.history")

MIN_MESSAGE_INTERVAL_SECONDS = 1.0  # "one message per second per channel"; the limit of chat.update is 50 a minute

_MAX_RESPONSE_BYTES = 1_048_576  # a hundred messages
_FORM_CONTENT = {"Content-Type": "application/x-www-form-urlencoded"}

_TRANSIENT_CODES = (
    "external_channel_migrating",
    "org_login_required",
    "request_timeout",
    "service_unavailable",
    "team_added_to_org",
    "update_failed",
)
# "It's possible some aspect of the operation succeeded before the error was raised."
_UNCERTAIN_CODES = ("fatal_error", "internal_error")
_NEW_TOKEN = "Slack does not accept the token: create a new one"
_AUTH_CODES = {
    "account_inactive": _NEW_TOKEN,
    "invalid_auth": _NEW_TOKEN,
    "not_allowed_token_type": "not a bot token: bot tokens begin with xoxb-",
    "not_authed": _NEW_TOKEN,
    "token_expired": _NEW_TOKEN,
    "token_revoked": _NEW_TOKEN,
    "ekm_access_denied": "the administrators of the workspace have suspended posting",
    "access_denied": "the workspace does not allow the app to post",
    "no_permission": "the workspace does not allow the app to post",
    "team_access_not_granted": "the token gives no access to this workspace",
}
# Somebody can correct these in Slack while the notification waits.
_CORRECTABLE_CODES = {
    "channel_not_found": "no such channel, or a private one: invite the app to the channel",
    "not_in_channel": "invite the app to the channel",
    "is_archived": "the channel is archived",
    "is_inactive": "the channel is archived",
    "missing_scope": "add the scope chat:write to the app",
    "restricted_action": "the workspace does not allow the app to post in this channel",
    "restricted_action_read_only_channel": "the channel is read-only for the app",
    "restricted_action_thread_only_channel": "the channel accepts replies in threads only",
}
_CODE_FORM = re.compile(r"[a-z_]{1,60}")


def encode_json(document: Mapping[str, Any]) -> bytes:
    """Return `document` as JSON in UTF-8, as Slack takes it."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def json_headers(notification_id: str) -> dict[str, str]:
    """Return the header fields of a POST of JSON about a notification."""
    return {"Content-Type": "application/json; charset=utf-8", "X-Notification-Id": notification_id}


class SlackApiError(DeliveryError):
    """Slack refused the call; `code` is the error code of its response."""

    def __init__(self, code: str, reason: DeliveryErrorReason, text: str, *, retryable: bool) -> None:
        """Keep Slack's error code."""
        super().__init__(reason, text, retryable=retryable)
        self.code = code


class SlackThrottle:
    """Limits calls to one per second."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Allow the first call at once."""
        self._clock = clock
        self._sleep = sleep
        self._next_call = clock()

    def wait_for_turn(self, deadline: Deadline) -> None:
        """Wait until the next call is allowed.

        Raises:
            DeliveryError: `rate_limited`, without waiting, if that is after the deadline.
        """
        wait_seconds = self._next_call - self._clock()
        if wait_seconds > deadline.remaining():
            raise DeliveryError(
                DeliveryErrorReason.RATE_LIMITED,
                "Slack allows one message per second",
                retryable=True,
                retry_after_seconds=wait_seconds,
            )
        if wait_seconds > 0:
            self._sleep(wait_seconds)
        self._next_call = max(self._clock(), self._next_call) + MIN_MESSAGE_INTERVAL_SECONDS


class SlackApi:
    """The methods of Slack's Web API that the receiver calls, with a bot token."""

    def __init__(self, endpoints: Mapping[str, http.Endpoint], token: Secret, throttle: SlackThrottle) -> None:
        """Call `endpoints`, one for each method of `API_METHODS`."""
        self._endpoints = endpoints
        self._token = token
        self._throttle = throttle
        self.host = endpoints[API_METHODS[0]].host

    def call_write(
        self, method: str, arguments: Mapping[str, Any], deadline: Deadline, notification_id: str = ""
    ) -> dict[str, Any]:
        """Post or update a message once the throttle allows it; return Slack's response.

        Raises:
            SlackApiError: Slack refused the call.
            UncertainDeliveryError: no usable response; Slack may have taken the message.
            DeliveryError: any other failure.
        """
        self._throttle.wait_for_turn(deadline)
        body = encode_json(arguments)
        return self._call(method, body, json_headers(notification_id), deadline)

    def call_read(self, method: str, arguments: Mapping[str, str], deadline: Deadline) -> dict[str, Any]:
        """Call a method that only reads; such methods take a form, not JSON. Raises the errors of `call_write`."""
        body = urllib.parse.urlencode(arguments).encode()
        return self._call(method, body, _FORM_CONTENT, deadline)

    def _call(self, method: str, body: bytes, content: Mapping[str, str], deadline: Deadline) -> dict[str, Any]:
        headers = {**content, "Authorization": f"Bearer {self._token.reveal()}"}
        response = self._endpoints[method].post(body, headers, deadline.remaining(), max_bytes=_MAX_RESPONSE_BYTES)
        if response.status >= 500:  # noqa: PLR2004 - RFC 9110 §15.6
            raise UncertainDeliveryError(
                DeliveryErrorReason.SERVER_ERROR,
                f"{self.host} answered {response.status}",
                retryable=True,
                retry_after_seconds=response.retry_after_seconds,
            )
        http.raise_for_status(response, self.host)
        result = response.json_object()
        if result is None:
            raise UncertainDeliveryError(
                DeliveryErrorReason.SERVER_ERROR, f"{self.host}: the response is not from Slack", retryable=True
            )
        if result.get("ok") is not True:
            raise self._error_for_code(str(result.get("error")), response.retry_after_seconds)
        return result

    def _error_for_code(self, code: str, retry_after_seconds: float | None) -> DeliveryError:
        text = f"{self.host}: {code if _CODE_FORM.fullmatch(code) else 'unknown error'}"
        if code in {"ratelimited", "rate_limited"}:
            return DeliveryError(
                DeliveryErrorReason.RATE_LIMITED, text, retryable=True, retry_after_seconds=retry_after_seconds
            )
        if code in _UNCERTAIN_CODES:
            return UncertainDeliveryError(DeliveryErrorReason.SERVER_ERROR, text, retryable=True)
        if code in _TRANSIENT_CODES:
            return SlackApiError(code, DeliveryErrorReason.SERVER_ERROR, text, retryable=True)
        if code in _AUTH_CODES:
            return SlackApiError(code, DeliveryErrorReason.AUTH, f"{text}: {_AUTH_CODES[code]}", retryable=False)
        if code in _CORRECTABLE_CODES:
            return SlackApiError(
                code, DeliveryErrorReason.CLIENT_ERROR, f"{text}: {_CORRECTABLE_CODES[code]}", retryable=True
            )
        return SlackApiError(code, DeliveryErrorReason.CLIENT_ERROR, text, retryable=False)
