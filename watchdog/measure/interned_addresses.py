"""The codes of the addresses of one dimension: a bounded table of which each account has a share.

Any account can connect to ever new addresses: 127.0.0.0/8 has 16 million, and a server does not choose its peers. In a
table that is more than half full, the further new addresses of an account that has half of it share one code, those of
other accounts find room; the last eighth is for accounts with few addresses.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from watchdog.clock import SECOND_NS
from watchdog.measure.catalogue import OTHER_CODE
from watchdog.measure.slot_table import NEVER_NS, NO_SLOT, KeyColumns, Slots, SlotTable
from watchdog.measure.snapshot import AddressHalves, Codes

MAX_ADDRESSES: Final = 1 << 19  # per dimension; 20 MB

_ACCOUNT_SHARE = 1 / 2
_SHARED = 7 / 8  # of the table; the rest is kept for accounts with few addresses
_FEW_ADDRESSES = 64
_COUNT_INTERVAL_NS = SECOND_NS  # minimum between two counts of the addresses by account


class InternedAddresses:
    """Addresses and codes: the code of an address is its slot in the table."""

    def __init__(self, max_addresses: int) -> None:
        """Start empty; at most `max_addresses` addresses at a time."""
        self._table = SlotTable([np.uint64, np.uint64], reserved=0, max_slots=max_addresses)
        self._max_addresses = max_addresses
        self._accounts: Codes = np.zeros(0, np.uint32)  # account that made the address, by slot
        self._refused: Codes = np.zeros(0, np.uint32)  # accounts whose new addresses find no room
        self._counted_ns = NEVER_NS

    def intern(self, halves: AddressHalves, accounts: Codes, at_ns: int, idle_since_ns: int) -> Codes:
        """Return codes, (n,), of addresses, (n, 2), and mark them as used; `OTHER_CODE` for those without room.

        `accounts`: (n,), uid of the process of each. Addresses unused since `idle_since_ns` make room for others.
        """
        columns = [halves[:, 0], halves[:, 1]]
        if self._table.size <= self._max_addresses * _ACCOUNT_SHARE:
            slots = self._assign(columns, accounts, at_ns, idle_since_ns)
        else:
            self._find_refused(at_ns, idle_since_ns)
            slots = self._table.find(columns)
            wanted = np.flatnonzero((slots != NO_SLOT) | ~np.isin(accounts, self._refused))
            slots[wanted] = self._assign([column[wanted] for column in columns], accounts[wanted], at_ns, idle_since_ns)
        codes = slots.astype(np.uint32)
        codes[slots == NO_SLOT] = OTHER_CODE  # not by np.where: the type of the slots has no room for it
        return codes

    def mark_used(self, codes: Codes, at_ns: int) -> None:
        """Mark the addresses of `codes` as used now."""
        self._table.seen_ns[codes] = at_ns

    def find(self, upper: int, lower: int) -> int | None:
        """Return the code of an address, None while it has none."""
        slot = self._table.find([np.array([upper], np.uint64), np.array([lower], np.uint64)])[0]
        return None if slot == NO_SLOT else int(slot)

    def halves(self, code: int) -> tuple[int, int]:
        """Return both halves of the address with `code`."""
        upper, lower = self._table.keys
        return int(upper[code]), int(lower[code])

    def _assign(self, columns: KeyColumns, accounts: Codes, at_ns: int, idle_since_ns: int) -> Slots:
        slots = self._table.assign(columns, at_ns, idle_since_ns)
        grown = self._table.capacity - len(self._accounts)
        if grown:
            self._accounts = np.concatenate((self._accounts, np.zeros(grown, np.uint32)))
        if len(self._table.new_slots):
            is_new = np.isin(slots, self._table.new_slots)
            self._accounts[slots[is_new]] = accounts[is_new]
        return slots

    def _find_refused(self, at_ns: int, idle_since_ns: int) -> None:
        if at_ns - self._counted_ns < _COUNT_INTERVAL_NS:
            return
        self._counted_ns = at_ns
        used = self._table.seen_ns[: self._table.size] > idle_since_ns
        accounts, counts = np.unique(self._accounts[: self._table.size][used], return_counts=True)
        is_full = np.count_nonzero(used) >= self._max_addresses * _SHARED
        limit = _FEW_ADDRESSES if is_full else self._max_addresses * _ACCOUNT_SHARE
        self._refused = accounts[counts >= limit]
