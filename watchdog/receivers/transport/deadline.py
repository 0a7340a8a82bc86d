"""Deadlines for sockets: name resolution, connection and transfer all end when the deadline passes.

The timeout of a socket starts again with each read, so a peer that sends a byte now and then blocks its caller for
ever. Name resolution has no timeout at all.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - Python imports it at the first name resolution
import ipaddress
import socket
import threading
import time
from types import TracebackType
from typing import NamedTuple, Self

from watchdog.errors import DeliveryError, DeliveryErrorReason

# Link-local addresses and cloud metadata services, which give out the credentials of the machine.
_FORBIDDEN_NETWORKS = (
    ipaddress.ip_network("169.254.0.0/16"),
    ipaddress.ip_network("fe80::/10"),
    ipaddress.ip_network("fd00:ec2::254/128"),
)


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


class ResolvedAddress(NamedTuple):
    """One result of name resolution, in the form of the module `socket`."""

    family: socket.AddressFamily
    sockaddr: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


def resolve_host(host: str, port: int, kind: socket.SocketKind, deadline: Deadline) -> list[ResolvedAddress]:
    """Return the addresses of `host`, in the order of the resolver.

    Raises:
        DeliveryError: `dns`, or `timeout` if the resolver does not answer in time.
    """
    answers: list[ResolvedAddress] = []
    failures: list[OSError | UnicodeError] = []

    def resolve() -> None:
        try:
            results = socket.getaddrinfo(host, port, type=kind)
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that is not valid in IDNA
            failures.append(error)
        else:
            answers.extend(ResolvedAddress(family, sockaddr) for family, _, _, _, sockaddr in results)

    # getaddrinfo(3) cannot be interrupted: after the deadline its thread runs on until the resolver's own timeouts end.
    thread = threading.Thread(target=resolve, name="resolver", daemon=True)
    thread.start()
    thread.join(deadline.remaining())
    if failures:
        raise DeliveryError(DeliveryErrorReason.DNS, f"{host}: name resolution failed", retryable=True)
    if not answers:
        raise DeliveryError(DeliveryErrorReason.TIMEOUT, f"{host}: name resolution timed out", retryable=True)
    return answers


def connect_tcp(host: str, port: int, deadline: Deadline, *, forbid_metadata_addresses: bool = False) -> socket.socket:
    """Return a TCP connection to `host`; its timeout is the time left.

    Every address is tried, each with an equal share of the time left. With `forbid_metadata_addresses`, link-local and
    metadata addresses are not tried. The check uses the resolved address that is also connected to: neither another
    spelling of the address nor a second answer of the name server avoids it.

    Raises:
        DeliveryError: `dns`, `timeout`, `connect` or `forbidden_address`.
    """
    addresses = resolve_host(host, port, socket.SOCK_STREAM, deadline)
    if forbid_metadata_addresses:
        addresses = [address for address in addresses if not is_metadata_address(str(address.sockaddr[0]))]
        if not addresses:
            raise forbidden_address_error(host)
    failure: OSError = TimeoutError()
    for index, address in enumerate(addresses):
        connection = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            connection.settimeout(deadline.socket_timeout() / (len(addresses) - index))
            connection.connect(address.sockaddr)
            connection.settimeout(deadline.socket_timeout())
        except OSError as error:
            connection.close()
            failure = error
            continue
        return connection
    if isinstance(failure, TimeoutError):
        raise DeliveryError(DeliveryErrorReason.TIMEOUT, f"{host}: connection timed out", retryable=True)
    raise DeliveryError(DeliveryErrorReason.CONNECT, f"{host}: cannot connect: {failure.strerror}", retryable=True)


def forbidden_address_error(host: str) -> DeliveryError:
    """Return the error for a `host` with a link-local or metadata address."""
    return DeliveryError(
        DeliveryErrorReason.FORBIDDEN_ADDRESS, f"{host} is a link-local or metadata address", retryable=False
    )


def is_metadata_address(address: str) -> bool:
    """Return whether the numeric `address` is link-local or belongs to a cloud metadata service."""
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip in network for network in _FORBIDDEN_NETWORKS)
