"""One message per group of alerts that turns from firing to resolved, and a thread with the details under it.

What a restart must not lose is which message that is. It is written down in steps, on disk before the next is taken:
"posting" before a message is posted, "posted" with Slack's name for it after, "told" when the thread has its reply
("lost" if it turns out to be gone then).
Who finds "posting" knows that a message may be there whose name nobody has heard. It is looked for; where it can't be
found, a new one says so, and it is the new one that will change. Slack documents no way to post something once only.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from watchdog.errors import DeliveryError, DeliveryErrorReason, StoreError
from watchdog.receivers.base import ReceiverState
from watchdog.receivers.slack import message as slack_message
from watchdog.receivers.slack.api import SlackApi, SlackApiError
from watchdog.receivers.transport import http
from watchdog.receivers.transport.deadline import Deadline
from watchdog.routing.notification import DIGEST_GROUP_KEY, Notification, NotificationReason

UNCERTAIN_REMARK = (
    "posted anew: an earlier attempt had no answer; if there is a copy, this message is the one that changes"
)
CONTINUED_REMARK = "continues an earlier message, which is changed no more"
MOVED_TEXT = "\N{RIGHTWARDS ARROW} told in another channel from now on"

_SHOWN = ("posted", "told")

# The message is out of reach: gone, too old by the workspace's settings, or in a channel that is closed to us.
_LOST = ("cant_update_message", "edit_window_closed", "is_inactive", "message_not_found", "channel_not_found")
# Slack does not like the look of it: better bare words than none.
_FORM = (
    "block_mismatch",
    "invalid_arguments",
    "invalid_blocks",
    "invalid_blocks_format",
    "msg_blocks_too_long",
    "msg_too_long",
    "no_text",
)
_CHANNEL_ID = re.compile(r"[CDG][A-Z0-9]{6,}")
_EARLIER_SECONDS = 3_600.0  # our clock may differ from Slack's
_MOST_LOOKED_AT = "100"


@dataclass(frozen=True, slots=True)
class SlackMessageState:
    """What is known of the message of a group.

    `notification` is the one that it was last posted or changed for, `step` how far that went, `wanted` the channel
    as the
    configuration named it, `channel` and `ts` Slack's names for where it is, empty while nobody has heard them. `over`:
    all of it is resolved, the next alert gets a message of its own. `edited`: for `notification` it was edited, not
    posted.
    `at`: wall-clock seconds. `remark`: what it says of itself.
    """

    notification_id: str
    step: str
    configured_channel: str
    channel_id: str = ""
    ts: str = ""
    is_resolved: bool = False
    is_edited: bool = False
    posted_at: float = 0.0
    remark: str = ""

    @classmethod
    def from_json(cls, text: str | None) -> Self | None:
        """Return what was written, None if that can't be read."""
        try:
            return None if text is None else cls(**json.loads(text))
        except (TypeError, ValueError):
            return None


class SlackThread:
    """Tells notices to one channel."""

    def __init__(self, api: SlackApi, channel: str) -> None:
        """Post to `channel`, an id or a name."""
        self._api = api
        self._channel = channel
        self._latest: dict[str, SlackMessageState] = {}  # what the disk could not take, while this process lives

    def deliver(self, notification: Notification, memory: ReceiverState, deadline: Deadline) -> None:
        """Take every step that `notification` still needs.

        Raises:
            DeliveryError: called again with the same notice, it goes on where it was.
        """
        known = self._recall(notification, memory)
        if known is None or known.notification_id != notification.id or known.step not in _SHOWN:
            known = self._show(notification, known, memory, deadline)
            self._remember(notification, known, memory)
        if known.step == "posted":
            try:
                self._reply(notification, known, deadline)
            except SlackApiError as error:
                if error.code not in _LOST:
                    raise
                self._remember(notification, replace(known, step="lost"), memory)
                raise DeliveryError(error.reason, str(error), retryable=True) from None
            self._remember(notification, replace(known, step="told"), memory)

    def _show(
        self, notification: Notification, former: SlackMessageState | None, memory: ReceiverState, deadline: Deadline
    ) -> SlackMessageState:
        """Bring the group's message to what `notification` says, or post it; return it as it is then known."""
        remark, known = "", former
        if former is not None and former.step == "posting":
            known = self._find(former, deadline)
            if known is None:
                remark = UNCERTAIN_REMARK
            else:
                former = known
                self._remember(
                    notification, known, memory
                )  # by its name: the next change takes the mark that it was found by
        if known is not None and (not known.is_resolved or known.notification_id == notification.id):
            if known.configured_channel != self._channel:
                self._leave(known, deadline)
            elif self._change(notification, known, deadline):
                over = notification.status == "resolved"
                return replace(known, notification_id=notification.id, step="posted", is_resolved=over, is_edited=True)
            remark = CONTINUED_REMARK
        return self._post(notification, former, remark, memory, deadline)

    def _post(
        self,
        notification: Notification,
        former: SlackMessageState | None,
        remark: str,
        memory: ReceiverState,
        deadline: Deadline,
    ) -> SlackMessageState:
        over = notification.status == "resolved"
        known = SlackMessageState(
            notification.id, "posting", self._channel, is_resolved=over, posted_at=time.time(), remark=remark
        )
        self._write(notification, known, memory)
        where = {"channel": self._channel}
        try:
            said = self._say("chat.postMessage", where, notification, deadline, brief=True, remark=remark)
        except DeliveryError as error:
            if not isinstance(
                error, http.UncertainDeliveryError
            ):  # nothing was posted: what was known before still holds
                self._restore(notification, former, memory)
            raise
        return replace(known, step="posted", channel_id=str(said["channel"]), ts=str(said["ts"]))

    def _leave(self, known: SlackMessageState, deadline: Deadline) -> None:
        """Have the message of another channel say that it will change no more."""
        with contextlib.suppress(SlackApiError):
            self._api.call_write(
                "chat.update", {"channel": known.channel_id, "ts": known.ts, "text": MOVED_TEXT, "blocks": []}, deadline
            )

    def _change(self, notification: Notification, known: SlackMessageState, deadline: Deadline) -> bool:
        """Change the message; tell whether it was still within reach."""
        try:
            where = {"channel": known.channel_id, "ts": known.ts}
            self._say("chat.update", where, notification, deadline, brief=True, remark=known.remark)
        except SlackApiError as error:
            if error.code not in _LOST:
                raise
            return False
        return True

    def _reply(self, notification: Notification, known: SlackMessageState, deadline: Deadline) -> None:
        # An edit rings nobody's phone: what still burns does, in the channel too.
        loud = (
            known.is_edited
            and notification.status == "firing"
            and notification.reason is not NotificationReason.RESOLVED
        )
        where = {"channel": known.channel_id, "thread_ts": known.ts, **({"reply_broadcast": True} if loud else {})}
        try:
            self._say("chat.postMessage", where, notification, deadline)
        except SlackApiError as error:
            if error.retryable or error.code in _LOST:
                raise
            # No thread to be had: then the message itself takes the details.
            where = {"channel": known.channel_id, "ts": known.ts}
            self._say("chat.update", where, notification, deadline, remark=known.remark)

    def _say(
        self,
        method: str,
        where: Mapping[str, Any],
        notification: Notification,
        deadline: Deadline,
        *,
        brief: bool = False,
        remark: str = "",
    ) -> dict[str, Any]:
        message = slack_message.build_message(notification, brief=brief, remark=remark)
        quiet: dict[str, Any] = {"parse": "none"}  # chat.update makes links of names by itself
        if method == "chat.postMessage":
            quiet |= {"unfurl_links": False, "unfurl_media": False}
        try:
            return self._api.call_write(method, {**where, **quiet, **message}, deadline, notification.id)
        except SlackApiError as error:
            if error.code not in _FORM:
                raise
            return self._api.call_write(
                method, {**where, **quiet, **slack_message.without_blocks(message)}, deadline, notification.id
            )

    def _find(self, known: SlackMessageState, deadline: Deadline) -> SlackMessageState | None:
        """Look for the message of a post that had no answer; None if it is not there, or we may not look."""
        if not _CHANNEL_ID.fullmatch(known.configured_channel):
            return None  # reading takes ids only
        arguments = {
            "channel": known.configured_channel,
            "oldest": f"{max(0.0, known.posted_at - _EARLIER_SECONDS):.6f}",
            "limit": _MOST_LOOKED_AT,
        }
        try:
            said = self._api.call_read("conversations.history", arguments, deadline)
        except SlackApiError as error:
            if error.retryable and error.reason is DeliveryErrorReason.SERVER_ERROR:
                raise
            return None
        wanted = slack_message.block_id(known.notification_id)
        for message in _dicts(said.get("messages")):
            if any(block.get("block_id") == wanted for block in _dicts(message.get("blocks"))):
                return replace(known, step="posted", channel_id=known.configured_channel, ts=str(message.get("ts")))
        return None

    def _recall(self, notification: Notification, memory: ReceiverState) -> SlackMessageState | None:
        key = _key(notification)
        if key in self._latest:
            return self._latest[key]
        try:
            return SlackMessageState.from_json(memory.get(key))
        except StoreError as error:
            raise DeliveryError(
                DeliveryErrorReason.SOCKET, f"what was posted before can't be read: {error}", retryable=True
            ) from None

    def _write(self, notification: Notification, known: SlackMessageState, memory: ReceiverState) -> None:
        """Have it on disk before anything is posted."""
        try:
            memory.put(_key(notification), json.dumps(asdict(known)))
        except StoreError as error:
            raise DeliveryError(
                DeliveryErrorReason.SOCKET, f"what is posted can't be written: {error}", retryable=True
            ) from None
        self._latest.pop(_key(notification), None)

    def _remember(self, notification: Notification, known: SlackMessageState, memory: ReceiverState) -> None:
        """Keep what Slack has already done, in this process if the disk is full."""
        self._latest[_key(notification)] = known
        try:
            self._write(notification, known, memory)
        except DeliveryError:
            return

    def _restore(self, notification: Notification, former: SlackMessageState | None, memory: ReceiverState) -> None:
        if former is not None:
            self._remember(notification, former, memory)
            return
        with contextlib.suppress(StoreError):  # then it is taken for uncertain at the next attempt, which is safe
            memory.put(_key(notification), None)


def _key(notification: Notification) -> str:
    # A digest is of other groups each time: each is a message of its own.
    about = (
        f"{DIGEST_GROUP_KEY}{notification.id}" if notification.group_key == DIGEST_GROUP_KEY else notification.group_key
    )
    return f"message:{'test:' if notification.is_test else ''}{about}"


def _dicts(found: object) -> list[dict[str, Any]]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
