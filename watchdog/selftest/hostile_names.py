"""A process with a name that was made to do harm: it is seen as it is, and told so that it does none."""

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
"""15 bytes at most each: what the kernel keeps."""

_HARMLESS = "harmless"
# What would call people, or lead them elsewhere, by type: Slack takes "@here" for text, not so what apprise knows.
_MENTIONS = {
    "slack": re.compile(r"<(?:[!@#]|https?:)"),
    "apprise": re.compile(r"<(?:[!@#]|https?:)|(?<!\w)@"),
}
_SIZE = re.compile(r"([\d,]+) of ([\d,]+)")
_MOST_READINGS = 50
_PAUSE_SECONDS = 0.1


def run_check(stage: CheckContext) -> str:
    """Let processes with such names connect, and render notices about them; return what was seen.

    Raises:
        Failed: a name was altered on its way, or could do harm at a receiver.
        KernelUnfit, NotPermitted: this host cannot be guarded.
    """
    collector = start_collector(SystemClock())
    try:
        names = measure_names(collector)
    finally:
        collector.close()
    require(
        [name.encode("utf-8", "surrogateescape") for name in names] == list(HOSTILE_NAMES),
        f"names arrived altered: {', '.join(map(ascii, names))} for {', '.join(map(ascii, HOSTILE_NAMES))}",
    )
    render_all(stage.configuration.receivers, names)
    receivers = stage.configuration.receivers.values()
    told = ", ".join(f"{receiver.name} ({receiver.type})" for receiver in receivers)
    return f"{len(names)} names measured byte for byte, and rendered without harm for {told}"


def measure_names(collector: Collector) -> list[str]:
    """Return what was measured as the names of processes that call themselves by each of `NAMES`, in order."""
    meter, clock = Meter(), SystemClock()
    meter.advance(collector.read(), clock.wall())
    with socket.create_server(("127.0.0.1", 0)) as server:
        children = [_connect_as(name, server) for name in HOSTILE_NAMES]
    found: dict[int, str] = {}
    for _ in range(_MOST_READINGS):
        changes, snapshot = meter.advance_with_changes(collector.read(), clock.wall())
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
    raise CheckFailed(f"of {len(children)} processes with such names, {len(found)} were seen")


def render_all(receivers: Mapping[str, Receiver], names: Iterable[str]) -> None:
    """Render notices about each of `names` for each receiver; nothing is sent.

    Raises:
        Failed: what comes out could do harm.
    """
    for name in names:
        for receiver in receivers.values():
            for notification in notifications_about(name, receiver.name):
                if trouble := _trouble(receiver, notification):
                    raise CheckFailed(f"receiver {receiver.name} ({receiver.type}), process {name!a}: {trouble}")


def notifications_about(name: str, receiver: str) -> Iterator[Notification]:
    """Yield a firing and a resolved notice with the name wherever one can stand."""
    for notification in example_notifications(receiver):
        [alert] = notification.alerts
        labels = (("process", name), ("unit", name))
        told = replace(
            alert,
            labels=labels,
            fingerprint=fingerprint(alert.rule, labels),
            summary=f"{name} opens 612/s connections (limit 500/s)",
            reason=f"{name}: {alert.reason}",
        )
        yield replace(notification, alerts=(told,))


def _trouble(receiver: Receiver, notification: Notification) -> str | None:
    """Say what is wrong with what the receiver would be sent."""
    try:
        body, limits = receiver.render(notification), receiver.limit_usage(notification)
        shape, texts = parse_payload(receiver.type, body)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        return f"is no {'UTF-8' if isinstance(error, UnicodeDecodeError) else 'JSON'} any more"
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what would go wrong at night
        return f"cannot be rendered: {type(error).__name__}"
    if any(not character.isprintable() for text in texts for character in text.replace("\n", "")):
        return "a control character is left in it"
    mention = _MENTIONS.get(receiver.type)
    if mention is not None and any(mention.search(text) for text in texts):
        return "a mention or a link is left in it"
    if b'"template_error":' in body:
        return "its template fails, and the form without one is sent"
    [harmless] = [one for one in notifications_about(_HARMLESS, receiver.name) if one.status == notification.status]
    if shape != parse_payload(receiver.type, receiver.render(harmless))[0]:
        return "it has lines or fields that it has not for other names"
    over = [limit for limit in limits for used, most in _SIZE.findall(limit) if _number(used) > _number(most)]
    return f"is too large: {over[0]}" if over else None


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def _connect_as(name: bytes, server: socket.socket) -> int:
    """Let a process of that name connect, and end; return its pid."""

    def connect() -> None:
        set_process_name(name)
        with socket.create_connection(server.getsockname()) as client:
            client.sendall(b"x")

    pid = run_in_child(connect)
    server.accept()[0].close()
    return pid
