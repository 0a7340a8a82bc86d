"""Sockets under a deadline: name resolution, connecting and everything read or written after end when time is up.

The timeouts of sockets count from one read to the next, so that a peer which sends a byte now and then holds its caller
for ever; and name resolution has none at all.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - Python itself imports it at the first look-up of a name
import ipaddress
import socket
import threading
import time
from types import TracebackType
from typing import NamedTuple, Self

from watchdog.errors import DeliveryError, DeliveryErrorReason

# Cloud metadata services: whoever can have us post there can have us ask for the machine's credentials.
_METADATA = (
    ipaddress.ip_network("169.254.0.0/16"),
    ipaddress.ip_network("fe80::/10"),
    ipaddress.ip_network("fd00:ec2::254/128"),
)


class Deadline:
    """A moment at which something has to be over."""

    def __init__(self, seconds: float) -> None:
        """Set it `seconds` from now."""
        self._at = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds left, 0 when it has passed."""
        return max(0.0, self._at - time.monotonic())


class DeadlineEnforcer:
    """Shuts the watched socket down when the deadline passes, whatever is being read from it or written to it then."""

    def __init__(self, deadline: Deadline) -> None:
        """Arm it; it works only inside its `with` block."""
        self._lock = threading.Lock()
        self._watched: socket.socket | None = None
        self._timer = threading.Timer(deadline.remaining(), self._expire)
        self._timer.daemon = True
        self.has_expired = False

    def __enter__(self) -> Self:
        """Start the time."""
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the time and let the socket go."""
        self._timer.cancel()
        with self._lock:
            if self._watched is not None:
                self._watched.close()
            self._watched = None

    def watch_socket(self, connection: socket.socket) -> None:
        """Watch `connection`, by a descriptor of our own: TLS takes the original one over."""
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
        return  # the peer was faster


class ResolvedAddress(NamedTuple):
    """One answer of name resolution, as `socket` takes it."""

    family: socket.AddressFamily
    sockaddr: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


def resolve_host(host: str, port: int, kind: socket.SocketKind, deadline: Deadline) -> list[ResolvedAddress]:
    """Return the addresses of `host`, in the order to try them.

    Raises:
        DeliveryError: `dns`, or `timeout` when there is no answer in time.
    """
    answers: list[ResolvedAddress] = []
    failures: list[OSError | UnicodeError] = []

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=kind)
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that IDNA refuses
            failures.append(error)
        else:
            answers.extend(ResolvedAddress(family, sockaddr) for family, _, _, _, sockaddr in found)

    # getaddrinfo can't be interrupted: left behind, its thread ends when the resolver's own timeouts are over.
    thread = threading.Thread(target=look_up, name="resolver", daemon=True)
    thread.start()
    thread.join(deadline.remaining())
    if failures:
        raise DeliveryError(DeliveryErrorReason.DNS, f"{host}: name resolution failed", retryable=True)
    if not answers:
        raise DeliveryError(DeliveryErrorReason.TIMEOUT, f"{host}: no answer from name resolution", retryable=True)
    return answers


def connect_tcp(host: str, port: int, deadline: Deadline, *, forbid_metadata_addresses: bool = False) -> socket.socket:
    """Return a TCP connection to `host`; its timeout is what remains.

    Every address is tried, each with its share of the time. With `forbid_metadata_addresses`, link-local and metadata
    addresses
    are not even tried; what is checked is the very address that is connected to, so that no form of writing it and no
    second answer of the name server gets around.

    Raises:
        DeliveryError: `dns`, `timeout`, `connect` or `forbidden_address`.
    """
    addresses = resolve_host(host, port, socket.SOCK_STREAM, deadline)
    if forbid_metadata_addresses:
        addresses = [address for address in addresses if not is_metadata_address(str(address.sockaddr[0]))]
        if not addresses:
            raise DeliveryError(
                DeliveryErrorReason.FORBIDDEN_ADDRESS, f"{host} is a link-local or metadata address", retryable=False
            )
    failure: OSError = TimeoutError()
    for index, address in enumerate(addresses):
        connection = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            connection.settimeout(max(0.001, deadline.remaining() / (len(addresses) - index)))
            connection.connect(address.sockaddr)
            connection.settimeout(max(0.001, deadline.remaining()))
        except OSError as error:
            connection.close()
            failure = error
            continue
        return connection
    if isinstance(failure, TimeoutError):
        raise DeliveryError(DeliveryErrorReason.TIMEOUT, f"{host}: no connection in time", retryable=True)
    raise DeliveryError(DeliveryErrorReason.CONNECT, f"{host}: cannot connect: {failure.strerror}", retryable=True)


def is_metadata_address(address: str) -> bool:
    """Tell whether `address`, as the socket sees it, is link-local or a cloud's metadata service."""
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip in network for network in _METADATA)
