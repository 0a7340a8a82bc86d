"""Host names of servers: the check of a configured one, and the form that TLS needs."""

from __future__ import annotations

import ipaddress
import re
import socket

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.IGNORECASE)  # RFC 1123 §2.1, and the underscore of many sites
_NUMERIC = re.compile(r"[0-9a-fx.]+", re.IGNORECASE)
_MAX_NAME_LENGTH = 253  # RFC 1035 §2.3.4 without the root's length octet
_WITH_PORT = re.compile(r"(?P<host>[^:\[\]/]+|\[[^\[\]/]*\]):(?P<port>[0-9]+)")


def host_problem(host: str, *, takes_port: bool = False) -> str | None:
    """Return the problem of `host`, which must be a host name or an address; None without one.

    `takes_port`: the port has a key of its own, which the text then names.
    """
    wanted = "must be a host name or an address"
    if "://" in host:
        return f"{wanted}, without a scheme such as {host.partition('://')[0]}://"
    if match := _WITH_PORT.fullmatch(host):
        remedy = f"; give port = {match['port']}" if takes_port else ""
        return f'{wanted}, without a port: give "{match["host"].strip("[]")}"{remedy}'
    if host.startswith("[") and host.endswith("]") and _is_address(host[1:-1]):
        return f'{wanted}, without brackets: give "{host[1:-1]}"'
    return None if _is_address(host) or _is_name(host) else wanted


def tls_name(host: str) -> str:
    """Return `host` as certificates and SNI have it: without the final dot of an absolute name.

    Source: RFC 1034 §3.1 (absolute names); RFC 6066 §3: the name in SNI has no trailing dot.
    """
    return host.removesuffix(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _NUMERIC.fullmatch(host) is not None and _is_short_address(host)
    return True


def _is_short_address(host: str) -> bool:
    # The other forms of IPv4 addresses that getaddrinfo(3) takes: 2852039166, 127.1, 0x7f.1.
    try:
        socket.inet_aton(host)
    except OSError:
        return False
    return True


def _is_name(host: str) -> bool:
    try:
        name = tls_name(host).encode("idna").decode()
    except UnicodeError:
        return False
    labels = name.split(".")
    # RFC 1123 §2.1: a name whose last label is a number would be a mistyped address.
    is_number = labels[-1].isdecimal()
    return len(name) <= _MAX_NAME_LENGTH and not is_number and all(map(_LABEL.fullmatch, labels))
