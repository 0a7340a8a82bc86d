"""The codes of the names of one dimension: a bounded table of which each account has a share.

Any account can make new names without end: of processes, executables, units. An account that has used up its share, or
the first one of a table that is nearly full, loses the names that it used least recently; its further new names share
one code. The names of other accounts keep their codes and find room.
"""

from __future__ import annotations

import heapq
from collections import Counter
from typing import Final

from watchdog.clock import SECOND_NS
from watchdog.measure.catalogue import OTHER_CODE, UNKNOWN_CODE

MAX_NAMES: Final = 1 << 17  # per dimension; 30 MB
OWN_ACCOUNT: Final = -1
"""The account of names that the watchdog itself makes."""

_ACCOUNT_SHARE = 1 / 2  # of the table, for the names of one account
_SHARED = 7 / 8  # of the table; the rest is kept for accounts with few names
_FEW_NAMES = 64
_FORGET_INTERVAL_NS = 10 * SECOND_NS  # minimum between two searches through all names
_MIN_UNUSED_NS = 60 * SECOND_NS  # use is recorded only every few seconds: younger names may be in use
_FORGOTTEN_SHARE = 1 / 4  # of the names of an account, at a time: each name that comes back gets a new code


class InternedTexts:
    """Texts and codes. Code 0 is the empty text. A code is never reused, so callers can cache the meaning of a code."""

    def __init__(self, max_names: int) -> None:
        """Start with the empty text; at most `max_names` texts at a time."""
        self.texts = {0: ""}
        self.codes = {"": 0}
        self._max_names = max_names
        self._uses: dict[int, tuple[int, int]] = {}  # by code: time of the last use, account that made the name
        self._counts: Counter[int] = Counter()  # names by account
        self._newest_uses: dict[int, tuple[int, int]] = {}  # by account: one object for all names of a tick
        self._next = 1
        self._forgot_ns = -_FORGET_INTERVAL_NS

    def intern(self, text: str, account: int, at_ns: int, retention_ns: int) -> int:
        """Return the code of `text`, used now by `account`; `UNKNOWN_CODE` while a new one finds no room.

        `retention_ns`: names unused for so long are forgotten.
        """
        code = self.codes.get(text)
        if code is None:
            if not self._has_room(account):
                self._make_room(account, at_ns, retention_ns)
                if not self._has_room(account):
                    return UNKNOWN_CODE
            code, self._next = self._next, self._next + 1
            self.codes[text], self.texts[code], self._uses[code] = code, text, self._use(account, at_ns)
            self._counts[account] += 1
        elif code:
            self._uses[code] = self._use(self._uses[code][1], at_ns)
        return code

    def mark_used(self, codes: list[int], at_ns: int) -> None:
        """Mark the names of `codes` as used now; unknown codes are ignored."""
        for code in codes:
            if code in self._uses:
                self._uses[code] = self._use(self._uses[code][1], at_ns)

    def forget_unused(self, at_ns: int, retention_ns: int) -> None:
        """Forget the names that were not used within `retention_ns`, unless that was done seconds ago."""
        if at_ns - self._forgot_ns < _FORGET_INTERVAL_NS:
            return
        self._forgot_ns = at_ns
        for code in [code for code, (used_ns, _) in self._uses.items() if used_ns < at_ns - retention_ns]:
            self._forget(code)

    def _use(self, account: int, at_ns: int) -> tuple[int, int]:
        newest = self._newest_uses.get(account)
        if newest is None or newest[0] != at_ns:
            if len(self._newest_uses) > len(self._counts):
                self._newest_uses.clear()
            newest = self._newest_uses[account] = at_ns, account
        return newest

    def _has_room(self, account: int) -> bool:
        if self._next >= OTHER_CODE or len(self.codes) >= self._max_names:
            return False
        own = self._counts[account]
        if own >= self._max_names * _ACCOUNT_SHARE:
            return False
        return own < _FEW_NAMES or len(self.codes) < self._max_names * _SHARED

    def _make_room(self, account: int, at_ns: int, retention_ns: int) -> None:
        """Forget unused names, and if that is not enough, those that the largest account used least recently."""
        if at_ns - self._forgot_ns < _FORGET_INTERVAL_NS:
            return
        self.forget_unused(at_ns, retention_ns)
        if self._has_room(account):
            return
        largest = max(self._counts, key=self._counts.__getitem__)
        unused = [
            (used_ns, code)
            for code, (used_ns, owner) in self._uses.items()
            if owner == largest and used_ns < at_ns - _MIN_UNUSED_NS
        ]
        for _, code in heapq.nsmallest(int(self._counts[largest] * _FORGOTTEN_SHARE), unused):
            self._forget(code)

    def _forget(self, code: int) -> None:
        del self.codes[self.texts.pop(code)]
        _, account = self._uses.pop(code)
        self._counts[account] -= 1
        if not self._counts[account]:
            del self._counts[account]
