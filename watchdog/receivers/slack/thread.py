"""One Slack message per notification group, updated from firing to resolved, with the details in its thread.

A restart must not lose which message belongs to a group. So each step is stored before the next one is taken:
`posting` before a message is posted, `posted` with Slack's identifiers after it, `replied` once the thread has its
reply (`lost` if the message turns out to be gone by then).
A stored `posting` means that a message may exist whose identifiers never arrived. The channel is searched for it; if it
is not found, a new message is posted with a remark, and only the new one is updated from then on. Slack documents no
way to post a message exactly once.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Self

from watchdog.errors import DeliveryError, DeliveryErrorReason, StoreError, UncertainDeliveryError
from watchdog.receivers.base import ReceiverState
from watchdog.receivers.slack import message as slack_message
from watchdog.receivers.slack.api import SlackApi, SlackApiError
from watchdog.receivers.transport.deadline import Deadline
from watchdog.routing.notification import DIGEST_GROUP_KEY, Notification, NotificationReason

UNCERTAIN_REMARK = "posted again: an earlier attempt got no answer; if there are two copies, only this one is updated"
CONTINUED_REMARK = "continues an earlier message, which is not updated any more"
MOVED_TEXT = "\N{RIGHTWARDS ARROW} continued in another channel"

# The message cannot be changed: deleted, too old by the workspace's settings, or in a channel closed to the app.
_MESSAGE_LOST_CODES = (
    "cant_update_message",
    "edit_window_closed",
    "is_inactive",
    "message_not_found",
    "channel_not_found",
)
# Slack refuses the layout: text without blocks is better than no message.
_LAYOUT_ERROR_CODES = (
    "block_mismatch",
    "invalid_arguments",
    "invalid_blocks",
    "invalid_blocks_format",
    "msg_blocks_too_long",
    "msg_too_long",
    "no_text",
)
_TIMESTAMP = re.compile(r"[0-9]{1,20}\.[0-9]{1,20}")  # docs.slack.dev, "chat.postMessage": "1503435956.000247"
_CHANNEL_ID = re.compile(r"[CDG][A-Z0-9]{6,}")
_CLOCK_TOLERANCE_SECONDS = 3_600.0  # the host's clock may differ from Slack's
_MAX_SEARCHED_MESSAGES = "100"


class MessageStep(StrEnum):
    """The last step taken for the message of a group; part of the stored JSON."""

    POSTING = "posting"
    POSTED = "posted"
    REPLIED = "replied"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class SlackMessageState:
    """The message of a group and the last step taken for it.

    `notification_id`: the notification that it was last posted or updated for. `configured_channel`: the channel as
    the configuration names it. `channel_id`, `ts`: Slack's identifiers of the message, empty until Slack has answered.
    `is_resolved`: all alerts are resolved, so the next alert gets a new message. `is_edited`: the message was updated
    for this notification, not posted. `posted_at`: wall clock in seconds. `remark`: the remark in the message's last
    line.
    """

    notification_id: str
    step: MessageStep
    configured_channel: str
    channel_id: str = ""
    ts: str = ""
    is_resolved: bool = False
    is_edited: bool = False
    posted_at: float = 0.0
    remark: str = ""

    @classmethod
    def from_json(cls, text: str | None) -> Self | None:
        """Return the stored state; None if there is none or it is not readable."""
        try:
            return None if text is None else cls._from_fields(json.loads(text))
        except (KeyError, TypeError, ValueError):
            return None

    @classmethod
    def _from_fields(cls, fields: Mapping[str, Any]) -> Self:
        return cls(**{**fields, "step": MessageStep(fields["step"])})

    def is_posted_for(self, notification: Notification) -> bool:
        """Return whether the message already shows `notification`."""
        return self.notification_id == notification.id and self.step in (MessageStep.POSTED, MessageStep.REPLIED)


class SlackThread:
    """Delivers notifications to one channel: one message per group, with a thread."""

    def __init__(self, api: SlackApi, channel: str) -> None:
        """Post to `channel`, an id or a name."""
        self._api = api
        self._channel = channel
        self._latest: dict[str, SlackMessageState] = {}  # states that a full disk refused; lost when the process ends

    def deliver(self, notification: Notification, store: ReceiverState, deadline: Deadline) -> None:
        """Take every step that `notification` still needs.

        Raises:
            DeliveryError: a step failed; called again with the same notification, it continues at that step.
        """
        state = self._load(notification, store)
        if state is None or not state.is_posted_for(notification):
            state = self._post_or_update(notification, state, store, deadline)
            self._save_or_cache(notification, state, store)
        if state.step is MessageStep.POSTED:
            try:
                self._reply(notification, state, deadline)
            except SlackApiError as error:
                if error.code not in _MESSAGE_LOST_CODES:
                    raise
                self._save_or_cache(notification, replace(state, step=MessageStep.LOST), store)
                raise DeliveryError(error.reason, str(error), retryable=True) from None
            self._save_or_cache(notification, replace(state, step=MessageStep.REPLIED), store)

    def _post_or_update(
        self, notification: Notification, previous: SlackMessageState | None, store: ReceiverState, deadline: Deadline
    ) -> SlackMessageState:
        """Update the group's message to `notification`, or post a new one; return its new state."""
        remark, state = "", previous
        if previous is not None and previous.step is MessageStep.POSTING:
            state = self._find_in_history(previous, deadline)
            if state is None:
                remark = UNCERTAIN_REMARK
            else:
                previous = state
                # Store Slack's identifiers now: the update replaces the block id by which the message was found.
                self._save_or_cache(notification, state, store)
        if state is not None and (not state.is_resolved or state.notification_id == notification.id):
            if state.configured_channel != self._channel:
                self._mark_as_moved(state, deadline)
            elif self._update(notification, state, deadline):
                return replace(
                    state,
                    notification_id=notification.id,
                    step=MessageStep.POSTED,
                    is_resolved=notification.status == "resolved",
                    is_edited=True,
                )
            remark = CONTINUED_REMARK
        return self._post(notification, previous, remark, store, deadline)

    def _post(
        self,
        notification: Notification,
        previous: SlackMessageState | None,
        remark: str,
        store: ReceiverState,
        deadline: Deadline,
    ) -> SlackMessageState:
        state = SlackMessageState(
            notification.id,
            MessageStep.POSTING,
            self._channel,
            is_resolved=notification.status == "resolved",
            posted_at=time.time(),
            remark=remark,
        )
        self._save(notification, state, store)
        target = {"channel": self._channel}
        try:
            response = self._send("chat.postMessage", target, notification, deadline, brief=True, remark=remark)
        except DeliveryError as error:
            if not isinstance(error, UncertainDeliveryError):  # certainly not posted: the previous state holds
                self._restore(notification, previous, store)
            raise
        channel_id, ts = str(response.get("channel")), str(response.get("ts"))
        if not (_CHANNEL_ID.fullmatch(channel_id) and _TIMESTAMP.fullmatch(ts)):  # it may be posted: search for it
            raise UncertainDeliveryError(
                DeliveryErrorReason.SERVER_ERROR, f"{self._api.host}: the response is not from Slack", retryable=True
            )
        return replace(state, step=MessageStep.POSTED, channel_id=channel_id, ts=ts)

    def _mark_as_moved(self, state: SlackMessageState, deadline: Deadline) -> None:
        """Replace the message in the previous channel by a pointer to the new one."""
        target = {"channel": state.channel_id, "ts": state.ts}
        with contextlib.suppress(SlackApiError):
            self._api.call_write("chat.update", {**target, "text": MOVED_TEXT, "blocks": []}, deadline)

    def _update(self, notification: Notification, state: SlackMessageState, deadline: Deadline) -> bool:
        """Update the message; return False if Slack does not let it be changed any more."""
        try:
            target = {"channel": state.channel_id, "ts": state.ts}
            self._send("chat.update", target, notification, deadline, brief=True, remark=state.remark)
        except SlackApiError as error:
            if error.code not in _MESSAGE_LOST_CODES:
                raise
            return False
        return True

    def _reply(self, notification: Notification, state: SlackMessageState, deadline: Deadline) -> None:
        # An update makes no sound on a phone. A reply that is broadcast to the channel does: for alerts still firing.
        is_broadcast = (
            state.is_edited
            and notification.status == "firing"
            and notification.reason is not NotificationReason.RESOLVED
        )
        broadcast = {"reply_broadcast": True} if is_broadcast else {}
        target = {"channel": state.channel_id, "thread_ts": state.ts, **broadcast}
        try:
            self._send("chat.postMessage", target, notification, deadline)
        except SlackApiError as error:
            if error.retryable or error.code in _MESSAGE_LOST_CODES:
                raise
            # The channel allows no thread: the details go into the message itself.
            target = {"channel": state.channel_id, "ts": state.ts}
            self._send("chat.update", target, notification, deadline, remark=state.remark)

    def _send(
        self,
        method: str,
        target: Mapping[str, Any],
        notification: Notification,
        deadline: Deadline,
        *,
        brief: bool = False,
        remark: str = "",
    ) -> dict[str, Any]:
        message = slack_message.build_message(notification, brief=brief, remark=remark)
        options: dict[str, Any] = {"parse": "none"}  # the default of chat.update turns names into links
        if method == "chat.postMessage":
            options |= {"unfurl_links": False, "unfurl_media": False}
        try:
            return self._api.call_write(method, {**target, **options, **message}, deadline, notification.id)
        except SlackApiError as error:
            if error.code not in _LAYOUT_ERROR_CODES:
                raise
            plain = slack_message.without_blocks(message)
            return self._api.call_write(method, {**target, **options, **plain}, deadline, notification.id)

    def _find_in_history(self, state: SlackMessageState, deadline: Deadline) -> SlackMessageState | None:
        """Search the channel for the message of an uncertain post; None if it is not found or the app may not read."""
        if not _CHANNEL_ID.fullmatch(state.configured_channel):
            return None  # conversations.history takes ids only
        arguments = {
            "channel": state.configured_channel,
            "oldest": f"{max(0.0, state.posted_at - _CLOCK_TOLERANCE_SECONDS):.6f}",
            "limit": _MAX_SEARCHED_MESSAGES,
        }
        try:
            response = self._api.call_read("conversations.history", arguments, deadline)
        except SlackApiError as error:
            if error.retryable and error.reason is DeliveryErrorReason.SERVER_ERROR:
                raise
            return None
        block_id = slack_message.block_id(state.notification_id)
        for message in _dicts(response.get("messages")):
            channel_id, ts = state.configured_channel, str(message.get("ts"))
            is_ours = any(block.get("block_id") == block_id for block in _dicts(message.get("blocks")))
            if is_ours and _TIMESTAMP.fullmatch(ts):
                return replace(state, step=MessageStep.POSTED, channel_id=channel_id, ts=ts)
        return None

    def _load(self, notification: Notification, store: ReceiverState) -> SlackMessageState | None:
        key = _key(notification)
        if key in self._latest:
            return self._latest[key]
        try:
            return SlackMessageState.from_json(store.get(key))
        except StoreError as error:
            raise DeliveryError(
                DeliveryErrorReason.SOCKET,
                f"cannot read the stored state of the Slack message: {error}",
                retryable=True,
            ) from None

    def _save(self, notification: Notification, state: SlackMessageState, store: ReceiverState) -> None:
        """Write `state` to disk, before the message is posted.

        Raises:
            DeliveryError: the disk refused it, so nothing may be posted.
        """
        try:
            store.put(_key(notification), json.dumps(asdict(state)))
        except StoreError as error:
            raise DeliveryError(
                DeliveryErrorReason.SOCKET,
                f"cannot store the state of the Slack message, nothing was posted: {error}",
                retryable=True,
            ) from None
        self._latest.pop(_key(notification), None)

    def _save_or_cache(self, notification: Notification, state: SlackMessageState, store: ReceiverState) -> None:
        """Keep a step that Slack has already taken: on disk, or in this process if the disk is full."""
        self._latest[_key(notification)] = state
        with contextlib.suppress(DeliveryError):
            self._save(notification, state, store)

    def _restore(self, notification: Notification, previous: SlackMessageState | None, store: ReceiverState) -> None:
        if previous is not None:
            self._save_or_cache(notification, previous, store)
            return
        with contextlib.suppress(StoreError):  # the next attempt then treats the post as uncertain, which is safe
            store.put(_key(notification), None)


def _key(notification: Notification) -> str:
    # Each digest combines other groups, so each gets its own message.
    is_digest = notification.group_key == DIGEST_GROUP_KEY
    subject = f"{DIGEST_GROUP_KEY}{notification.id}" if is_digest else notification.group_key
    return f"message:{'test:' if notification.is_test else ''}{subject}"


def _dicts(elements: object) -> list[dict[str, Any]]:
    return [element for element in elements if isinstance(element, dict)] if isinstance(elements, list) else []
