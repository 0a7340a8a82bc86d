"""Check: hostile process names are measured unchanged, and rendered so that they do no harm at a receiver."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from watchdog.alerts.alert import fingerprint
from watchdog.clock import SystemClock
from watchdog.kernel.collector import Collector
from watchdog.kernel.startup import start_collector
from watchdog.measure.meter import Meter
from watchdog.receivers.base import Receiver
from watchdog.receivers.render.example import example_notifications
from watchdog.routing.notification import Notification
from watchdog.selftest.context import CheckContext, run_in_child, set_process_name
from watchdog.selftest.payload_parser import parse_payload
from watchdog.selftest.result import CheckFailed, require

HOSTILE_NAMES = (
    b"<!channel>",
    b"@here <@U0AB>",
    b"\x1b[2J\x1b]0;x\x07",
    b"a\n<26>1 - - -",
    b"\r\nBcc: a@b",
    "\u202egpj.exe".encode(),
    b"\xff\xfe\x80\xed\xa0",
    b'","x":"{y} %n',
)
"""At most 15 bytes each, as the kernel keeps them."""

_HARMLESS = "harmless"
# Mentions and links by receiver type. Slack shows "@here" as text, some services behind Apprise do not.
_MENTIONS = {
    "slack": re.compile(r"<(?:[!@#]|https?:)"),
    "apprise": re.compile(r"<(?:[!@#]|https?:)|(?<!\w)@"),
}
_SIZE = re.compile(r"([\d,]+) of ([\d,]+)")
_MAX_READINGS = 50
_PAUSE_SECONDS = 0.1


def run_check(context: CheckContext) -> str:
    """Let processes with hostile names connect, and render notifications about them; return the figures.

    Raises:
        CheckFailed: a name was changed on its way, or could do harm at a receiver.
        KernelUnfit, NotPermitted: the BPF programs cannot be loaded on this host.
    """
    collector = start_collector(SystemClock())
    try:
        names = measure_names(collector)
    finally:
        collector.close()
    require(
        [name.encode("utf-8", "surrogateescape") for name in names] == list(HOSTILE_NAMES),
        f"names were changed: {', '.join(map(ascii, names))} for {', '.join(map(ascii, HOSTILE_NAMES))}",
    )
    render_all(context.configuration.receivers, names)
    receivers = context.configuration.receivers.values()
    rendered = ", ".join(f"{receiver.name} ({receiver.type})" for receiver in receivers)
    return f"{len(names)} names measured byte for byte, and rendered without harm for {rendered}"


def measure_names(collector: Collector) -> list[str]:
    """Start a process with each of `HOSTILE_NAMES`; return the names as they were measured, in that order."""
    meter, clock = Meter(), SystemClock()
    meter.advance(collector.read(complete=True), clock.wall())
    with socket.create_server(("127.0.0.1", 0)) as server:
        children = [_connect_as(name, server) for name in HOSTILE_NAMES]
    found: dict[int, str] = {}
    for _ in range(_MAX_READINGS):
        changes, snapshot = meter.advance_with_changes(collector.read(complete=True), clock.wall())
        pids = changes.rows["owner"]["tgid"].tolist()
        codes = snapshot.dimensions["process"].tolist()
        found |= {
            pid: snapshot.names.text("process", code)
            for pid, code in zip(pids, codes[: len(pids)], strict=True)
            if pid in children
        }
        if len(found) == len(children):
            return [found[child] for child in children]
        time.sleep(_PAUSE_SECONDS)
    raise CheckFailed(f"{len(found)} of {len(children)} processes with hostile names were measured")


def render_all(receivers: Mapping[str, Receiver], names: Iterable[str]) -> None:
    """Render notifications about each of `names` for each receiver; nothing is sent.

    Raises:
        CheckFailed: a rendered notification could do harm.
    """
    for name in names:
        for receiver in receivers.values():
            for notification in notifications_about(name, receiver.name):
                if problem := _find_problem(receiver, notification):
                    raise CheckFailed(f"receiver {receiver.name} ({receiver.type}), process {name!a}: {problem}")


def notifications_about(name: str, receiver: str) -> Iterator[Notification]:
    """Yield a firing and a resolved notification with the name in every field that can have one."""
    for notification in example_notifications(receiver):
        [alert] = notification.alerts
        labels = (("process", name), ("unit", name))
        hostile = replace(
            alert,
            labels=labels,
            fingerprint=fingerprint(alert.rule, labels),
            summary=f"{name} opens 612/s connections (limit 500/s)",
            reason=f"{name}: {alert.reason}",
        )
        yield replace(notification, alerts=(hostile,))


def _find_problem(receiver: Receiver, notification: Notification) -> str | None:
    """Return the first problem of the notification as rendered for `receiver`, None if there is none."""
    try:
        body, limits = receiver.render(notification), receiver.limit_usage(notification)
        shape, texts = parse_payload(receiver.type, body)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        return f"is no {'UTF-8' if isinstance(error, UnicodeDecodeError) else 'JSON'} any more"
    except Exception as error:  # noqa: BLE001 - any exception would also stop a real notification
        return f"cannot be rendered: {type(error).__name__}"
    if any(not character.isprintable() for text in texts for character in text.replace("\n", "")):
        return "it has a control character"
    mention = _MENTIONS.get(receiver.type)
    if mention is not None and any(mention.search(text) for text in texts):
        return "it has a mention or a link"
    if b'"template_error":' in body:
        return "its template fails, and the fallback text is sent"
    [harmless] = [one for one in notifications_about(_HARMLESS, receiver.name) if one.status == notification.status]
    if shape != parse_payload(receiver.type, receiver.render(harmless))[0]:
        return "it has lines or fields that other names do not cause"
    over = [limit for limit in limits for used, maximum in _SIZE.findall(limit) if _number(used) > _number(maximum)]
    return f"is too large: {over[0]}" if over else None


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def _connect_as(name: bytes, server: socket.socket) -> int:
    """Let a process of that name connect and end; return its pid."""

    def connect() -> None:
        set_process_name(name)
        with socket.create_connection(server.getsockname()) as client:
            client.sendall(b"x")

    pid = run_in_child(connect)
    server.accept()[0].close()
    return pid
