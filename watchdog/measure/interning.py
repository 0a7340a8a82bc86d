"""Names of the host as small numbers: every text that a dimension takes gets a code for as long as it is of use.

Names and addresses come from processes and their peers, which are free to make up ever new ones, so the number of them
is bounded. Those that no window can still hold are forgotten; while there is no room even so, new ones have the code
`UNKNOWN`, which is in no group and matches no pattern, and rules say that they can't know.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from watchdog.clock import SECOND_NS
from watchdog.config.durations import parse_duration
from watchdog.measure.catalogue import ABSENT_CODE, DIMENSIONS, MAX_WINDOW, UNKNOWN_CODE, DimensionKind
from watchdog.measure.slot_table import NO_SLOT, SlotTable
from watchdog.measure.snapshot import AddressHalves, Codes

OTHER_NAME = "(other)"
"""What stands for names beyond the bound where names must be shown."""

_MAX_NAMES = 1 << 17  # of each dimension; 30 MB
_MAX_ADDRESSES = 1 << 19  # of each end; 20 MB
_MARGIN_NS = 60 * SECOND_NS  # use is noted every some seconds only
_FORGET_NS = 10 * SECOND_NS  # at most so often: all names are looked through
_MAPPED = 0xFFFF << 32  # ::ffff:0:0/96, RFC 4291 section 2.5.5.2


class _InternedTexts:
    # Code 0 is the empty text. Codes are never used again, so that whoever keeps one may keep what it knows of it.
    def __init__(self) -> None:
        self.texts = {0: ""}
        self.codes = {"": 0}
        self.used_ns: dict[int, int] = {}
        self.next = 1
        self._forgot_ns = -_FORGET_NS

    def code(self, text: str, at_ns: int, hold_ns: int) -> int:
        code = self.codes.get(text)
        if code is None:
            if len(self.codes) >= _MAX_NAMES:
                self.forget(at_ns, hold_ns)
            if len(self.codes) >= _MAX_NAMES or self.next >= ABSENT_CODE:
                return UNKNOWN_CODE
            code, self.next = self.next, self.next + 1
            self.codes[text], self.texts[code] = code, text
        if code:
            self.used_ns[code] = at_ns
        return code

    def forget(self, at_ns: int, hold_ns: int) -> None:
        if at_ns - self._forgot_ns < _FORGET_NS:
            return
        self._forgot_ns = at_ns
        for code in [code for code, used_ns in self.used_ns.items() if used_ns < at_ns - hold_ns]:
            del self.codes[self.texts.pop(code)], self.used_ns[code]


class InternedNames:
    """Texts and codes of all `NAME` and `ADDRESS` dimensions."""

    def __init__(self) -> None:
        """Start empty, and hold names for as long as any rule may need them."""
        self._texts = {name: _InternedTexts() for name, one in DIMENSIONS.items() if one.kind is DimensionKind.NAME}
        self._addresses = {
            name: SlotTable([np.uint64, np.uint64], reserved=0, max_slots=_MAX_ADDRESSES)
            for name, one in DIMENSIONS.items()
            if one.kind is DimensionKind.ADDRESS
        }
        self._hold_ns = 2 * parse_duration(MAX_WINDOW) + _MARGIN_NS

    def set_retention(self, retention_ns: int) -> None:
        """Hold what was not used for `hold_ns`: as long as some window may speak of it."""
        self._hold_ns = retention_ns + _MARGIN_NS

    def intern(self, dimension: str, text: str, at_ns: int) -> int:
        """Return the code of the name `text`, and note that it is in use now; `UNKNOWN` while there is no room."""
        return self._texts[dimension].code(text, at_ns, self._hold_ns)

    def mark_used(self, dimension: str, codes: Iterable[int], at_ns: int) -> None:
        """Note that these names, if they are known, are in use now."""
        texts = self._texts[dimension]
        texts.used_ns.update(dict.fromkeys([code for code in codes if code and code in texts.texts], at_ns))

    def intern_addresses(self, dimension: str, halves: AddressHalves, at_ns: int) -> Codes:
        """Return the codes of addresses, (n, 2) of their halves, now in use; `UNKNOWN` where there is no room."""
        table = self._addresses[dimension]
        slots = table.assign([halves[:, 0], halves[:, 1]], at_ns, at_ns - self._hold_ns)
        return np.where(slots == NO_SLOT, UNKNOWN_CODE, slots).astype(np.uint32)

    def text(self, dimension: str, code: int) -> str:
        """Return the text of `code` in `dimension`, as a rule file would write it; `OTHER`, "" or "0" if not known."""
        one = DIMENSIONS[dimension]
        match one.kind:
            case DimensionKind.NAME:
                return self._texts[dimension].texts.get(code, OTHER_NAME)
            case DimensionKind.ADDRESS:
                upper, lower = self._addresses[dimension].keys
                return address_text(int(upper[code]), int(lower[code])) if code < ABSENT_CODE else ""
            case DimensionKind.CHOICE:
                return one.choices[code] if code < ABSENT_CODE else ""
            case DimensionKind.NUMBER:
                return str(code) if code < ABSENT_CODE else "0"

    def find_code(self, dimension: str, text: str) -> int | None:
        """Return the code of a name or address, None while it has none."""
        if dimension in self._texts:
            return self._texts[dimension].codes.get(text)
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return None
        number = int(address) | (_MAPPED if address.version == 4 else 0)  # noqa: PLR2004 - the version of IPv4 is 4
        halves: list[NDArray[np.unsignedinteger]] = [
            np.array([half], np.uint64) for half in (number >> 64, number & (2**64 - 1))
        ]
        slot = int(self._addresses[dimension].find(halves)[0])
        return None if slot == NO_SLOT else slot

    def forget_unused(self, at_ns: int) -> None:
        """Forget the names that were not used for as long as names are held."""
        for texts in self._texts.values():
            texts.forget(at_ns, self._hold_ns)


def address_text(upper: int, lower: int) -> str:
    """Return the usual text of an address given as the halves of its IPv6 form, IPv4-mapped ones as IPv4."""
    address = ipaddress.IPv6Address(upper << 64 | lower)
    return str(address.ipv4_mapped or address)
