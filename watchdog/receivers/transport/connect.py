"""Name resolution and TCP connections that end at a deadline. Name resolution has no timeout of its own."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - Python imports it at the first name resolution
import socket
from typing import NamedTuple

from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.receivers.transport.deadline import Deadline
from watchdog.receivers.transport.metadata_addresses import (
    forbidden_address_error,
    is_metadata_address,
    is_metadata_host,
)
from watchdog.receivers.transport.threads import run_in_thread

_MAX_PROXIED_LOOK_UP_SECONDS = 1.0


class ResolvedAddress(NamedTuple):
    """One result of name resolution, in the form of the module `socket`."""

    family: socket.AddressFamily
    sockaddr: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


def resolve_host(host: str, port: int, kind: socket.SocketKind, deadline: Deadline) -> list[ResolvedAddress]:
    """Return the addresses of `host`, in the order of the resolver, without link-local and metadata addresses.

    To be used for the connection itself: then neither another spelling of such an address nor a second answer of the
    name server avoids the check.

    Raises:
        DeliveryError: `dns`, `forbidden_address`, `timeout` if the resolver does not answer in time, or `connect` if
            the host has no thread for it.
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
    run_in_thread(resolve).wait(deadline.remaining())
    if failures:
        raise DeliveryError(DeliveryErrorReason.DNS, f"{host}: name resolution failed", retryable=True)
    if not answers:
        raise DeliveryError(DeliveryErrorReason.TIMEOUT, f"{host}: name resolution timed out", retryable=True)
    allowed = [address for address in answers if not is_metadata_address(str(address.sockaddr[0]))]
    if not allowed:
        raise forbidden_address_error(host)
    return allowed


def reject_metadata_behind_proxy(host: str, deadline: Deadline) -> None:
    """Raise if `host`, which a proxy will look up, is a metadata service by its name, its address or a name here.

    This host may know other names than the proxy, or none: a look-up without an answer decides nothing.

    Raises:
        DeliveryError: `forbidden_address`, or `connect` as in `resolve_host`.
    """
    found: list[bool] = [is_metadata_host(host)]
    if not found[0]:
        look_up = run_in_thread(lambda: found.append(is_metadata_host(host, look_up=True)))
        look_up.wait(min(_MAX_PROXIED_LOOK_UP_SECONDS, deadline.remaining() / 4))
    if any(found):
        raise forbidden_address_error(host)


def connect_tcp(host: str, port: int, deadline: Deadline) -> socket.socket:
    """Return a TCP connection to `host`; its timeout is the time left.

    Every address of `resolve_host` is tried, each with an equal share of the time left.

    Raises:
        DeliveryError: `dns`, `timeout`, `connect` or `forbidden_address`.
    """
    addresses = resolve_host(host, port, socket.SOCK_STREAM, deadline)
    failure: OSError | None = None
    for index, address in enumerate(addresses):
        try:
            connection = socket.socket(address.family, socket.SOCK_STREAM)
        except OSError as error:  # a host without IPv6, or without a free descriptor
            failure = failure or error
            continue
        try:
            connection.settimeout(deadline.socket_timeout() / (len(addresses) - index))
            connection.connect(address.sockaddr)
            connection.settimeout(deadline.socket_timeout())
        except OSError as error:
            connection.close()
            failure = error
            continue
        return connection
    if failure is None or isinstance(failure, TimeoutError):
        raise DeliveryError(DeliveryErrorReason.TIMEOUT, f"{host}: connection timed out", retryable=True)
    raise DeliveryError(DeliveryErrorReason.CONNECT, f"{host}: cannot connect: {failure.strerror}", retryable=True)
