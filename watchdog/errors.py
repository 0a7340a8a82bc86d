"""The exceptions of bpf-watchdog.

WatchdogError                 exit code 1
├── UsageError                2   the command line asks for something that makes no sense
├── ConfigError               1   one or more `Problem`s in TOML files
├── DaemonUnreachable         3
├── NotPermitted              4   a capability is missing
├── KernelUnfit               4   the kernel (or bcc, libbpf) lacks something; names it and the remedy
├── HandoverError             4   the loader did not hand over what was expected
├── StoreError                1   the state file cannot be used
└── DeliveryError             -   one attempt to deliver failed; never leaves the delivery worker
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong in a file, told as `file:line: key: message`."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        """Format as `file:line: key: message`."""
        return f"{self.file}:{self.line}: {self.key}: {self.message}"


class WatchdogError(Exception):
    """Base of everything that bpf-watchdog raises on purpose."""

    exit_code = 1


class UsageError(WatchdogError):
    """The command line asks for something impossible."""

    exit_code = 2


class ConfigError(WatchdogError):
    """TOML files that cannot be used; `problems` holds every problem found, in file and line order."""

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
    """The kernel, bcc or libbpf lacks something; the text names it and the remedy."""

    exit_code = 4


class HandoverError(WatchdogError):
    """The loader handed over something else than the daemon expects."""

    exit_code = 4


class StoreError(WatchdogError):
    """The state file cannot be used."""


class DeliveryError(WatchdogError):
    """One attempt to deliver a notice failed.

    `reason` is a short label of a closed set (`timeout`, `connect`, `dns`, `tls`, `rate_limited`, `client_error`,
    `server_error`, `auth`, `redirect`, `forbidden_address`, `socket`, `render`, `command`); the text is safe to log: it
    holds no URL and no secret.
    """

    def __init__(self, reason: str, text: str, *, retryable: bool, retry_after_seconds: float | None = None) -> None:
        """Keep the label, whether trying again can help, and the wait that the receiver asked for."""
        super().__init__(text)
        self.reason = reason
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds
