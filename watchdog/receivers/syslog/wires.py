"""The ways to a syslog server: here Unix datagram sockets and UDP, in `syslog_stream` TCP and TLS. None blocks.

Each call makes its own socket: notices are rare, and nothing has to be found out about what became of an old one.
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
from watchdog.receivers.syslog.stream import StreamWire, TlsSettings
from watchdog.receivers.transport.deadline import Deadline, resolve_host

LOCAL_SYSLOG_SOCKETS = ("/dev/log", "/run/systemd/journal/dev-log", "/run/systemd/journal/syslog")

# RFC 5426 §3.3, RFC 5425 §4.1; plain TCP has none of its own, and uses that of UDP
_PORTS = {"udp": 514, "tcp": 514, "tls": 6_514}
_LONGEST_PATH = 107  # unix(7): sun_path, less the NUL


class SyslogWire(Protocol):
    """Takes records to one place."""

    @property
    def max_record_bytes(self) -> int:
        """The octets that a record may have."""
        ...

    def send_records(self, records: Sequence[bytes], deadline: Deadline) -> None:
        """Send `records` in order, or raise `DeliveryError`."""
        ...

    def __str__(self) -> str:
        """Return the address, as the configuration writes it."""
        ...


def wire_from_address(
    text: str, framing: str = "octet-counting", tls_settings: TlsSettings | None = None
) -> SyslogWire:
    """Return the wire to an address like `unix:///dev/log`, `udp://host:514`, `tcp://host` or `tls://host:6514`.

    `framing` is that of TCP; `tls_settings` is used for TLS, which trusts nobody without.

    Raises:
        ValueError: says what is wrong with it.
    """
    parts = urlsplit(text)
    if parts.scheme == "unix":
        return UnixWire(parse_unix_address(text))
    if parts.scheme not in _PORTS:
        raise ValueError("must begin with unix://, udp://, tcp:// or tls://")
    # .port itself raises ValueError where it is no port
    if not parts.hostname or parts.port == 0 or parts.path or parts.query or parts.username is not None:
        raise ValueError(f"write it like {parts.scheme}://host:{_PORTS[parts.scheme]}")
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
        ValueError: there is none that a socket can have.
    """
    parts = urlsplit(text)
    is_absolute = parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc
    if not is_absolute or not 1 < len(parts.path.encode()) <= _LONGEST_PATH:
        raise ValueError(f"write it like unix:///dev/log, an absolute path of at most {_LONGEST_PATH} bytes")
    return parts.path


@dataclass(frozen=True, slots=True)
class UnixWire:
    """A Unix datagram socket: a record is delivered when it is in the reader's queue."""

    path: str

    max_record_bytes = 8_000  # rsyslog and syslog-ng take 8 KiB by default, less some room for what they add

    def send_records(self, records: Sequence[bytes], deadline: Deadline) -> None:
        """Send one datagram a record, waiting while the reader's queue (net.unix.max_dgram_qlen) is full."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
            datagrams.setblocking(False)
            try:
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
    """UDP, RFC 5426: a record is delivered when it has left; only what the peer's host refuses at once is noticed."""

    host: str
    port: int

    max_record_bytes = 2_048  # RFC 5426 §3.2: receivers should take this much

    def send_records(self, records: Sequence[bytes], deadline: Deadline) -> None:
        """Send one datagram a record."""
        address = resolve_host(self.host, self.port, socket.SOCK_DGRAM, deadline)[0]
        with socket.socket(address.family, socket.SOCK_DGRAM) as datagrams:
            datagrams.setblocking(False)
            try:
                datagrams.connect(address.sockaddr)
                for record in records:
                    send_datagram(datagrams, record, deadline, str(self))
                refused = datagrams.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            except OSError as error:
                raise DeliveryError(DeliveryErrorReason.CONNECT, f"{self}: {error.strerror}", retryable=True) from None
        if refused:
            raise DeliveryError(DeliveryErrorReason.CONNECT, f"{self}: nobody listens there", retryable=True)

    def __str__(self) -> str:
        """Return the address."""
        return f"udp://{_bracketed(self.host)}:{self.port}"


def send_datagram(
    datagrams: socket.socket, record: bytes, deadline: Deadline, address: str, descriptors: Sequence[int] = ()
) -> None:
    """Send `record`, and descriptors of `files` with it, waiting while the reader's queue is full.

    Raises:
        DeliveryError: `timeout`: it is still full at the deadline.
        OSError: whatever the kernel says to the rest.
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


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
