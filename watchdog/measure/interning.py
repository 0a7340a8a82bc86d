"""Interning: each text of a dimension gets a code, a small number, while it is in use.

Names and addresses come from processes and their peers, which can create new ones without end, so their number is
bounded. Names that no window can contain any more are forgotten. If there is still no space, a new name gets
`UNKNOWN_CODE` (`interned_texts.py`), a new address `OTHER_CODE` (`interned_addresses.py`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from watchdog.clock import SECOND_NS
from watchdog.config.durations import parse_duration
from watchdog.config.network_prefixes import DEFAULT_NETWORK_PREFIXES, NetworkPrefixes
from watchdog.measure.catalogue import ABSENT_CODE, DIMENSIONS, MAX_WINDOW, OTHER_CODE, DimensionKind
from watchdog.measure.interned_addresses import MAX_ADDRESSES, InternedAddresses
from watchdog.measure.interned_texts import MAX_NAMES, InternedTexts
from watchdog.measure.networks import network_prefix
from watchdog.measure.snapshot import AddressHalves, Codes

OTHER_NAME = "(other)"
"""The text shown for names that have no code of their own."""
_QUOTED_OTHER = '"(other)"'  # a process can have this name, too

_MARGIN_NS = 60 * SECOND_NS  # use is recorded only every few seconds
_MAPPED = 0xFFFF << 32  # ::ffff:0:0/96, RFC 4291 section 2.5.5.2


class InternedNames:
    """Texts and codes of all `NAME` and `ADDRESS` dimensions."""

    def __init__(
        self,
        prefixes: NetworkPrefixes = DEFAULT_NETWORK_PREFIXES,
        *,
        max_names: int = MAX_NAMES,
        max_addresses: int = MAX_ADDRESSES,
    ) -> None:
        """Start empty, and retain names as long as any rule can need them.

        `prefixes`: of `remote_net`. `max_names`, `max_addresses`: of each dimension, at a time.
        """
        self._prefixes = prefixes
        self._texts = {
            name: InternedTexts(max_names) for name, entry in DIMENSIONS.items() if entry.kind is DimensionKind.NAME
        }
        self._addresses = {
            name: InternedAddresses(max_addresses)
            for name, entry in DIMENSIONS.items()
            if entry.kind is DimensionKind.ADDRESS
        }
        self._retention_ns = 2 * parse_duration(MAX_WINDOW) + _MARGIN_NS

    def set_retention(self, retention_ns: int) -> None:
        """Retain unused names for `retention_ns`: the time for which a window can contain them."""
        self._retention_ns = retention_ns + _MARGIN_NS

    def intern(self, dimension: str, text: str, account: int, at_ns: int) -> int:
        """Return the code of the name `text`, and mark it as used now; `UNKNOWN_CODE` while there is no space.

        `account`: uid of the process that made the name, or `OWN_ACCOUNT`.
        """
        text = _QUOTED_OTHER if text == OTHER_NAME else text
        return self._texts[dimension].intern(text, account, at_ns, self._retention_ns)

    def mark_used(self, dimension: str, codes: Iterable[int], at_ns: int) -> None:
        """Mark the names of `codes` as used now; unknown codes are ignored."""
        self._texts[dimension].mark_used(list(codes), at_ns)

    def intern_addresses(self, dimension: str, halves: AddressHalves, accounts: Codes, at_ns: int) -> Codes:
        """Return codes, (n,), of addresses, (n, 2), and mark them as used; `OTHER_CODE` while there is no space.

        `accounts`: (n,), uids of their processes.
        """
        return self._addresses[dimension].intern(halves, accounts, at_ns, at_ns - self._retention_ns)

    def mark_addresses_used(self, dimension: str, codes: Codes, at_ns: int) -> None:
        """Mark the addresses of `codes` as used now."""
        self._addresses[dimension].mark_used(codes, at_ns)

    def text(self, dimension: str, code: int) -> str:
        """Return the text of `code` in `dimension`, in the form of rule files; `OTHER_NAME`, "" or "0" if unknown."""
        entry = DIMENSIONS[dimension]
        match entry.kind:
            case DimensionKind.NAME:
                return self._texts[dimension].texts.get(code, OTHER_NAME)
            case DimensionKind.ADDRESS:
                if code == OTHER_CODE:
                    return OTHER_NAME
                return self._address_text(dimension, code) if code < ABSENT_CODE else ""
            case DimensionKind.CHOICE:
                return entry.choices[code] if code < ABSENT_CODE else ""
            case DimensionKind.NUMBER:
                return str(code) if code < ABSENT_CODE else "0"

    def find_code(self, dimension: str, text: str) -> int | None:
        """Return the code of a name or address, None while it has none."""
        if text == OTHER_NAME:
            return OTHER_CODE
        if dimension in self._texts:
            return self._texts[dimension].codes.get(text)
        host, _, length = text.partition("/")
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return None
        number = int(address) | (_MAPPED if address.version == 4 else 0)  # noqa: PLR2004 - the version of IPv4 is 4
        code = self._addresses[dimension].find(number >> 64, number & (2**64 - 1))
        return None if code is None or (length and self._address_text(dimension, code) != text) else code

    def _address_text(self, dimension: str, code: int) -> str:
        upper, lower = self._addresses[dimension].halves(code)
        text = address_text(upper, lower)
        return f"{text}/{network_prefix(upper, lower, self._prefixes)}" if dimension == "remote_net" else text

    def forget_unused(self, at_ns: int) -> None:
        """Forget the names that were not used within the retention."""
        for texts in self._texts.values():
            texts.forget_unused(at_ns, self._retention_ns)


def address_text(upper: int, lower: int) -> str:
    """Return the usual text of an address, given as halves of its IPv6 form; IPv4-mapped addresses as IPv4."""
    address = ipaddress.IPv6Address(upper << 64 | lower)
    return str(address.ipv4_mapped or address)
