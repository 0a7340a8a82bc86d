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

from watchdog.errors import DeliveryError, StoreError
from watchdog.receivers.base import Memory
from watchdog.receivers.slack import message as slack_message
from watchdog.receivers.slack.api import Refused, SlackApi
from watchdog.receivers.transport import http
from watchdog.receivers.transport.deadline import Deadline
from watchdog.routing.notification import DIGEST, Notice

UNCERTAIN = "posted anew: an earlier attempt had no answer; if there is a copy, this message is the one that changes"
CONTINUED = "continues an earlier message, which is changed no more"
LEFT = "\N{RIGHTWARDS ARROW} told in another channel from now on"

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
class Known:
    """What is known of the message of a group.

    `notice` is the one that it was last posted or changed for, `step` how far that went, `wanted` the channel as the
    configuration named it, `channel` and `ts` Slack's names for where it is, empty while nobody has heard them. `over`:
    all of it is resolved, the next alert gets a message of its own. `edited`: for `notice` it was edited, not posted.
    `at`: wall-clock seconds. `remark`: what it says of itself.
    """

    notice: str
    step: str
    wanted: str
    channel: str = ""
    ts: str = ""
    over: bool = False
    edited: bool = False
    at: float = 0.0
    remark: str = ""

    @classmethod
    def read(cls, text: str | None) -> Self | None:
        """Return what was written, None if that can't be read."""
        try:
            return None if text is None else cls(**json.loads(text))
        except (TypeError, ValueError):
            return None


class Thread:
    """Tells notices to one channel."""

    def __init__(self, api: SlackApi, channel: str) -> None:
        """Post to `channel`, an id or a name."""
        self._api = api
        self._channel = channel
        self._latest: dict[str, Known] = {}  # what the disk could not take, while this process lives

    def tell(self, notice: Notice, memory: Memory, deadline: Deadline) -> None:
        """Take every step that `notice` still needs.

        Raises:
            DeliveryError: called again with the same notice, it goes on where it was.
        """
        known = self._recall(notice, memory)
        if known is None or known.notice != notice.id or known.step not in _SHOWN:
            known = self._show(notice, known, memory, deadline)
            self._remember(notice, known, memory)
        if known.step == "posted":
            try:
                self._reply(notice, known, deadline)
            except Refused as error:
                if error.code not in _LOST:
                    raise
                self._remember(notice, replace(known, step="lost"), memory)
                raise DeliveryError(error.reason, str(error), retryable=True) from None
            self._remember(notice, replace(known, step="told"), memory)

    def _show(self, notice: Notice, former: Known | None, memory: Memory, deadline: Deadline) -> Known:
        """Bring the group's message to what `notice` says, or post it; return it as it is then known."""
        remark, known = "", former
        if former is not None and former.step == "posting":
            known = self._find(former, deadline)
            if known is None:
                remark = UNCERTAIN
            else:
                former = known
                self._remember(
                    notice, known, memory
                )  # by its name: the next change takes the mark that it was found by
        if known is not None and (not known.over or known.notice == notice.id):
            if known.wanted != self._channel:
                self._leave(known, deadline)
            elif self._change(notice, known, deadline):
                over = notice.status == "resolved"
                return replace(known, notice=notice.id, step="posted", over=over, edited=True)
            remark = CONTINUED
        return self._post(notice, former, remark, memory, deadline)

    def _post(self, notice: Notice, former: Known | None, remark: str, memory: Memory, deadline: Deadline) -> Known:
        over = notice.status == "resolved"
        known = Known(notice.id, "posting", self._channel, over=over, at=time.time(), remark=remark)
        self._write(notice, known, memory)
        where = {"channel": self._channel}
        try:
            said = self._say("chat.postMessage", where, notice, deadline, brief=True, remark=remark)
        except DeliveryError as error:
            if not isinstance(error, http.Unanswered):  # nothing was posted: what was known before still holds
                self._restore(notice, former, memory)
            raise
        return replace(known, step="posted", channel=str(said["channel"]), ts=str(said["ts"]))

    def _leave(self, known: Known, deadline: Deadline) -> None:
        """Have the message of another channel say that it will change no more."""
        with contextlib.suppress(Refused):
            self._api.say(
                "chat.update", {"channel": known.channel, "ts": known.ts, "text": LEFT, "blocks": []}, deadline
            )

    def _change(self, notice: Notice, known: Known, deadline: Deadline) -> bool:
        """Change the message; tell whether it was still within reach."""
        try:
            where = {"channel": known.channel, "ts": known.ts}
            self._say("chat.update", where, notice, deadline, brief=True, remark=known.remark)
        except Refused as error:
            if error.code not in _LOST:
                raise
            return False
        return True

    def _reply(self, notice: Notice, known: Known, deadline: Deadline) -> None:
        # An edit rings nobody's phone: what still burns does, in the channel too.
        loud = known.edited and notice.status == "firing" and notice.reason != "resolved"
        where = {"channel": known.channel, "thread_ts": known.ts, **({"reply_broadcast": True} if loud else {})}
        try:
            self._say("chat.postMessage", where, notice, deadline)
        except Refused as error:
            if error.retryable or error.code in _LOST:
                raise
            # No thread to be had: then the message itself takes the details.
            where = {"channel": known.channel, "ts": known.ts}
            self._say("chat.update", where, notice, deadline, remark=known.remark)

    def _say(
        self,
        method: str,
        where: Mapping[str, Any],
        notice: Notice,
        deadline: Deadline,
        *,
        brief: bool = False,
        remark: str = "",
    ) -> dict[str, Any]:
        message = slack_message.message(notice, brief=brief, remark=remark)
        quiet: dict[str, Any] = {"parse": "none"}  # chat.update makes links of names by itself
        if method == "chat.postMessage":
            quiet |= {"unfurl_links": False, "unfurl_media": False}
        try:
            return self._api.say(method, {**where, **quiet, **message}, deadline, notice.id)
        except Refused as error:
            if error.code not in _FORM:
                raise
            return self._api.say(method, {**where, **quiet, **slack_message.bare(message)}, deadline, notice.id)

    def _find(self, known: Known, deadline: Deadline) -> Known | None:
        """Look for the message of a post that had no answer; None if it is not there, or we may not look."""
        if not _CHANNEL_ID.fullmatch(known.wanted):
            return None  # reading takes ids only
        arguments = {
            "channel": known.wanted,
            "oldest": f"{max(0.0, known.at - _EARLIER_SECONDS):.6f}",
            "limit": _MOST_LOOKED_AT,
        }
        try:
            said = self._api.ask("conversations.history", arguments, deadline)
        except Refused as error:
            if error.retryable and error.reason == "server_error":
                raise
            return None
        wanted = slack_message.block_id(known.notice)
        for message in _dicts(said.get("messages")):
            if any(block.get("block_id") == wanted for block in _dicts(message.get("blocks"))):
                return replace(known, step="posted", channel=known.wanted, ts=str(message.get("ts")))
        return None

    def _recall(self, notice: Notice, memory: Memory) -> Known | None:
        key = _key(notice)
        if key in self._latest:
            return self._latest[key]
        try:
            return Known.read(memory.get(key))
        except StoreError as error:
            raise DeliveryError("socket", f"what was posted before can't be read: {error}", retryable=True) from None

    def _write(self, notice: Notice, known: Known, memory: Memory) -> None:
        """Have it on disk before anything is posted."""
        try:
            memory.put(_key(notice), json.dumps(asdict(known)))
        except StoreError as error:
            raise DeliveryError("socket", f"what is posted can't be written: {error}", retryable=True) from None
        self._latest.pop(_key(notice), None)

    def _remember(self, notice: Notice, known: Known, memory: Memory) -> None:
        """Keep what Slack has already done, in this process if the disk is full."""
        self._latest[_key(notice)] = known
        try:
            self._write(notice, known, memory)
        except DeliveryError:
            return

    def _restore(self, notice: Notice, former: Known | None, memory: Memory) -> None:
        if former is not None:
            self._remember(notice, former, memory)
            return
        with contextlib.suppress(StoreError):  # then it is taken for uncertain at the next attempt, which is safe
            memory.put(_key(notice), None)


def _key(notice: Notice) -> str:
    # A digest is of other groups each time: each is a message of its own.
    about = f"{DIGEST}{notice.id}" if notice.group == DIGEST else notice.group
    return f"message:{'test:' if notice.test else ''}{about}"


def _dicts(found: object) -> list[dict[str, Any]]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
