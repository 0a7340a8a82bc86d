"""Collecting, in the unprivileged daemon: attach the programs, walk the live sockets, drain the ledger.

Works on descriptors alone: no bcc, no compiler, no capability (since Linux 5.19; before, CAP_BPF).
"""

from __future__ import annotations

import ctypes as ct
import mmap
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from watchdog.clock import Clock
from watchdog.kernel import libbpf
from watchdog.kernel.handover import LoadedPrograms
from watchdog.kernel.layout import CONNECTION, DATAGRAMS, DATAGRAMS_KEY, LOSS_FIELDS, RESPONSE, SUMS, SUMS_KEY
from watchdog.kernel.programs import RESET_PROBES, STATE_PROBE
from watchdog.kernel.quality import Quality
from watchdog.kernel.ring_buffer import RingBuffer
from watchdog.kernel.totals_map import Totals, TotalsMap

_READ_BYTES = 8 * mmap.PAGESIZE  # what an iterator gives at once: kernel/bpf/bpf_iter.c, bpf_seq_read
_EAGAIN_LIMIT = 10_000  # the iterator says EAGAIN after each 1,000,000 files without output: 10^10 files


@dataclass(frozen=True, slots=True)
class Reading:
    """What the kernel told in one tick.

    `at_ns`: CLOCK_BOOTTIME after it was read. `live`, `closed`: (n,), (m,) of `CONNECTION`, listeners among the live; a
    connection that ended during the reading is in both. `sums`: of `SUMS_KEY` and `SUMS`. On demand, else empty:
    `responses`, (r,) of `RESPONSE`; `datagrams`: of `DATAGRAMS_KEY` and `DATAGRAMS`.
    """

    at_ns: int
    live: NDArray[np.void]
    closed: NDArray[np.void]
    sums: Totals
    responses: NDArray[np.void]
    datagrams: Totals
    quality: Quality


class Collector:
    """Reads the kernel half. Use from one thread; `close` detaches everything."""

    def __init__(self, loaded: LoadedPrograms, clock: Clock) -> None:
        """Attach the programs.

        Raises:
            NotPermitted: the kernel wants CAP_BPF for this (before Linux 5.19).
        """
        self._loaded = loaded
        self._clock = clock
        self._attached = [libbpf.attach(fd) for fd in loaded.connection_programs.values()]
        self._on_messages: list[int] = []
        self._responses: RingBuffer | None = None
        self._sums = TotalsMap(loaded.maps["sums"], SUMS_KEY, SUMS)
        self._datagrams = TotalsMap(loaded.maps["datagrams"], DATAGRAMS_KEY, DATAGRAMS)
        self._ledger = _open_ring_buffer(loaded.maps["ledger"], CONNECTION)
        self._lost_before = np.zeros(len(LOSS_FIELDS), np.int64)
        self._missed = 0
        self._expected_bytes = 2 * _READ_BYTES

    @property
    def message_probes_problem(self) -> str:
        """Say why messages can't be followed on this kernel; "" where they can."""
        return self._loaded.message_probes_problem

    def enable_message_probes(self, enabled: bool) -> bool:  # noqa: FBT001 - the one thing it is told
        """Attach or detach the programs that run at each message; return whether they are attached now."""
        if enabled and not self._on_messages:
            self._attach_message_probes()
        elif not enabled:
            self._detach_message_probes()
        return bool(self._on_messages)

    def _attach_message_probes(self) -> None:
        maps = self._loaded.maps
        since = ct.c_uint64(self._clock.boottime_ns())
        result = libbpf.library().bpf_map_update_elem(
            maps["attached_since"], ct.byref(ct.c_uint32(0)), ct.byref(since), 0
        )
        libbpf.check_result(result, "noting when messages are followed")
        self._on_messages = [libbpf.attach(fd) for fd in self._loaded.message_programs]
        if self._on_messages:
            self._responses = _open_ring_buffer(maps["responses"], RESPONSE)
            self._responses.read()  # what was left when they were followed the last time

    def _detach_message_probes(self) -> None:
        for fd in self._on_messages:
            os.close(fd)
        self._on_messages.clear()
        if self._responses is not None:
            self._responses.close()
            self._responses = None

    def read(self) -> Reading:
        """Walk the live sockets, then drain the ledger: in this order no connection is missed between the two.

        Raises:
            OSError, MemoryError: something could not be read; what has ended stays in the ledger for the next reading.
        """
        misses = self._misses()  # first: what is skipped from here on may already have been made up for below
        began = self._clock.boottime_ns()
        live, retries = self._walk()
        pass_seconds = (self._clock.boottime_ns() - began) / 1e9
        sums = self._with_missed_resets(self._sums.read())
        following = self._responses is not None
        datagrams = self._datagrams.read() if following else self._datagrams.empty_totals()
        responses = self._responses.read() if self._responses is not None else np.empty(0, RESPONSE)
        quality = self._quality(misses, pass_seconds, retries)
        closed = self._ledger.read()  # last, for it takes out what it reads, and a later failure would lose that
        return Reading(self._clock.boottime_ns(), live, closed, sums, responses, datagrams, quality)

    def close(self) -> None:
        """Detach the programs and close every descriptor."""
        self._detach_message_probes()
        for fd in self._attached:
            os.close(fd)
        self._attached.clear()
        self._ledger.close()
        self._loaded.close()

    def _walk(self) -> tuple[NDArray[np.void], int]:
        fd = libbpf.open_iterator(self._loaded.iterator_link)
        # One array for the whole pass, as long as the last one and some more: a piece for each read, joined at the end,
        # took a quarter of the pass.
        raw = np.empty(self._expected_bytes, np.uint8)
        filled = again = 0
        try:
            while True:
                if len(raw) - filled < _READ_BYTES:
                    raw = np.concatenate([raw[:filled], np.empty(len(raw), np.uint8)])
                try:
                    count = os.readv(fd, [raw.data[filled:]])
                except BlockingIOError:  # Linux commit e679654a704e: no endless run without output
                    again += 1
                    if again > _EAGAIN_LIMIT:
                        raise
                    continue
                if not count:
                    break
                filled += count
        finally:
            os.close(fd)
        self._expected_bytes = filled + filled // 8 + 2 * _READ_BYTES
        return raw[:filled].view(CONNECTION), again

    def _misses(self) -> int:
        """Return how many runs of programs the kernel has skipped, those aside that only count resets."""
        messages = sum(libbpf.recursion_misses(program) for program in self._loaded.message_programs)
        return messages + libbpf.recursion_misses(self._loaded.connection_programs[STATE_PROBE.name])

    def _with_missed_resets(self, sums: Totals) -> Totals:
        """Add the resets that the kernel skipped the programs for: it tells how many, and not whose."""
        missed = {
            counter: libbpf.recursion_misses(self._loaded.connection_programs[program.name])
            for counter, program in zip(("resets_received", "resets_sent"), RESET_PROBES, strict=True)
        }
        if not any(missed.values()):
            return sums
        nobody = np.zeros(1, SUMS_KEY)
        keys, values = sums.keys, sums.values
        if nobody not in keys:
            keys, values = np.append(keys, nobody), np.append(values, np.zeros(1, SUMS))
        for counter, count in missed.items():
            values[counter][keys == nobody] += np.uint64(count)
        return Totals(keys, values)

    def _quality(self, misses: int, pass_seconds: float, pass_retries: int) -> Quality:
        maps = self._loaded.maps
        lost = np.array([_read_counter(maps["losses"], index) for index in range(len(LOSS_FIELDS))])
        new = dict(zip(LOSS_FIELDS, (int(number) for number in lost - self._lost_before), strict=True))
        missed = max(self._missed, misses - _read_counter(maps["fallback_events"], 0))
        newly_missed = missed - self._missed
        self._lost_before, self._missed = lost, missed
        return Quality(**new, missed_events=newly_missed, pass_seconds=pass_seconds, pass_retries=pass_retries)


def _read_counter(array: int, index: int) -> int:
    value = ct.c_uint64()
    result = libbpf.library().bpf_map_lookup_elem(array, ct.byref(ct.c_uint32(index)), ct.byref(value))
    libbpf.check_result(result, "reading a count")
    return value.value


def _open_ring_buffer(fd: int, record: np.dtype[np.void]) -> RingBuffer:
    return RingBuffer(fd, libbpf.map_info(fd).max_entries, record)
