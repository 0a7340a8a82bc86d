"""Command receiver: runs a user's program with each notification as JSON on its standard input.

Exit code 0 means delivered, 65 (EX_DATAERR) refused; every other end is retried.

Source: sysexits.h(3head) for the exit codes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import stat
from pathlib import Path
from typing import ClassVar, Self

from watchdog import sanitize
from watchdog.alerts.masking import mask_text
from watchdog.config.document import Table
from watchdog.config.trusted_files import data_owners, flaws_on_path
from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.receivers import webhook
from watchdog.receivers.base import Receiver, ReceiverOptions
from watchdog.receivers.render import notification_text
from watchdog.receivers.transport.child_process import ProcessResult, run_process
from watchdog.receivers.transport.deadline import Deadline
from watchdog.routing.notification import Notification

EXIT_REFUSED = os.EX_DATAERR

_ABSOLUTE_PATH = re.compile(r"(?:^|(?<=[\s='\"(:;|&<>`]))/[^\s'\"():;|&<>`]+")
_MAX_FIRST_LINE = 256  # BINPRM_BUF_SIZE of Linux
_MAX_VARIABLE_LENGTH = 1_024
_MAX_OUTPUT_LENGTH = 200  # characters in the log


class Command(Receiver):
    """Runs a program for each notification."""

    type: ClassVar[str] = "command"
    default_rate_limit: ClassVar[str] = "600/h"

    def __init__(self, name: str, command: tuple[str, ...], options: ReceiverOptions | None = None) -> None:
        """Run `command`: an absolute path and arguments."""
        super().__init__(name, options)
        self._command = command

    @classmethod
    def from_table(cls, name: str, table: Table, options: ReceiverOptions | None = None) -> Self:
        """Read `command` and check the program's file."""
        command = table.texts("command")
        if not command and not table.has_problem("command"):
            table.add_problem("command", "must contain the path of a program")
        if any("\0" in word for word in command):
            table.add_problem("command", "must not contain NUL characters")
        elif command:
            _check_program(command[0], table)
            _check_scripts(command, table)
        return cls(name, command, options)

    def render(self, notification: Notification) -> bytes:
        """Return the JSON document of the webhook receiver."""
        return json.dumps(webhook.webhook_payload(notification), ensure_ascii=False, separators=(",", ":")).encode()

    def send(self, notification: Notification, deadline_seconds: float) -> None:
        """Run the program; exit code 0 confirms the notification."""
        ended = run_process(
            self._command, self.render(notification), _environment(notification), Deadline(deadline_seconds)
        )
        if ended.exit_code != 0:
            raise DeliveryError(
                DeliveryErrorReason.COMMAND,
                f"{self._command[0]} {_describe_failure(ended)}",
                retryable=ended.exit_code != EXIT_REFUSED,
            )

    def destination(self) -> str:
        """Return the path of the program, without its arguments: they may be secret."""
        return f"command {self._command[0]}"


def _check_program(path: str, table: Table) -> None:
    if not path.startswith("/"):
        table.add_problem("command", f"must be an absolute path, not {path!r}", index=0)
        return
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        # `check` may run on another machine than the daemon: there a missing program is only a note.
        report = table.add_problem if table.document.require_secrets else table.add_note
        report(
            "command",
            f"cannot run {path!r}: {error.strerror}",
            index=0,
            denied_path=path if isinstance(error, PermissionError) else "",
        )
        return
    if not stat.S_ISREG(mode) or not os.access(path, os.X_OK):
        table.add_problem("command", f"{path!r} is not an executable file", index=0)
    elif flaws := flaws_on_path(path, data_owners()):
        table.add_problem("command", f"{flaws[0].path!r}: {flaws[0]}", index=0)


def _check_scripts(command: tuple[str, ...], table: Table) -> None:
    """Add a problem for each file that `command` can run besides its program and that others can change.

    These are interpreters, and scripts and other files among the arguments, in texts for `sh -c` too.
    """
    owners = data_owners()
    for index, word in enumerate(command):
        named = _ABSOLUTE_PATH.findall(word) if index else [word]
        files = [path for path in named if os.path.isfile(path)]  # noqa: PTH113 - false also for a path that none can have
        interpreters = [found for path in files if (found := _interpreter(path)) is not None]
        for path in [*(files if index else ()), *interpreters]:
            for flaw in flaws_on_path(path, owners):
                table.add_problem("command", f"{flaw.path!r}: {flaw}", index=index)


def _interpreter(path: str) -> str | None:
    """Return the interpreter that the first line of the script at `path` names; None without one. See execve(2)."""
    try:
        with Path(path).open("rb") as file:
            start, _, line = file.read(_MAX_FIRST_LINE).partition(b"\n")[0].partition(b"#!")
    except OSError:
        return None
    words = os.fsdecode(line).split()
    return words[0] if words and not start else None


def _environment(notification: Notification) -> dict[str, str]:
    """Return environment variables for scripts that do not parse JSON; each value is one line."""
    values = {
        "STATUS": notification.status,
        "SEVERITY": notification_text.worst_first(notification.alerts)[0].severity.label,
        "GROUP_KEY": notification.group_key,
        "HOST": notification.host,
        "NOTIFICATION_REASON": notification.reason_text,
        "TITLE": notification_text.notification_title(notification),
        "NOTIFICATION_ID": notification.id,
        "RECEIVER": notification.receiver,
        "TEST": "true" if notification.is_test else "false",
    }
    return {
        f"WATCHDOG_{name}": sanitize.escape_unprintable(value, _MAX_VARIABLE_LENGTH) for name, value in values.items()
    }


def _describe_failure(ended: ProcessResult) -> str:
    event = (
        f"ended with code {ended.exit_code}"
        if ended.exit_code > 0
        else f"was killed by {_signal_name(-ended.exit_code)}"
    )
    lines = ended.output.decode("utf-8", "surrogateescape").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return f"{event}: {sanitize.escape_unprintable(mask_text(last), _MAX_OUTPUT_LENGTH)}" if last else event


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
