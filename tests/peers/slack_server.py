"""A fake Slack that checks messages against the documented limits of Slack and keeps the accepted ones.

`Workspace` is Slack without a network: incoming webhooks, chat.postMessage, chat.update and conversations.history, with
Slack's responses and errors. `SlackServer` serves it over HTTP. Sources: docs.slack.dev, the pages of these methods,
"Block Kit" (reference of each block), "Formatting text", "Rate limits".
"""

from __future__ import annotations

import http.server
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field

TOKEN = "xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcHrzqqgy"
HOOK = "/services/T00000000/B00000000/abcdefghijklmnopqrstuvwx"

MAX_BLOCKS = 50
MAX_BLOCK_CHARACTERS = 11_000  # not documented; the smallest size known to be refused
MAX_TEXT = 40_000
MAX_UNITS = {"header": 150, "section": 3_000, "context": 2_000}
LINK = re.compile(r"<https?://[^<>|]*\|[^<>|]*>")
ENTITY = re.compile(r"&(?!amp;|lt;|gt;)")


class Refusal(Exception):
    """Slack answers `{"ok": false, "error": code}`."""


@dataclass
class Message:
    """A message of a channel, as Slack shows it."""

    channel: str
    ts: str
    text: str
    blocks: list[dict]
    thread_ts: str | None = None
    broadcast: bool = False
    edits: int = 0
    can_be_edited: bool = True
    can_be_replied_to: bool = True

    def words(self) -> str:
        """Return the whole text of the message."""
        texts = [part["text"] for block in self.blocks for part in (block.get("elements") or [block["text"]])]
        return "\n".join([*texts] if texts else [self.text])


@dataclass
class Workspace:
    """Slack, for one app. `scopes`: its permissions; `members`: the channels to which it is invited."""

    channels: dict[str, str] = field(default_factory=lambda: {"C024BE91L": "oncall", "C0ELSEWHE": "elsewhere"})
    members: set[str] = field(default_factory=lambda: {"C024BE91L", "C0ELSEWHE"})
    scopes: set[str] = field(default_factory=lambda: {"chat:write"})
    now: Callable[[], float] = time.time
    messages: list[Message] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    push_texts: list[str] = field(default_factory=list)  # texts of the messages that ring on phones
    errors: dict[str, list[str]] = field(default_factory=dict)  # by method: error codes of the next calls
    seconds_per_message: float | None = None  # None: no rate limit
    burst: int = 3
    _posted_at: dict[str, list[float]] = field(default_factory=dict)
    _counter: int = 0

    def parents(self) -> list[Message]:
        """Return the messages in channels."""
        return [message for message in self.messages if message.thread_ts is None]

    def replies(self) -> list[Message]:
        """Return the replies in threads."""
        return [message for message in self.messages if message.thread_ts is not None]

    def handle(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Answer one POST."""
        if path == HOOK:
            return self._hook(headers, body)
        method = path.removeprefix("/api/")
        self.calls.append(method)
        if self.errors.get(method):
            return self._error(self.errors[method].pop(0))
        try:
            return self._answer(self._call(method, headers, body))
        except Refusal as refusal:
            return self._error(str(refusal))

    # ------------------------------------------------------------------------------------------------------ the web API

    def _call(self, method: str, headers: dict[str, str], body: bytes) -> dict:
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refusal("invalid_auth")
        content_type = headers.get("Content-Type", "")
        if method == "conversations.history":
            assert content_type == "application/x-www-form-urlencoded", "methods that read take no JSON"
            return self._history(dict(urllib.parse.parse_qsl(body.decode("utf-8", "strict"))))
        if content_type != "application/json; charset=utf-8":
            raise Refusal("invalid_post_type")
        arguments = json.loads(body.decode("utf-8", "strict"))
        return {"chat.postMessage": self._post, "chat.update": self._update}[method](arguments)

    def _post(self, arguments: dict) -> dict:
        channel = self._channel(arguments["channel"])
        if "chat:write" not in self.scopes:
            raise Refusal("missing_scope")
        if channel not in self.members:
            raise Refusal("not_in_channel")
        parent = None
        if "thread_ts" in arguments:
            parent = self._message(channel, arguments["thread_ts"])
            if not parent.can_be_replied_to:
                raise Refusal("restricted_action_non_threadable_channel")
            assert parent.thread_ts is None, "thread_ts must be the ts of a message, not of a reply"
        text, blocks = check(arguments)
        self._limit(channel)
        message = Message(
            channel,
            self._next_ts(),
            text,
            blocks,
            thread_ts=None if parent is None else parent.ts,
            broadcast=bool(arguments.get("reply_broadcast")),
        )
        self.messages.append(message)
        if parent is None or message.broadcast:
            self.push_texts.append(message.words())
        return {"channel": channel, "ts": message.ts, "message": self._shown(message)}

    def _update(self, arguments: dict) -> dict:
        if not re.fullmatch(r"[CDG][A-Z0-9]+", arguments["channel"]):
            raise Refusal("channel_not_found")  # chat.update accepts ids only
        message = self._message(self._channel(arguments["channel"]), arguments["ts"])
        if not message.can_be_edited:
            raise Refusal("edit_window_closed")
        message.text, message.blocks = check(arguments, previous_blocks=message.blocks)
        message.edits += 1
        return {"channel": message.channel, "ts": message.ts, "text": message.text, "message": self._shown(message)}

    def _history(self, arguments: dict) -> dict:
        if "channels:history" not in self.scopes:
            raise Refusal("missing_scope")
        if arguments["channel"] not in self.channels:
            raise Refusal("channel_not_found")  # conversations.history accepts ids only
        oldest = float(arguments.get("oldest", 0))
        messages = [
            message
            for message in reversed(self.messages)
            if message.channel == arguments["channel"]
            and float(message.ts) > oldest
            and (message.thread_ts is None or message.broadcast)
        ]
        return {"messages": [self._shown(message) for message in messages[: int(arguments.get("limit", 100))]]}

    def _channel(self, name: str) -> str:
        for channel_id, channel_name in self.channels.items():
            if name.removeprefix("#") in {channel_id, channel_name}:
                return channel_id
        raise Refusal("channel_not_found")

    def _message(self, channel: str, ts: object) -> Message:
        assert isinstance(ts, str), "a ts is a string: as a number it loses digits"
        for message in self.messages:
            if (message.channel, message.ts) == (channel, ts):
                return message
        raise Refusal("message_not_found")

    def _limit(self, channel: str) -> None:
        if self.seconds_per_message is None:
            return
        now = self.now()
        recent = [at for at in self._posted_at.get(channel, []) if at > now - self.burst * self.seconds_per_message]
        if len(recent) >= self.burst:
            raise Refusal("ratelimited")
        self._posted_at[channel] = [*recent, now]

    def _next_ts(self) -> str:
        self._counter += 1
        return f"{int(self.now())}.{self._counter:06d}"

    @staticmethod
    def _shown(message: Message) -> dict:
        document = {"type": "message", "ts": message.ts, "text": message.text, "bot_id": "B19LU7CSY"}
        return {**document, "blocks": message.blocks} if message.blocks else document

    @staticmethod
    def _answer(result: dict) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json; charset=utf-8"}, json.dumps({"ok": True, **result}).encode()

    @staticmethod
    def _error(code: str) -> tuple[int, dict[str, str], bytes]:
        status, headers = (429, {"Retry-After": "30"}) if code == "ratelimited" else (200, {})
        return status, headers, json.dumps({"ok": False, "error": code}).encode()

    # ------------------------------------------------------------------------------------------------ incoming webhooks

    def _hook(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        self.calls.append("webhook")
        assert headers.get("Content-Type", "").startswith("application/json")
        try:
            arguments = json.loads(body.decode("utf-8", "strict"))
            assert not arguments.keys() & {"channel", "username", "icon_emoji", "thread_ts"}, (
                "webhooks of apps do not accept these arguments"
            )
            text, blocks = check(arguments)
            self._limit("C024BE91L")
        except Refusal as refusal:
            limited = str(refusal) == "ratelimited"
            return (429, {"Retry-After": "30"}, b"") if limited else (400, {}, str(refusal).encode())
        self.messages.append(Message("C024BE91L", self._next_ts(), text, blocks))
        return 200, {"Content-Type": "text/html"}, b"ok"


def check(arguments: dict, previous_blocks: list[dict] = ()) -> tuple[str, list[dict]]:
    """Return text and blocks.

    Raises:
        Refusal: Slack refuses them.
        AssertionError: Slack accepts and shows them, but the receiver must not send them.
    """
    text, blocks = arguments.get("text", ""), arguments.get("blocks", list(previous_blocks))
    if not text and not blocks:
        raise Refusal("no_text")
    if len(text) > MAX_TEXT:
        raise Refusal("msg_too_long")
    check_text(text)
    if len(blocks) > MAX_BLOCKS or len({block.get("block_id", index) for index, block in enumerate(blocks)}) < len(
        blocks
    ):
        raise Refusal("invalid_blocks")
    if units(json.dumps(blocks, ensure_ascii=False)) > MAX_BLOCK_CHARACTERS:
        raise Refusal("msg_blocks_too_long")
    for block in blocks:
        check_block(block)
    return text, blocks


def check_block(block: dict) -> None:
    parts = block["elements"] if block.get("type") == "context" else [block.get("text")]
    if block.get("type") not in MAX_UNITS or not 1 <= len(parts) <= 10 or len(block.get("block_id", "")) > 255:
        raise Refusal("invalid_blocks")
    for part in parts:
        if not isinstance(part, dict) or not 1 <= units(part.get("text", "")) <= MAX_UNITS[block["type"]]:
            raise Refusal("invalid_blocks")
        kinds = {"plain_text"} if block["type"] == "header" else {"plain_text", "mrkdwn"}
        allowed = {"type", "text", "emoji"} if part.get("type") == "plain_text" else {"type", "text", "verbatim"}
        if part.get("type") not in kinds or not part.keys() <= allowed:
            raise Refusal("invalid_blocks")
        check_text(part["text"])


def check_text(text: str) -> None:
    """Check that `text` contains no mention, no link except the runbook, and no control character."""
    rest = LINK.sub("", text)
    assert not re.search("[<>]", rest), f"a mention or a link: {text!r}"
    assert not ENTITY.search(rest), f"an unknown entity: {text!r}"
    assert all(line.isprintable() for line in text.split("\n")), f"a character that is not printable: {text!r}"


def units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


# ------------------------------------------------------------------------------------------------------- over HTTP


class SlackServer(http.server.ThreadingHTTPServer):
    """Serves a workspace on a port of 127.0.0.1. `before_answer` is called with the method, after its effect."""

    daemon_threads = True

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(("127.0.0.1", 0), SlackHandler)
        self.workspace = workspace
        self.before_answer: Callable[[str], object] = lambda method: None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        with self._lock:
            return self.workspace.handle(path, headers, body)

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """Ignore errors of clients that were killed."""


class SlackHandler(http.server.BaseHTTPRequestHandler):
    server: SlackServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, headers, content = self.server.answer(self.path, dict(self.headers), body)
        if self.server.before_answer(self.path.removeprefix("/api/")) is False:
            self.close_connection = True
            return  # the answer is lost
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Do not log requests."""
