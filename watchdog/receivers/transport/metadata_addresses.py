"""Addresses that receivers must not reach: link-local ones and cloud metadata services.

Metadata services give out the credentials of the machine to everyone who can reach them.
"""

from __future__ import annotations

import ipaddress
import socket

from watchdog.errors import DeliveryError, DeliveryErrorReason

_FORBIDDEN_NETWORKS = (
    ipaddress.ip_network("169.254.0.0/16"),
    ipaddress.ip_network("fe80::/10"),
    ipaddress.ip_network("fd00:ec2::254/128"),
)
# Host names of cloud metadata services: behind a proxy, only the name is known.
_METADATA_NAMES = ("metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal")


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


def is_metadata_host(host: str) -> bool:
    """Return whether `host` is a link-local or metadata address, without asking a name server."""
    name = host.strip("[]").rstrip(".").lower()
    if name in _METADATA_NAMES:
        return True
    try:
        # In any spelling: getaddrinfo(3) also accepts 2852039166 and 0xA9FEA9FE as addresses.
        results = socket.getaddrinfo(name, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return any(is_metadata_address(str(address[0])) for *_, address in results)
