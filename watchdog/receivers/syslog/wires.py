"""Transports to a syslog server: Unix datagram sockets and UDP here, TCP and TLS in `stream`. All obey a deadline.

Each call opens a new socket: notifications are rare, and a new socket is never half closed.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.receivers.syslog.stream import MAX_RECORD_BYTES, StreamWire, TlsSettings, bracket_ipv6
from watchdog.receivers.transport.connect import resolve_host
from watchdog.receivers.transport.deadline import Deadline
from watchdog.receivers.transport.host_names import host_problem

LOCAL_SYSLOG_SOCKETS = ("/dev/log", "/run/systemd/journal/dev-log", "/run/systemd/journal/syslog")

# RFC 5426 §3.3, RFC 5425 §4.1; plain TCP has no port of its own and uses that of UDP
_PORTS = {"udp": 514, "tcp": 514, "tls": 6_514}
_MAX_PATH_BYTES = 107  # unix(7): sun_path without the NUL


class SyslogWire(Protocol):
    """Sends records to one syslog server."""

    @property
    def max_record_bytes(self) -> int:
        """The maximum size of a record in octets."""
        ...

    def send_records(self, records: Sequence[bytes], deadline: Deadline) -> None:
        """Send `records` in order.

        Raises:
            DeliveryError: a record was not delivered before the deadline.
        """
        ...

    def __str__(self) -> str:
        """Return the address in the form of the configuration."""
        ...


def wire_from_address(
    text: str, framing: str = "octet-counting", tls_settings: TlsSettings | None = None
) -> SyslogWire:
    """Return the wire for an address like `unix:///dev/log`, `udp://host:514`, `tcp://host` or `tls://host:6514`.

    `framing` is for TCP. `tls_settings` is for TLS, which trusts no authority without it.

    Raises:
        ValueError: not an address; the text names the problem.
    """
    parts = urlsplit(text)
    if parts.scheme == "unix":
        return UnixWire(parse_unix_address(text))
    if parts.scheme not in _PORTS:
        raise ValueError("must begin with unix://, udp://, tcp:// or tls://")
    # .port raises ValueError if it is not a port
    if not parts.hostname or parts.port == 0 or parts.path or parts.query or parts.username is not None:
        raise ValueError(f"write it like {parts.scheme}://host:{_PORTS[parts.scheme]}")
    if problem := host_problem(parts.hostname):
        raise ValueError(f"the host {problem}")
    port = parts.port or _PORTS[parts.scheme]
    if parts.scheme == "udp":
        return UdpWire(parts.hostname, port)
    if parts.scheme == "tcp":
        return StreamWire(parts.hostname, port, framing)
    return StreamWire(
        parts.hostname, port, tls_settings=tls_settings or TlsSettings(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    )


def parse_unix_address(text: str) -> str:
    """Return the path in an address like `unix:///dev/log`.

    Raises:
        ValueError: not the address of a Unix socket.
    """
    parts = urlsplit(text)
    is_absolute = parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc
    if not is_absolute or not 1 < len(parts.path.encode()) <= _MAX_PATH_BYTES:
        raise ValueError(f"write it like unix:///dev/log, an absolute path of at most {_MAX_PATH_BYTES} bytes")
    return parts.path


@dataclass(frozen=True, slots=True)
class UnixWire:
    """A Unix datagram socket: a record is delivered once it is in the reader's queue."""

    path: str

    max_record_bytes = MAX_RECORD_BYTES

    def send_records(self, records: Sequence[bytes], deadline: Deadline) -> None:
        """Send one datagram per record; wait while the reader's queue (net.unix.max_dgram_qlen) is full."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
                datagrams.setblocking(False)
                datagrams.connect(self.path)
                for record in records:
                    send_datagram(datagrams, record, deadline, str(self))
        except OSError as error:
            raise DeliveryError(DeliveryErrorReason.SOCKET, f"{self}: {error.strerror}", retryable=True) from None

    def __str__(self) -> str:
        """Return the address."""
        return f"unix://{self.path}"


@dataclass(frozen=True, slots=True)
class UdpWire:
    """UDP, RFC 5426: a record is delivered once it is sent; only a refusal by the peer's host is an error."""

    host: str
    port: int

    max_record_bytes = 2_048  # RFC 5426 §3.2: receivers should accept this size

    def send_records(self, records: Sequence[bytes], deadline: Deadline) -> None:
        """Send one datagram per record."""
        address = resolve_host(self.host, self.port, socket.SOCK_DGRAM, deadline)[0]
        try:
            with socket.socket(address.family, socket.SOCK_DGRAM) as datagrams:
                datagrams.setblocking(False)
                datagrams.connect(address.sockaddr)
                for record in records:
                    send_datagram(datagrams, record, deadline, str(self))
                socket_error = datagrams.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        except OSError as error:
            raise DeliveryError(DeliveryErrorReason.CONNECT, f"{self}: {error.strerror}", retryable=True) from None
        if socket_error:
            raise DeliveryError(DeliveryErrorReason.CONNECT, f"{self}: no server listens on this port", retryable=True)

    def __str__(self) -> str:
        """Return the address."""
        return f"udp://{bracket_ipv6(self.host)}:{self.port}"


def send_datagram(
    datagrams: socket.socket, record: bytes, deadline: Deadline, address: str, descriptors: Sequence[int] = ()
) -> None:
    """Send `record`, together with `descriptors`; wait while the reader's queue is full.

    Raises:
        DeliveryError: `timeout`: the queue is still full at the deadline.
        OSError: the kernel refused the datagram for another reason.
    """
    poll = select.poll()
    poll.register(datagrams, select.POLLOUT)
    while True:
        try:
            if descriptors:
                socket.send_fds(datagrams, [record], list(descriptors))
            else:
                datagrams.send(record)
        except BlockingIOError:
            if not poll.poll(deadline.remaining() * 1_000):
                raise DeliveryError(
                    DeliveryErrorReason.TIMEOUT, f"{address}: the reader's queue is full", retryable=True
                ) from None
        else:
            return
