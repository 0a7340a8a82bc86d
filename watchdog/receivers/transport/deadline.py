"""Deadlines for sockets: an operation ends when its deadline passes.

The timeout of a socket starts again with each read, so a peer that sends a byte now and then blocks its caller for
ever.
"""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType
from typing import Self


class Deadline:
    """A moment at which an operation must have ended; CLOCK_MONOTONIC."""

    def __init__(self, seconds: float) -> None:
        """Set the deadline to `seconds` from now."""
        self._at = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds left, 0 after the deadline."""
        return max(0.0, self._at - time.monotonic())

    def socket_timeout(self) -> float:
        """Return the seconds left, at least 1 ms: with a timeout of 0 a socket does not wait at all."""
        return max(0.001, self.remaining())


class DeadlineEnforcer:
    """Shuts the watched socket down when the deadline passes, which ends every read and write on it."""

    def __init__(self, deadline: Deadline) -> None:
        """Prepare the timer; it runs inside the `with` block only."""
        self._lock = threading.Lock()
        self._watched: socket.socket | None = None
        self._timer = threading.Timer(deadline.remaining(), self._expire)
        self._timer.daemon = True
        self.has_expired = False

    def __enter__(self) -> Self:
        """Start the timer."""
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the timer and close the descriptor of the watched socket."""
        self._timer.cancel()
        with self._lock:
            if self._watched is not None:
                self._watched.close()
            self._watched = None

    def watch_socket(self, connection: socket.socket) -> None:
        """Watch `connection` through a duplicate descriptor: TLS takes over the original one."""
        with self._lock:
            self._watched = connection.dup()
            if self.has_expired:
                _shut_down(self._watched)

    def _expire(self) -> None:
        with self._lock:
            self.has_expired = True
            if self._watched is not None:
                _shut_down(self._watched)


def _shut_down(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the peer has closed already
