"""The end of an attempt on a socket: at its deadline, or once the peer has cost too much.

The timeout of a socket starts again with each read, so a peer that sends a byte now and then blocks its caller for
ever; and a peer that sends without end costs as much CPU time as there is until the deadline. The readers of HTTP,
SMTP and syslog have exact limits of their own. This guard holds for the bytes that none of them sees: records of TLS
without data, renegotiations, and the answers of proxies.

Source: tcp(7), TCP_INFO; struct tcp_info in include/uapi/linux/tcp.h: tcpi_bytes_received since Linux 4.1.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from types import TracebackType
from typing import Final, Self

from watchdog.receivers.transport.deadline import Deadline
from watchdog.receivers.transport.threads import run_in_thread

MAX_RECEIVED_BYTES: Final = 4_194_304  # twice the longest answer that a reader takes, for TLS and full buffers
MAX_CPU_SECONDS: Final = 2.0  # of the thread of the attempt; a TLS handshake needs some milliseconds

_CHECK_INTERVAL_SECONDS = 0.25
_BYTES_RECEIVED = struct.Struct("=128xQ")  # tcpi_bytes_received


class AttemptGuard:
    """Shuts the watched socket down at the deadline or above a limit, which ends every read and write on it.

    To be used by one thread, whose CPU time counts.
    """

    def __init__(self, deadline: Deadline) -> None:
        """Prepare the guard; it runs inside the `with` block only."""
        self._deadline = deadline
        self._lock = threading.Lock()
        self._watched: socket.socket | None = None
        self._ended = threading.Event()
        self._cpu_clock = 0
        self._cpu_start = 0.0
        self.has_expired = False
        self.exceeded_limit: str | None = None
        """The limit that the attempt exceeded, in words; None: none, or the deadline."""

    def __enter__(self) -> Self:
        """Start the guard for the calling thread.

        Raises:
            DeliveryError: the host has no thread for it.
        """
        self._cpu_clock = time.pthread_getcpuclockid(threading.get_ident())
        self._cpu_start = time.clock_gettime(self._cpu_clock)
        run_in_thread(self._run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the guard and close the descriptor of the watched socket."""
        with self._lock:
            self._ended.set()
            if self._watched is not None:
                self._watched.close()
            self._watched = None

    @property
    def was_shut_down(self) -> bool:
        """Whether the guard ended the attempt."""
        return self.has_expired or self.exceeded_limit is not None

    def watch_socket(self, connection: socket.socket) -> None:
        """Watch `connection` through a duplicate descriptor: TLS takes over the original one."""
        with self._lock:
            self._watched = connection.dup()
            if self.was_shut_down:
                _shut_down(self._watched)

    def _run(self) -> None:
        while not self._ended.wait(min(_CHECK_INTERVAL_SECONDS, self._deadline.remaining())):
            with self._lock:
                if self._ended.is_set():
                    return
                self.has_expired = self._deadline.remaining() <= 0
                self.exceeded_limit = self._find_exceeded_limit()
                if self.was_shut_down:
                    if self._watched is not None:
                        _shut_down(self._watched)
                    return

    def _find_exceeded_limit(self) -> str | None:
        if self._watched is not None and _received_bytes(self._watched) > MAX_RECEIVED_BYTES:
            return f"more than {MAX_RECEIVED_BYTES >> 20} MiB received"
        if time.clock_gettime(self._cpu_clock) - self._cpu_start > MAX_CPU_SECONDS:
            return f"more than {MAX_CPU_SECONDS:g} s of CPU time needed"
        return None


def _received_bytes(connection: socket.socket) -> int:
    """Return the bytes that the kernel has received on a TCP connection, read or not."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED.size)
    count: int = _BYTES_RECEIVED.unpack(info)[0]
    return count


def _shut_down(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the peer has closed already
