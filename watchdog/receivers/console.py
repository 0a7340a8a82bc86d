"""Console receiver: writes to standard output, a terminal or the journal. It is the default without configuration."""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from typing import ClassVar, Self

from watchdog import sanitize
from watchdog.alerts.alert import Alert
from watchdog.config.document import Table
from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.receivers.base import Receiver, ReceiverOptions
from watchdog.receivers.render import notification_text
from watchdog.receivers.render.severity import syslog_level
from watchdog.receivers.transport.deadline import Deadline
from watchdog.routing.notification import Notification
from watchdog.rules.language.rule import Severity
from watchdog.systemd import is_journal

_STANDARD_OUTPUT = 1
_MAX_LINE_LENGTH = 1_000
_CHUNK_BYTES = 4_096  # pipe(7): a pipe that polls writable takes PIPE_BUF without blocking

_COLOURS = {Severity.CRITICAL: "\x1b[1;31m", Severity.WARNING: "\x1b[1;33m"}
_RESOLVED_COLOUR = "\x1b[1;32m"
_COLOUR_RESET = "\x1b[0m"


class Console(Receiver):
    """Writes a few lines per alert."""

    type: ClassVar[str] = "console"
    default_rate_limit: ClassVar[str] = "none"

    def __init__(self, name: str, descriptor: int, options: ReceiverOptions | None = None) -> None:
        """Write to `descriptor`."""
        super().__init__(name, options)
        self._descriptor = descriptor
        self._is_journal = is_journal(os.environ, descriptor)
        self._is_terminal = os.isatty(descriptor)

    @classmethod
    def from_table(cls, name: str, table: Table, options: ReceiverOptions | None = None) -> Self:  # noqa: ARG003 - it has no keys
        """Write to standard output."""
        return cls(name, _STANDARD_OUTPUT, options)

    def render(self, notification: Notification) -> bytes:
        """Return the lines."""
        parts = [self._lines(alert, notification) for alert in notification_text.worst_first(notification.alerts)]
        if next_step := notification_text.next_step(notification):
            parts.append(self._joined([f"    {sanitize.escape_unprintable(next_step)}"], notification.alerts[0]))
        return b"".join(parts)

    def send(self, notification: Notification, deadline_seconds: float) -> None:
        """Write the lines; they are delivered when they are written."""
        deadline = Deadline(deadline_seconds)
        rest = memoryview(self.render(notification))
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        while rest:
            if not poll.poll(deadline.remaining() * 1_000):
                raise DeliveryError(DeliveryErrorReason.TIMEOUT, "standard output does not accept data", retryable=True)
            try:
                rest = rest[os.write(self._descriptor, rest[:_CHUNK_BYTES]) :]
            except OSError as error:
                raise DeliveryError(
                    DeliveryErrorReason.SOCKET, f"standard output: {error.strerror}", retryable=True
                ) from None

    def destination(self) -> str:
        """Return the kind of file that standard output is."""
        if self._is_journal:
            return "the journal"
        return "the terminal" if self._is_terminal else "standard output"

    def _lines(self, alert: Alert, notification: Notification) -> bytes:
        resolved = alert.resolved is not None
        title = sanitize.escape_unprintable(notification_text.alert_title(alert, notification), _MAX_LINE_LENGTH)
        if self._is_terminal:
            title = f"{_RESOLVED_COLOUR if resolved else _COLOURS[alert.severity]}{title}{_COLOUR_RESET}"
        lines = [title]
        if unusual_reason := notification_text.unusual_reason(notification):
            lines.append(f"    {sanitize.escape_unprintable(unusual_reason, _MAX_LINE_LENGTH)}")
        lines += [
            f"    {sanitize.escape_unprintable(line, _MAX_LINE_LENGTH)}"
            for line in notification_text.detail_lines(alert, notification)
        ]
        if alert.runbook is not None:
            lines.append(f"    runbook: {sanitize.escape_unprintable(alert.runbook, _MAX_LINE_LENGTH)}")
        if alert.identity.generator_url:
            url = sanitize.escape_unprintable(alert.identity.generator_url, _MAX_LINE_LENGTH)
            lines.append(f"    dashboard: {url}")
        return self._joined(lines, alert)

    def _joined(self, lines: Sequence[str], alert: Alert) -> bytes:
        # sd-daemon(3): journald reads the level at the begin of a line
        level = f"<{syslog_level(alert)}>" if self._is_journal else ""
        return "".join(f"{level}{line}\n" for line in lines).encode()
