"""The BPF map of resets by peer: resets in answer to segments that belong to no connection.

Entries are never cleared, as in the maps of totals. Sources can be forged, so an entry is deleted only when it is idle:
after a time, or, while the map is more than half full, when no reset came since the previous reading.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from watchdog.clock import SECOND_NS
from watchdog.kernel import libbpf
from watchdog.kernel.layout import RESET_PEER, RESET_PEER_KEY
from watchdog.kernel.totals_map import Totals, delete_entry, read_hash_map

RESET_PEER_ID = np.dtype([*RESET_PEER_KEY.descr, ("created_ns", "<u8")])
"""An entry: after a deletion, one with the same key counts from zero."""

# `since_ns`: time of the first reading with this count.
_KNOWN = np.dtype([("entry", f"V{RESET_PEER_ID.itemsize}"), ("resets_sent", "<u8"), ("since_ns", "<i8")])
_IDLE_NS = 60 * SECOND_NS
# In one reading. It bounds the new addresses per hour, so that forged sources cannot use up the codes of addresses.
_MAX_DELETIONS = 64


class ResetPeersMap:
    """Reads and prunes the map."""

    def __init__(self, fd: int) -> None:
        """Read the hash map behind `fd`."""
        self._fd = fd
        self._capacity = libbpf.map_info(fd).max_entries
        self._known = np.empty(0, _KNOWN)

    def read(self, at_ns: int) -> Totals:
        """Return every total; keys of `RESET_PEER_ID`, values of `RESET_PEER`. `at_ns`: CLOCK_BOOTTIME."""
        entries = read_hash_map(self._fd, self._capacity, RESET_PEER_KEY, RESET_PEER)
        ids = np.empty(len(entries.keys), RESET_PEER_ID)
        for name in RESET_PEER_KEY.names or ():
            ids[name] = entries.keys[name]
        ids["created_ns"] = entries.values["created_ns"]
        is_full = len(ids) > self._capacity // 2
        idle_ns = at_ns - self._unchanged_since(ids, entries.values["resets_sent"], at_ns)
        idle = np.flatnonzero(idle_ns >= (1 if is_full else _IDLE_NS))
        for number in idle[:_MAX_DELETIONS].tolist():
            delete_entry(self._fd, entries, number)
        return Totals(ids, entries.values)

    def _unchanged_since(self, ids: NDArray[np.void], counts: NDArray[np.uint64], at_ns: int) -> NDArray[np.int64]:
        """Return, (n,), the time of the first reading with the present count of an entry, and keep all for the next."""
        now = np.empty(len(ids), _KNOWN)
        now["entry"], now["resets_sent"], now["since_ns"] = ids.view(_KNOWN["entry"]), counts, at_ns
        if len(self._known):
            at = np.minimum(np.searchsorted(self._known["entry"], now["entry"]), len(self._known) - 1)
            same = (self._known["entry"][at] == now["entry"]) & (self._known["resets_sent"][at] == counts)
            now["since_ns"][same] = self._known["since_ns"][at[same]]
        self._known = now[np.argsort(now["entry"], kind="stable")]
        return now["since_ns"]
