"""journald receiver: one journal entry per alert, in the journal's own protocol, each fact in its own field.

Source: systemd.io, "Journal native protocol"; systemd.journal-fields(7).
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from typing import ClassVar, Self

from watchdog import sanitize
from watchdog.alerts.alert import Alert
from watchdog.config.document import Table
from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.receivers.base import Receiver, ReceiverOptions
from watchdog.receivers.render import notification_text
from watchdog.receivers.render.alert_facts import AlertEvent, alert_event, alert_facts
from watchdog.receivers.render.severity import syslog_level
from watchdog.receivers.syslog.wires import parse_unix_address, send_datagram
from watchdog.receivers.transport.deadline import Deadline
from watchdog.routing.notification import Notification
from watchdog.systemd import JOURNAL_SOCKET, journal_entry, sealed_file

# Fixed forever: systemd.journal-fields(7), MESSAGE_ID. packaging/systemd/*.catalog explains them to users.
FIRING_MESSAGE_ID = "3be99c91d943483786b7b7eb0620bb01"
RESOLVED_MESSAGE_ID = "acbd2cf7254348eba5b7981a1531198b"
REMINDER_MESSAGE_ID = "c03dd2a1e3b44c08b048d8173e8d112f"
_MESSAGE_IDS = {
    AlertEvent.FIRING: FIRING_MESSAGE_ID,
    AlertEvent.REMINDER: REMINDER_MESSAGE_ID,
    AlertEvent.RESOLVED: RESOLVED_MESSAGE_ID,
}

_FACILITY = 3  # daemon

_MAX_LINE_LENGTH = 1_000
_MAX_LINES = 100
_MAX_VALUE_LENGTH = 1_024
_MAX_NAME_LENGTH = 64
_NOT_IN_NAME = re.compile(r"[^A-Z0-9_]")
_TOO_LONG_ERRORS = (errno.EMSGSIZE, errno.ENOBUFS)


class Journald(Receiver):
    """Sends one entry per alert of a notification."""

    type: ClassVar[str] = "journald"
    default_rate_limit: ClassVar[str] = "none"

    def __init__(self, name: str, path: str, options: ReceiverOptions | None = None) -> None:
        """Send to the socket at `path`."""
        super().__init__(name, options)
        self._path = path

    @classmethod
    def from_table(cls, name: str, table: Table, options: ReceiverOptions | None = None) -> Self:
        """Read `address`: the socket of the system's journal or of a journal namespace."""
        try:
            return cls(name, parse_unix_address(table.text("address", f"unix://{JOURNAL_SOCKET}")), options)
        except ValueError as error:
            table.add_problem("address", str(error).replace("/dev/log", JOURNAL_SOCKET))
            return cls(name, JOURNAL_SOCKET, options)

    def render(self, notification: Notification) -> bytes:
        """Return the entries, separated by newlines."""
        return b"\n".join(self._entries(notification))

    def send(self, notification: Notification, deadline_seconds: float) -> None:
        """Send each entry; it is delivered when it is in the queue of journald's socket."""
        deadline = Deadline(deadline_seconds)
        entries = list(self._entries(notification))
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
                datagrams.setblocking(False)
                datagrams.connect(self._path)
                for entry in entries:
                    self._send(datagrams, entry, deadline)
        except OSError as error:
            raise DeliveryError(DeliveryErrorReason.SOCKET, f"{self._path}: {error.strerror}", retryable=True) from None

    def limit_usage(self, notification: Notification) -> list[str]:
        """Return the number of octets and lines of each entry."""
        return [
            f"{len(entry):,} octets; {1 + len(_lines(alert, notification))} of {_MAX_LINES} lines"
            for alert, entry in zip(
                notification_text.worst_first(notification.alerts), self._entries(notification), strict=True
            )
        ]

    def destination(self) -> str:
        """Return the address."""
        return f"journal unix://{self._path}"

    def _send(self, datagrams: socket.socket, entry: bytes, deadline: Deadline) -> None:
        try:
            send_datagram(datagrams, entry, deadline, self._path)
        except OSError as error:
            if error.errno not in _TOO_LONG_ERRORS:
                raise
            file = sealed_file(entry)
            try:
                send_datagram(datagrams, b"", deadline, self._path, [file])
            finally:
                os.close(file)

    def _entries(self, notification: Notification) -> Iterator[bytes]:
        for alert in notification_text.worst_first(notification.alerts):
            yield journal_entry(_fields(alert, notification))


def _fields(alert: Alert, notification: Notification) -> Iterator[tuple[str, str]]:
    title = sanitize.escape_unprintable(notification_text.alert_title(alert, notification), _MAX_LINE_LENGTH)
    yield "MESSAGE", "\n".join([title, *_lines(alert, notification)])
    yield "PRIORITY", str(syslog_level(alert))
    yield "MESSAGE_ID", _MESSAGE_IDS[alert_event(alert, notification)]
    yield "SYSLOG_IDENTIFIER", "bpf-watchdog"
    yield "SYSLOG_FACILITY", str(_FACILITY)
    if alert.runbook is not None:
        yield "DOCUMENTATION", _text(alert.runbook)
    if alert.identity.generator_url:
        yield "WATCHDOG_DASHBOARD", _text(alert.identity.generator_url)
    for name, value in _facts(alert, notification).items():
        yield f"WATCHDOG_{name.upper()}", _text(value)
    for label, value in alert.all_labels:
        yield f"WATCHDOG_LABEL_{_NOT_IN_NAME.sub('_', label.upper())}"[:_MAX_NAME_LENGTH], _text(value)


def _lines(alert: Alert, notification: Notification) -> list[str]:
    lines = [
        sanitize.escape_unprintable(line, _MAX_LINE_LENGTH)
        for line in notification_text.detail_lines(alert, notification)
    ]
    return lines if len(lines) < _MAX_LINES else [*lines[: _MAX_LINES - 2], sanitize.ELLIPSIS]


def _facts(alert: Alert, notification: Notification) -> dict[str, str]:
    more = {"notification_reason": notification.reason_text, "reason": alert.reason, "host": notification.host}
    return alert_facts(alert, notification) | more


def _text(text: str) -> str:
    return sanitize.escape_unprintable(text, _MAX_VALUE_LENGTH)
