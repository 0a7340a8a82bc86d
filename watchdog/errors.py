"""The exceptions of bpf-watchdog.

WatchdogError                 exit code 1
├── UsageError                2   the command line or a request is wrong
├── ConfigError               1   one or more `Problem`s in TOML files
├── DaemonUnreachable         3
├── NotPermitted              4   a capability is missing
├── KernelUnfit               4   the kernel, bcc or libbpf lacks a required feature
├── UntrustedCode             4   others can change the program itself
├── TemporaryFailure         75   memory, disk space, descriptors or processes are used up
│   └── HandoverError        75   the loader did not hand over the expected programs and maps
├── StoreError                1   the state file cannot be used
├── DocumentError             -   a saved JSON document cannot be read; its reader counts it and continues
└── DeliveryError             -   one attempt to deliver failed; never leaves the delivery worker
    ├── UncertainDeliveryError    …   or it succeeded, but its answer did not arrive
    └── PartialDeliveryError      …   or it succeeded for some of several recipients
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

TEMPORARY_ERRNOS: Final = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EDQUOT,
        errno.EINTR,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
    }
)
"""Errors that end by themselves, or when a process ends or a file is removed; other users can cause them."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One problem in a file, shown as `file:line: key: message`.

    `denied_path`: the file or folder that the configuration needs and this account may not read, else "".
    """

    file: str
    line: int
    key: str
    message: str
    denied_path: str = field(default="", compare=False)

    def __str__(self) -> str:
        """Format as `file:line: key: message`."""
        return f"{self.file}:{self.line}: {self.key}: {self.message}"

    def as_note(self) -> Problem:
        """Return the problem with a mark that nothing is refused for it: `file:line: key: note: message`."""
        return replace(self, message=f"note: {self.message}")


class WatchdogError(Exception):
    """Base of everything that bpf-watchdog raises on purpose.

    `str(error)` is `text: remedy`, or `text` alone where there is no remedy.
    """

    exit_code = 1

    def __init__(self, text: str, *, remedy: str = "") -> None:
        """Keep the text and the remedy: the action that makes the error go away, "" if none is known."""
        super().__init__(f"{text}: {remedy}" if remedy else text)
        self.text = text
        self.remedy = remedy


class UsageError(WatchdogError):
    """The command line or a request is wrong."""

    exit_code = 2


class ConfigError(WatchdogError):
    """TOML files that cannot be used. `problems`: all problems, in file and line order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep `problems`; the text of the exception is one problem a line."""
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class DaemonUnreachable(WatchdogError):
    """No daemon answers on the control socket."""

    exit_code = 3


class NotPermitted(WatchdogError):
    """A capability is missing."""

    exit_code = 4


class KernelUnfit(WatchdogError):
    """The kernel, bcc or libbpf lacks a required feature."""

    exit_code = 4


class UntrustedCode(WatchdogError):
    """Accounts other than root can change the program itself. The text has one line for each file or folder."""

    exit_code = 4


class TemporaryFailure(WatchdogError):
    """Memory, disk space, descriptors or processes are used up: another start can succeed without any change."""

    exit_code = os.EX_TEMPFAIL


class HandoverError(TemporaryFailure):
    """The loader did not hand over the expected programs and maps: it was killed, for example."""


class StoreError(WatchdogError):
    """The state file cannot be used."""


class DocumentError(WatchdogError):
    """A saved JSON document cannot be read: it is damaged, or another version wrote it."""


@contextmanager
def document_errors() -> Iterator[None]:
    """Raise DocumentError for each error that a malformed document causes. Usable as a decorator.

    Raises:
        DocumentError: a key is missing, or a value has another type or range than expected.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise DocumentError(f"unreadable document: {type(error).__name__}") from error


class DeliveryErrorReason(StrEnum):
    """Why an attempt to deliver failed. The values stand in logs, counters and JSON."""

    TIMEOUT = "timeout"
    CONNECT = "connect"
    DNS = "dns"
    TLS = "tls"
    RATE_LIMITED = "rate_limited"  # the receiver asked for a pause
    CLIENT_ERROR = "client_error"  # the receiver refused the message
    SERVER_ERROR = "server_error"  # the receiver failed
    AUTH = "auth"
    REDIRECT = "redirect"
    FORBIDDEN_ADDRESS = "forbidden_address"
    SOCKET = "socket"  # a local socket or file descriptor
    RENDER = "render"  # the body could not be built
    STORE = "store"  # the state of the receiver could not be read or written
    COMMAND = "command"
    INTERNAL = "internal"  # a defect of bpf-watchdog


class DeliveryError(WatchdogError):
    """One attempt to deliver a notification failed. The text is safe to log: it holds no URL and no secret."""

    def __init__(
        self,
        reason: DeliveryErrorReason,
        text: str,
        *,
        retryable: bool,
        retry_after_seconds: float | None = None,
    ) -> None:
        """Keep the reason, whether another attempt can help, and the wait that the receiver asked for."""
        super().__init__(text)
        self.reason = reason
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds


class UncertainDeliveryError(DeliveryError):
    """All of a message was sent, but there was no usable answer: the service may have taken it."""


class PartialDeliveryError(DeliveryError):
    """Some of several recipients got the message: the receiver works. `retryable`: others may be reached later."""


def error_location(error: Exception) -> str:
    """Return "file.py:line" of the statement that raised `error`; its text may hold secrets, so only this is logged."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:  # it was not raised
        return "-"
    return f"{place.tb_frame.f_code.co_filename.rpartition('/')[2]}:{place.tb_lineno}"
