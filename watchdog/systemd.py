"""What the daemon has to do with systemd: telling it how it is (sd_notify(3)), knowing the journal's stream.

Without systemd, nothing of it does anything.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

_MACHINE_ID = Path("/etc/machine-id")
_PATIENCE_SECONDS = 1.0  # systemd's socket may be full for a moment; a tick must not wait for longer
_TIMES_LATE = 3  # intervals without a sample before the daemon counts as stuck


class Systemd:
    """The service manager that started this process, if one did and asked to be told."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Take address and watchdog interval from `environment` (NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID)."""
        address = environment.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL byte of an abstract address; anything but that and a path (vsock:…) is for others.
        self._address = address.replace("@", "\0", 1) if address.startswith("@") else address
        if not address.startswith(("/", "@")):
            self._address = ""
        self.watchdog_interval_seconds = _watchdog_interval_seconds(environment)

    def notify_ready(self) -> bool:
        """Say that the start, or the reload, is over."""
        return self._tell("READY=1")

    def notify_reloading(self) -> bool:
        """Say that a reload begins; `ready` must follow."""
        # Type=notify-reload (systemd 253) waits for ever for a reload told without the time.
        return self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def notify_stopping(self) -> bool:
        """Say that the end has begun."""
        return self._tell("STOPPING=1")

    def notify_status(self, text: str) -> bool:
        """Show `text` in `systemctl status`, its line ends made spaces: each line would be a message of its own."""
        return self._tell(f"STATUS={' '.join(text.split())}")

    def notify_watchdog(self) -> bool:
        """Say that the daemon does its work: to be called after a good sample, never by a thread that only waits.

        systemd restarts a daemon that has not said so for `watchdog_interval_seconds` (None: it does not watch).
        """
        return self.watchdog_interval_seconds is not None and self._tell("WATCHDOG=1")

    def set_watchdog_timeout(self, tick_interval_seconds: float) -> bool:
        """Have systemd wait for `watchdog` for three times `seconds`, where that is longer than what the unit says."""
        if self.watchdog_interval_seconds is None:
            return False
        patience = max(self.watchdog_interval_seconds, _TIMES_LATE * tick_interval_seconds)
        return self._tell(f"WATCHDOG_USEC={round(patience * 1_000_000)}")

    def _tell(self, message: str) -> bool:
        # False if there is no one to tell, or they would not listen: no reason to stop guarding.
        if not self._address:
            return False
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_PATIENCE_SECONDS)
            sender.sendto(message.encode("utf-8", "replace"), self._address)
            return True
        return False


def machine_id() -> str:
    """Return the id of this installation of an operating system (machine-id(5)), "" where there is none."""
    try:
        return _MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def is_journal(environment: Mapping[str, str], descriptor: int) -> bool:
    """Tell whether `descriptor` is the stream that systemd connected to the journal.

    The variable alone says nothing: whoever redirects the stream leaves it as it was. Source: systemd.exec(5).
    """
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _watchdog_interval_seconds(environment: Mapping[str, str]) -> float | None:
    # sd_watchdog_enabled(3): WATCHDOG_PID names the process that is meant; a child inherits the variables.
    meant = environment.get("WATCHDOG_PID", str(os.getpid()))
    microseconds = environment.get("WATCHDOG_USEC", "")
    if meant != str(os.getpid()) or not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    return int(microseconds) / 1_000_000
