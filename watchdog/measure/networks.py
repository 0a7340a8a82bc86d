"""The network of an address: its first bits, as the dimension `remote_net` has it."""

from __future__ import annotations

import numpy as np

from watchdog.config.network_prefixes import NetworkPrefixes
from watchdog.measure.snapshot import AddressHalves

_ALL_ONES = np.uint64(2**64 - 1)
_MAPPED = np.uint64(0xFFFF)  # ::ffff:0:0/96, upper half of the lower half
_MAPPED_BITS = 96


def network_halves(halves: AddressHalves, prefixes: NetworkPrefixes) -> AddressHalves:
    """Return the network of each address, (n, 2) both; all ones, which are no address, stay."""
    is_ipv4 = (halves[:, 0] == 0) & (halves[:, 1] >> np.uint64(32) == _MAPPED)
    is_none = (halves == _ALL_ONES).all(axis=1)
    networks = halves & _mask(prefixes.ipv6_prefix)
    networks[is_ipv4] = halves[is_ipv4] & _mask(_MAPPED_BITS + prefixes.ipv4_prefix)
    networks[is_none] = _ALL_ONES
    return networks


def network_prefix(upper: int, lower: int, prefixes: NetworkPrefixes) -> int:
    """Return the length of the prefix of the network with these halves."""
    return prefixes.ipv4_prefix if upper == 0 and lower >> 32 == int(_MAPPED) else prefixes.ipv6_prefix


def _mask(length: int) -> AddressHalves:
    mask = (1 << 128) - (1 << (128 - length))
    return np.array([mask >> 64, mask & (2**64 - 1)], np.uint64)
