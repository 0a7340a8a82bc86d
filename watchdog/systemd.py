"""Interface to systemd: sd_notify(3) messages, machine id, the journal's stream, and its own protocol.

Without systemd, all of it has no effect.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"
_MACHINE_ID = Path("/etc/machine-id")
_SEND_TIMEOUT_SECONDS = 1.0  # systemd's socket may be full for a moment
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_MAX_LATE_INTERVALS = 3  # intervals without a sample before systemd restarts the daemon
_MICROSECONDS = re.compile(r"[0-9]{1,20}")
_MAX_MICROSECONDS = 2**64 - 2  # the number above it stands for infinity


class Systemd:
    """The service manager, if it started this process and expects notifications."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Take address and watchdog interval from `environment` (NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID)."""
        address = environment.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL byte of an abstract address. Other forms (vsock:…) are not supported.
        self._address = address.replace("@", "\0", 1) if address.startswith("@") else address
        if not address.startswith(("/", "@")):
            self._address = ""
        self.watchdog_interval_seconds = _watchdog_interval_seconds(environment)
        self._unsent_timeout = ""  # the newest message of set_watchdog_timeout, where the socket was full

    def notify_ready(self, wait_seconds: float = _SEND_TIMEOUT_SECONDS) -> bool:
        """Report that the start, or the reload, has finished; return whether it was sent.

        `wait_seconds`: for a socket that is full.
        """
        return self._send("READY=1", wait_seconds)

    def notify_start_step(self, step: str, limit_seconds: float) -> bool:
        """Show the present step of the start as status, and let it take `limit_seconds` from now on.

        TimeoutStartSec of the unit is never shortened by this.
        """
        return self._send(f"STATUS=starting: {_in_one_line(step)}\nEXTEND_TIMEOUT_USEC={round(limit_seconds * 1e6)}")

    def notify_reloading(self) -> bool:
        """Report that a reload begins; `notify_ready` must follow."""
        # With Type=notify-reload (systemd 253), a reload without the time never ends.
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def notify_stopping(self) -> bool:
        """Report that the daemon is stopping."""
        return self._send("STOPPING=1")

    def notify_status(self, text: str, wait_seconds: float = _SEND_TIMEOUT_SECONDS) -> bool:
        """Show `text` in `systemctl status`; return whether it was sent. `wait_seconds`: for a socket that is full.

        Line ends become spaces, because each line would be a separate message.
        """
        return self._send(f"STATUS={_in_one_line(text)}", wait_seconds)

    def notify_watchdog(self) -> bool:
        """Report that the daemon works. Call it after a successful sample, never from a thread that only waits.

        It does not wait for a socket that is full: a PID 1 that has stopped reading must not slow down the ticks.
        systemd restarts a daemon that has not reported for `watchdog_interval_seconds` (None: no watchdog is set).
        """
        if self.watchdog_interval_seconds is None or not self._send(f"WATCHDOG=1{self._unsent_timeout}", 0.0):
            return False
        self._unsent_timeout = ""
        return True

    def set_watchdog_timeout(self, tick_interval_seconds: float) -> bool:
        """Set systemd's watchdog timeout to three tick intervals, if that is longer than the timeout of the unit.

        Where the socket is full, the next `notify_watchdog` sends it.
        """
        if self.watchdog_interval_seconds is None:
            return False
        timeout_seconds = max(self.watchdog_interval_seconds, _MAX_LATE_INTERVALS * tick_interval_seconds)
        message = f"WATCHDOG_USEC={round(timeout_seconds * 1_000_000)}"
        was_sent = self._send(message)
        self._unsent_timeout = "" if was_sent else f"\n{message}"
        return was_sent

    def _send(self, message: str, wait_seconds: float = _SEND_TIMEOUT_SECONDS) -> bool:
        # A failure is reported by the result only: monitoring must continue without systemd.
        if not self._address:
            return False
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(wait_seconds)
            sender.sendto(message.encode("utf-8", "replace"), self._address)
            return True
        return False


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def machine_id() -> str:
    """Return the id of this operating system installation (machine-id(5)), "" if there is none."""
    try:
        return _MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def is_journal(environment: Mapping[str, str], descriptor: int) -> bool:
    """Return whether `descriptor` is the stream that systemd connected to the journal.

    The variable alone is no proof: it is unchanged after a redirection of the stream. Source: systemd.exec(5).
    """
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def journal_entry(fields: Iterable[tuple[str, str]]) -> bytes:
    """Return the datagram of an entry of the journal, from names and values of its fields.

    Source: systemd.io, "Journal native protocol".
    """
    return b"".join(_journal_field(name, value) for name, value in fields)


def _journal_field(name: str, value: str) -> bytes:
    octets = value.encode()
    if "\n" in value:
        return b"%b\n%b%b\n" % (name.encode(), len(octets).to_bytes(8, "little"), octets)
    return b"%b=%b\n" % (name.encode(), octets)


def sealed_file(entry: bytes) -> int:
    """Return the descriptor of a sealed memory file, for an entry that is too long for a datagram.

    journald reads no file that can still change.
    """
    file = os.memfd_create("entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    rest = memoryview(entry)
    while rest:
        rest = rest[os.write(file, rest) :]
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
    return file


def _watchdog_interval_seconds(environment: Mapping[str, str]) -> float | None:
    # sd_watchdog_enabled(3): WATCHDOG_PID names the watched process; a child inherits the variables.
    watched_pid = environment.get("WATCHDOG_PID", str(os.getpid()))
    text = environment.get("WATCHDOG_USEC", "")
    if watched_pid != str(os.getpid()) or not _MICROSECONDS.fullmatch(text):
        return None
    microseconds = int(text)
    return microseconds / 1_000_000 if 0 < microseconds <= _MAX_MICROSECONDS else None
