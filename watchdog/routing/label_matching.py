"""Matching of one label value against one condition of a `where`.

`rules/engine/selection.py` does the same for the columns of a snapshot.
"""

from __future__ import annotations

import ipaddress
from fnmatch import fnmatchcase

from watchdog.measure.catalogue import DimensionKind
from watchdog.rules.language.rule import Condition


def matches_condition(condition: Condition, kind: DimensionKind, text: str) -> bool:
    """Return whether `text`, a label value of the condition's dimension, matches; "" stands for no value.

    A text that is not a number or an address, where the dimension requires one, matches no pattern; a condition
    that has only exclusions accepts it.
    """
    if condition.any_of and not any(_meets(kind, text, pattern) for pattern in condition.any_of):
        return False
    return not any(_meets(kind, text, pattern) for pattern in condition.none_of)


def _meets(kind: DimensionKind, text: str, pattern: str) -> bool:
    match kind:
        case DimensionKind.NUMBER:
            low, _, high = pattern.partition("-")
            return text.isdecimal() and int(low) <= int(text) <= int(high or low)
        case DimensionKind.ADDRESS:
            return _is_inside(text, pattern)
        case _:
            return fnmatchcase(text, pattern)


def _is_inside(text: str, block: str) -> bool:
    outer = ipaddress.ip_network(block, strict=False)
    try:
        network = ipaddress.ip_network(text)  # an address, or a network of `remote_net`
    except ValueError:
        return False
    address = network.network_address
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped in outer
    return address in outer and network.prefixlen >= outer.prefixlen
