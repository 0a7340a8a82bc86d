"""Names of the host as small numbers: every text that a dimension takes gets a code for as long as it is used.

Names come from processes and are an attacker's to choose, so the number of them is bounded: beyond the bound, new ones
share the code of `(other)`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from watchdog.clock import SECOND_NS
from watchdog.measure.catalogue import DIMENSIONS, Values

OTHER = "(other)"
_MOST = 65_536
# Longer than any window a rule can have, so that no code in use is ever forgotten.
HORIZON_NS = 2 * 3600 * SECOND_NS


class _Dictionary:
    # code 0 is the empty text, code 1 is OTHER; codes are never used again
    def __init__(self) -> None:
        self.texts = {0: "", 1: OTHER}
        self.codes = {"": 0, OTHER: 1}
        self.used_ns = {0: 1 << 63, 1: 1 << 63}
        self.next = 2

    def code(self, text: str, at_ns: int) -> int:
        code = self.codes.get(text)
        if code is None:
            if len(self.codes) >= _MOST:
                return 1
            code, self.next = self.next, self.next + 1
            self.codes[text], self.texts[code] = code, text
        self.used_ns[code] = max(at_ns, self.used_ns.get(code, 0))
        return code

    def forget(self, before_ns: int) -> None:
        for code in [code for code, used in self.used_ns.items() if used < before_ns]:
            del self.codes[self.texts.pop(code)], self.used_ns[code]


class HostNames:
    """Texts and codes of all `NAME` and `ADDRESS` dimensions."""

    def __init__(self) -> None:
        """Start empty."""
        self._dictionaries = {
            name: _Dictionary()
            for name, dimension in DIMENSIONS.items()
            if dimension.values in (Values.NAME, Values.ADDRESS)
        }

    def code(self, dimension: str, text: str, at_ns: int) -> int:
        """Return the code of `text`, and note that it is in use now."""
        return self._dictionaries[dimension].code(text, at_ns)

    def text(self, dimension: str, code: int) -> str:
        """Return the text of `code` in `dimension`, as a rule file would write it."""
        if dimension in self._dictionaries:
            return self._dictionaries[dimension].texts.get(code, OTHER)
        choices = DIMENSIONS[dimension].choices
        return choices[code] if choices else str(code)

    def all_texts(self, dimension: str) -> Mapping[int, str]:
        """Return the text of every code of a dimension whose values are names or addresses."""
        return self._dictionaries[dimension].texts

    def forget(self, at_ns: int) -> None:
        """Forget what was not used within the horizon."""
        for dictionary in self._dictionaries.values():
            dictionary.forget(at_ns - HORIZON_NS)


def address_text(upper: int, lower: int) -> str:
    """Return the usual text of an address given as the halves of its IPv6 form, IPv4-mapped ones as IPv4."""
    address = ipaddress.IPv6Address(upper << 64 | lower)
    return str(address.ipv4_mapped or address)
