"""A command of the user's: each notice as JSON on its standard input, what it ends with is the verdict.

Source: sysexits.h(3head) for the exit codes.
"""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path
from typing import ClassVar, Self

from watchdog import sanitize
from watchdog.config.document import Table
from watchdog.errors import DeliveryError
from watchdog.receivers import webhook
from watchdog.receivers.base import Receiver
from watchdog.receivers.render import notification_text
from watchdog.receivers.transport.child_process import Ended, run
from watchdog.receivers.transport.deadline import Deadline
from watchdog.routing.notification import Notice

REFUSED = os.EX_DATAERR

_LONGEST_VARIABLE = 1_024
_LONGEST_OUTPUT = 200  # of what shows in the log


class Command(Receiver):
    """Runs a program for each notice."""

    type: ClassVar[str] = "command"
    usual_budget: ClassVar[str] = "600/h"

    def __init__(self, name: str, command: tuple[str, ...]) -> None:
        """Run `command`, an absolute path and arguments."""
        super().__init__(name)
        self._command = command

    @classmethod
    def from_table(cls, name: str, table: Table) -> Self:
        """Read `command`; what is there now is looked at now."""
        command = table.texts("command")
        if not command and not table.failed("command"):
            table.problem("command", "must name a program")
        if any("\0" in word for word in command):
            table.problem("command", "must not hold NUL characters")
        elif command:
            _look_at(command[0], table)
        return cls(name, command)

    def render(self, notice: Notice) -> bytes:
        """Return the JSON document, the webhook's."""
        return json.dumps(webhook.message(notice), ensure_ascii=False, separators=(",", ":")).encode()

    def send(self, notice: Notice, deadline_seconds: float) -> None:
        """Run it; exit code 0 says that it has the notice."""
        ended = run(self._command, self.render(notice), _environment(notice), Deadline(deadline_seconds))
        if ended.code != 0:
            raise DeliveryError("command", f"{self._command[0]} {_told(ended)}", retryable=ended.code != REFUSED)

    def destination(self) -> str:
        """Name the program, not its arguments."""
        return f"command {self._command[0]}"


def _look_at(path: str, table: Table) -> None:
    if not path.startswith("/"):
        table.problem("command", f"must be an absolute path, not {path!r}", index=0)
        return
    try:
        mode, folder_mode = Path(path).stat().st_mode, Path(path).parent.stat().st_mode
    except OSError as error:
        # Another machine's command, when a file is checked elsewhere.
        tell = table.problem if table.document.secrets_needed else table.note
        tell("command", f"cannot run {path!r}: {error.strerror}", index=0)
        return
    if not stat.S_ISREG(mode) or not os.access(path, os.X_OK):
        table.problem("command", f"{path!r} is not an executable file", index=0)
    elif mode & stat.S_IWOTH:
        table.problem("command", f"everyone on this host can change {path!r}: chmod o-w {path}", index=0)
    elif folder_mode & stat.S_IWOTH and not folder_mode & stat.S_ISVTX:
        table.problem("command", f"everyone on this host can replace {path!r}: chmod o-w {Path(path).parent}", index=0)


def _environment(notice: Notice) -> dict[str, str]:
    """Return what a small script wants to know without taking JSON apart; each is one line."""
    values = {
        "STATUS": notice.status,
        "SEVERITY": notification_text.worst_first(notice.alerts)[0].severity.label,
        "RULE": notice.group,
        "HOST": notice.host,
        "REASON": notice.reason,
        "TITLE": notification_text.notice_title(notice),
        "NOTIFICATION_ID": notice.id,
        "RECEIVER": notice.receiver,
        "TEST": "true" if notice.test else "false",
    }
    return {f"WATCHDOG_{name}": sanitize.visible(value, _LONGEST_VARIABLE) for name, value in values.items()}


def _told(ended: Ended) -> str:
    how = f"ended with code {ended.code}" if ended.code > 0 else f"was killed by {_signal_name(-ended.code)}"
    lines = ended.output.decode("utf-8", "surrogateescape").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return f"{how}: {sanitize.visible(last, _LONGEST_OUTPUT)}" if last else how


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
