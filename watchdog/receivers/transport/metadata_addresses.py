"""Addresses that receivers must not reach: link-local ones and cloud metadata services.

Metadata services give out the credentials of the machine to everyone who can reach them.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

from watchdog.errors import DeliveryError, DeliveryErrorReason

# Here are most metadata services: 169.254.169.254 (AWS, Azure, Google Cloud, Oracle Cloud, IBM Cloud, DigitalOcean,
# Hetzner, OpenStack and others), 169.254.170.2 and .23 (AWS ECS and EKS), 169.254.0.23 (Tencent Cloud), 169.254.42.42
# (Scaleway), fe80::a9fe:a9fe (OpenStack, Hetzner, Akamai).
_LINK_LOCAL = (ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("fe80::/10"))
# The others; further addresses of their networks are ordinary ones.
_METADATA = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "fd00:ec2::254",  # AWS, "Use IMDS"
        "fd00:ec2::23",  # AWS, "EKS Pod Identity"
        "fd20:ce::254",  # Google Cloud, "About VM metadata"
        "100.100.100.200",  # Alibaba Cloud, "ECS instance metadata"
        "fd00:100::100:200",  # Alibaba Cloud over IPv6: cloud-init, datasource AliYun
        "100.96.0.96",  # Volcano Engine: credential server in volcengine/cello
        "100.80.80.80",  # UCloud, docs.ucloud.cn, "metadata server"
        "168.63.129.16",  # Azure, "What is IP address 168.63.129.16?"
        "192.0.0.192",  # Oracle Cloud, "Instance metadata" of classic instances
        "fd00:c1::a9fe:a9fe",  # Oracle Cloud, "Getting instance metadata"
        "fd00:42::42",  # Scaleway, "Instance metadata"
        "fd00:a9fe:a9fe::1",  # Akamai (Linode), "Use the Metadata service API"
    )
)
# IPv6 networks whose addresses lead to the IPv4 address in them, and the number of bits after that address.
_EMBEDDING = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),  # RFC 4291 §2.5.5.2, mapped
    (ipaddress.IPv6Network("::/96"), 0),  # RFC 4291 §2.5.5.1, compatible
    (ipaddress.IPv6Network("::ffff:0:0:0/96"), 0),  # RFC 2765 §2.1, translated
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # RFC 6052 §2.1, NAT64
    (ipaddress.IPv6Network("2002::/16"), 80),  # RFC 3056 §2, 6to4
)
# RFC 8215: NAT64 of a site, whose prefix may have 48, 56, 64 or 96 bits.
_SITE_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
_TEREDO = ipaddress.IPv6Network("2001::/32")
_ISATAP = frozenset((0x0000_5EFE, 0x0200_5EFE))  # RFC 5214 §6.1: before the IPv4 address, in any network
# Host names of cloud metadata services: behind a proxy, only the name is known.
_METADATA_NAMES = (
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata.tencentyun.com",
    "metadata.packet.net",
    "metadata.platformequinix.com",
    "api.metadata.cloud.ibm.com",
)


def forbidden_address_error(host: str) -> DeliveryError:
    """Return the error for a `host` with a link-local or metadata address."""
    return DeliveryError(
        DeliveryErrorReason.FORBIDDEN_ADDRESS, f"{host} is a link-local or metadata address", retryable=False
    )


def is_metadata_address(address: str) -> bool:
    """Return whether the numeric `address` is link-local or belongs to a cloud metadata service."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    candidates = [ip, *_embedded_addresses(ip)] if isinstance(ip, ipaddress.IPv6Address) else [ip]
    return any(found in _METADATA or any(found in network for network in _LINK_LOCAL) for found in candidates)


def is_metadata_host(host: str, *, look_up: bool = False) -> bool:
    """Return whether `host` is a link-local or metadata address, or the name of a metadata service.

    `look_up`: or a name of which an address is one; a name server is asked, without a timeout.
    """
    name = host.strip("[]").partition("%")[0].rstrip(".").lower()  # RFC 6874: a zone follows the address
    if name in _METADATA_NAMES:
        return True
    try:
        # In any spelling: getaddrinfo(3) also accepts 2852039166 and 0xA9FEA9FE as addresses.
        results = socket.getaddrinfo(name, None, flags=0 if look_up else socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return any(is_metadata_address(str(address[0])) for *_, address in results)


def _embedded_addresses(ip: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    """Return the IPv4 addresses that `ip` can lead to."""
    for network, bits_after in _EMBEDDING:
        if ip in network:
            yield ipaddress.IPv4Address(int(ip) >> bits_after & 0xFFFF_FFFF)
    low = int(ip) & 0xFFFF_FFFF
    if int(ip) >> 32 & 0xFFFF_FFFF in _ISATAP:
        yield ipaddress.IPv4Address(low)
    if ip in _TEREDO:
        yield ipaddress.IPv4Address(low ^ 0xFFFF_FFFF)  # RFC 4380 §4: its bits are inverted
    if ip in _SITE_NAT64:
        octets = ip.packed[:8] + ip.packed[9:]  # RFC 6052 §2.2: octet 8 is not part of the IPv4 address
        for start in (6, 7, 8):
            yield ipaddress.IPv4Address(octets[start : start + 4])
        yield ipaddress.IPv4Address(ip.packed[12:])
