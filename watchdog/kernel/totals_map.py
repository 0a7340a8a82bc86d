"""BPF maps of totals per process. They are never cleared, so that nothing is lost between a read and a clear.

Entries of ended processes are deleted, and their last values returned, before the map is full.
"""

from __future__ import annotations

import ctypes as ct
import errno
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from watchdog.kernel import libbpf
from watchdog.kernel.process_stat import has_host_pids, may_be_alive, read_process_stat


@dataclass(frozen=True, slots=True)
class Totals:
    """Keys and values, (n,) each. A key that is missing since the previous reading was deleted."""

    keys: NDArray[np.void]
    values: NDArray[np.void]


class TotalsMap:
    """Reads one map of totals. Its keys begin with `start_ns` and `tgid`."""

    def __init__(self, fd: int, key_type: np.dtype[np.void], value_type: np.dtype[np.void]) -> None:
        """Read the hash map behind `fd`."""
        self._fd = fd
        self._key_type, self._value_type = key_type, value_type
        self._capacity = libbpf.map_info(fd).max_entries

    def empty_totals(self) -> Totals:
        """Return the totals of an empty map."""
        return Totals(np.empty(0, self._key_type), np.empty(0, self._value_type))

    def read(self) -> Totals:
        """Return every total; when more than a quarter of the map is used, delete the entries of ended processes."""
        totals = read_hash_map(self._fd, self._capacity, self._key_type, self._value_type)
        if len(totals.keys) > self._capacity // 4:
            self._delete_ended_processes(totals)
        return totals

    def _delete_ended_processes(self, totals: Totals) -> None:
        for number, key in enumerate(totals.keys):
            if key["tgid"] and not _is_alive(int(key["tgid"]), int(key["start_ns"])):
                delete_entry(self._fd, totals, number)


def read_hash_map(fd: int, capacity: int, key_type: np.dtype[np.void], value_type: np.dtype[np.void]) -> Totals:
    """Return all entries of the hash map behind `fd`."""
    keys, values = np.empty(capacity, key_type), np.empty(capacity, value_type)
    next_batch, count = ct.c_uint64(), ct.c_uint32(capacity)
    result = libbpf.library().bpf_map_lookup_batch(
        fd, None, ct.byref(next_batch), keys.ctypes.data, values.ctypes.data, ct.byref(count), None
    )
    if result < 0 and ct.get_errno() != errno.ENOENT:  # ENOENT: the end of the map
        libbpf.check_result(result, "cannot read a BPF map of totals")
    return Totals(keys[: count.value].copy(), values[: count.value].copy())


def delete_entry(fd: int, totals: Totals, number: int) -> None:
    """Delete an entry; its value at deletion counts, and replaces the value that was read before."""
    key, final = totals.keys[number : number + 1].copy(), np.empty(1, totals.values.dtype)
    if libbpf.library().bpf_map_lookup_and_delete_elem(fd, key.ctypes.data, final.ctypes.data) == 0:
        totals.values[number] = final[0]


def _is_alive(pid: int, start_ns: int) -> bool:
    stat = read_process_stat(pid)
    if stat is None:
        return may_be_alive(pid)
    return stat.has_start(start_ns) or not has_host_pids()
