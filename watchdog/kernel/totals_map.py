"""BPF maps of totals per process: never cleared, so that nothing is lost between reading and clearing.

Entries of processes that are gone are taken out, with what they hold at that moment, before the map fills up.
"""

from __future__ import annotations

import ctypes as ct
import errno
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from watchdog.kernel import libbpf

_TICK_NS = 10_000_000  # /proc/PID/stat counts in USER_HZ, 1/100 s on every architecture that we support
_START_FIELD = 19  # of what follows the name: field 22, starttime


@dataclass(frozen=True, slots=True)
class Totals:
    """Keys and values, (n,) each; a key that is missing since the reading before was taken out."""

    keys: NDArray[np.void]
    values: NDArray[np.void]


class TotalsMap:
    """Reads one such map, whose keys begin with `start_ns` and `tgid`."""

    def __init__(self, fd: int, key: np.dtype[np.void], value: np.dtype[np.void]) -> None:
        """Read the hash map behind `fd`."""
        self._fd = fd
        self._key, self._value = key, value
        self._capacity = libbpf.map_info(fd).max_entries

    def empty_totals(self) -> Totals:
        """Return what an empty map reads as."""
        return Totals(np.empty(0, self._key), np.empty(0, self._value))

    def read(self) -> Totals:
        """Return every total; when a quarter of the map is used, take out those of processes that are gone."""
        lib = libbpf.library()
        keys, values = np.empty(self._capacity, self._key), np.empty(self._capacity, self._value)
        following, count = ct.c_uint64(), ct.c_uint32(self._capacity)
        result = lib.bpf_map_lookup_batch(
            self._fd, None, ct.byref(following), keys.ctypes.data, values.ctypes.data, ct.byref(count), None
        )
        if result < 0 and ct.get_errno() != errno.ENOENT:  # the end of the map
            libbpf.check_result(result, "reading totals")
        totals = Totals(keys[: count.value].copy(), values[: count.value].copy())
        if count.value > self._capacity // 4:
            self._delete_ended_processes(totals)
        return totals

    def _delete_ended_processes(self, totals: Totals) -> None:
        lib = libbpf.library()
        for number, key in enumerate(totals.keys):
            if key["tgid"] and not _lives(int(key["tgid"]), int(key["start_ns"])):
                # Its last words count: the value as it is deleted takes the place of the one read before.
                final = np.empty(1, self._value)
                one = totals.keys[number : number + 1].copy()
                if lib.bpf_map_lookup_and_delete_elem(self._fd, one.ctypes.data, final.ctypes.data) == 0:
                    totals.values[number] = final[0]


def _lives(pid: int, start_ns: int) -> bool:
    try:
        after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return False
    return abs(int(after_name[_START_FIELD]) * _TICK_NS - start_ns) <= _TICK_NS
