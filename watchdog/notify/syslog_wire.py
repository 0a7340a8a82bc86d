"""The three ways to a syslog server: a Unix datagram socket, UDP, TCP with octet counting. None blocks past a deadline.

Each call makes its own socket: notices are rare, and nothing has to be found out about what became of an old one.
"""

from __future__ import annotations

import array
import fcntl
import select
import socket
import termios
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from watchdog.errors import DeliveryError
from watchdog.notify.dial import Deadline, connect, resolve

SYSTEM_SOCKETS = ("/dev/log", "/run/systemd/journal/dev-log", "/run/systemd/journal/syslog")

_PORT = 514
_LONGEST_PATH = 107  # unix(7): sun_path, less the NUL
_CLOSING_SECONDS = 1.0  # how long to wait for a TCP peer to close before asking the kernel
_ASK_AGAIN_SECONDS = 0.05


class Wire(Protocol):
    """Takes records to one place."""

    @property
    def limit(self) -> int:
        """The octets that a record may have."""
        ...

    def deliver(self, records: Sequence[bytes], deadline: Deadline) -> None:
        """Send `records` in order, or raise `DeliveryError`."""
        ...

    def __str__(self) -> str:
        """Return the address, as the configuration writes it."""
        ...


def parse_address(text: str) -> Wire:
    """Return the wire to an address like `unix:///dev/log`, `udp://host:514` or `tcp://host`.

    Raises:
        ValueError: says what is wrong with it.
    """
    parts = urlsplit(text)
    if parts.scheme == "unix":
        is_absolute = parts.path.startswith("/") and not parts.netloc
        if not is_absolute or not 1 < len(parts.path.encode()) <= _LONGEST_PATH:
            raise ValueError(f"write it like unix:///dev/log, an absolute path of at most {_LONGEST_PATH} bytes")
        return UnixWire(parts.path)
    if parts.scheme not in ("udp", "tcp"):
        raise ValueError("must begin with unix://, udp:// or tcp://")
    # .port itself raises ValueError where it is no port
    if not parts.hostname or parts.port == 0 or parts.path or parts.query or parts.username is not None:
        raise ValueError(f"write it like {parts.scheme}://host:{_PORT}")
    port = parts.port or _PORT
    return UdpWire(parts.hostname, port) if parts.scheme == "udp" else TcpWire(parts.hostname, port)


@dataclass(frozen=True, slots=True)
class UnixWire:
    """A Unix datagram socket: a record is delivered when it is in the reader's queue."""

    path: str

    limit = 8_000  # rsyslog and syslog-ng take 8 KiB by default, less some room for what they add

    def deliver(self, records: Sequence[bytes], deadline: Deadline) -> None:
        """Send one datagram a record, waiting while the reader's queue (net.unix.max_dgram_qlen) is full."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
            datagrams.setblocking(False)
            try:
                datagrams.connect(self.path)
                for record in records:
                    _send_datagram(datagrams, record, deadline, str(self))
            except OSError as error:
                raise DeliveryError("socket", f"{self}: {error.strerror}", retryable=True) from None

    def __str__(self) -> str:
        """Return the address."""
        return f"unix://{self.path}"


@dataclass(frozen=True, slots=True)
class UdpWire:
    """UDP, RFC 5426: a record is delivered when it has left; only what the peer's host refuses at once is noticed."""

    host: str
    port: int

    limit = 2_048  # RFC 5426 §3.2: receivers should take this much

    def deliver(self, records: Sequence[bytes], deadline: Deadline) -> None:
        """Send one datagram a record."""
        address = resolve(self.host, self.port, socket.SOCK_DGRAM, deadline)[0]
        with socket.socket(address.family, socket.SOCK_DGRAM) as datagrams:
            datagrams.setblocking(False)
            try:
                datagrams.connect(address.sockaddr)
                for record in records:
                    _send_datagram(datagrams, record, deadline, str(self))
                refused = datagrams.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            except OSError as error:
                raise DeliveryError("connect", f"{self}: {error.strerror}", retryable=True) from None
        if refused:
            raise DeliveryError("connect", f"{self}: nobody listens there", retryable=True)

    def __str__(self) -> str:
        """Return the address."""
        return f"udp://{_bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class TcpWire:
    """TCP with octet counting, RFC 6587 §3.4.1: delivered when the peer has closed after us, having read to our end.

    A connection that stays open says nothing of what became of the records written to it: the first write after the
    peer has gone succeeds. So each notice has its own connection, and its end is the acknowledgement. From a peer that
    does not close, the word of its kernel that all has arrived must do: a record that its process then never reads is
    lost unnoticed.
    """

    host: str
    port: int

    limit = 8_000  # as for Unix sockets

    def deliver(self, records: Sequence[bytes], deadline: Deadline) -> None:
        """Send the records on a connection of their own, close our half of it and wait for the peer's."""
        frames = b"".join(b"%d %b" % (len(record), record) for record in records)
        with connect(self.host, self.port, deadline) as connection:
            try:
                connection.sendall(frames)
                connection.shutdown(socket.SHUT_WR)
                if self._closed_by_peer(connection, Deadline(min(_CLOSING_SECONDS, deadline.remaining()))):
                    return
                self._wait_for_kernel(connection, deadline)
            except TimeoutError:
                raise DeliveryError("timeout", f"{self}: the server does not read", retryable=True) from None
            except OSError as error:
                raise DeliveryError("connect", f"{self}: {error.strerror}", retryable=True) from None

    def __str__(self) -> str:
        """Return the address."""
        return f"tcp://{_bracketed(self.host)}:{self.port}"

    def _closed_by_peer(self, connection: socket.socket, patience: Deadline) -> bool:
        while remaining := patience.remaining():
            connection.settimeout(remaining)
            try:
                if not connection.recv(4_096):  # what a peer says is not part of the protocol
                    return True
            except TimeoutError:
                break
        return False

    def _wait_for_kernel(self, connection: socket.socket, deadline: Deadline) -> None:
        while _unacknowledged_bytes(connection):
            if not deadline.remaining():
                raise TimeoutError
            select.select([], [], [], min(_ASK_AGAIN_SECONDS, deadline.remaining()))


def _unacknowledged_bytes(connection: socket.socket) -> int:
    """Return how much of what was sent, the end included, the peer's kernel has not acknowledged: SIOCOUTQ, tcp(7)."""
    answer = array.array("i", [0])
    fcntl.ioctl(connection, termios.TIOCOUTQ, answer)
    return answer[0]


def _send_datagram(datagrams: socket.socket, record: bytes, deadline: Deadline, address: str) -> None:
    poll = select.poll()
    poll.register(datagrams, select.POLLOUT)
    while True:
        try:
            datagrams.send(record)
        except BlockingIOError:
            if not poll.poll(deadline.remaining() * 1_000):
                raise DeliveryError("timeout", f"{address}: the reader's queue is full", retryable=True) from None
        else:
            return


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
