"""Lengths of the prefixes that make the network of a peer: the dimension `remote_net`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NetworkPrefixes:
    """Bits of an address that name its network; by default those that are usually assigned to one site."""

    ipv4_prefix: int = 24
    ipv6_prefix: int = 48


DEFAULT_NETWORK_PREFIXES = NetworkPrefixes()
