"""Reads the kernel half in the unprivileged daemon: attaches the programs, reads live sockets and the ledger.

It works on descriptors only: no bcc, no compiler, no capability (since Linux 5.19; before, CAP_BPF).
"""

from __future__ import annotations

import ctypes as ct
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from watchdog.clock import SECOND_NS, Clock
from watchdog.errors import NotPermitted
from watchdog.kernel import libbpf
from watchdog.kernel.executables import Executable, ExecutableReader
from watchdog.kernel.handover import LoadedPrograms
from watchdog.kernel.host_sockets import HostSockets, HostSocketsReader
from watchdog.kernel.layout import (
    CGROUP,
    CONNECTION,
    DATAGRAMS,
    DATAGRAMS_KEY,
    LOSS_FIELDS,
    RESET_PEER,
    RESPONSE,
    SUMS,
    SUMS_KEY,
)
from watchdog.kernel.live_sockets import Coverage, LiveSockets
from watchdog.kernel.programs import RESET_PROBES, STATE_PROBE
from watchdog.kernel.quality import Quality
from watchdog.kernel.reset_peers import RESET_PEER_ID, ResetPeersMap
from watchdog.kernel.ring_buffer import RingBuffer
from watchdog.kernel.totals_map import Totals, TotalsMap

_COMPLETE_PASS_NS = 300 * SECOND_NS


@dataclass(frozen=True, slots=True)
class Reading:
    """Records and totals that the kernel half handed over in one tick.

    `at_ns`: CLOCK_BOOTTIME at the end of the reading. `live`, `closed`: (n,), (m,) of `CONNECTION`, with listeners; a
    connection that ended during the reading is in both. `sums`: of `SUMS_KEY` and `SUMS`. On demand, else empty:
    `responses`, (r,) of `RESPONSE`; `datagrams`: of `DATAGRAMS_KEY` and `DATAGRAMS`. `reset_peers`: of `RESET_PEER_ID`
    and `RESET_PEER`. `cgroups`: (g,) of `CGROUP`, made since the previous reading. `host`: sockets that no process has,
    None if unknown. `coverage`: the live sockets that have a row in `live`.
    """

    at_ns: int
    live: NDArray[np.void]
    closed: NDArray[np.void]
    sums: Totals
    responses: NDArray[np.void]
    datagrams: Totals
    quality: Quality
    reset_peers: Totals = field(default_factory=lambda: Totals(np.empty(0, RESET_PEER_ID), np.empty(0, RESET_PEER)))
    cgroups: NDArray[np.void] = field(default_factory=lambda: np.empty(0, CGROUP))
    host: HostSockets | None = None
    coverage: Coverage = Coverage.ALL


@dataclass(frozen=True, slots=True)
class ProgramRuns:
    """Runs of one BPF program since it was loaded, and their time in ns."""

    count: int
    time_ns: int


class Collector:
    """Reads the kernel half. Use it from one thread; `close` detaches all programs."""

    def __init__(self, loaded: LoadedPrograms, clock: Clock) -> None:
        """Attach the programs.

        Raises:
            NotPermitted: the kernel requires CAP_BPF for this (before Linux 5.19).
        """
        self._loaded = loaded
        self._clock = clock
        programs = (*loaded.connection_programs.values(), *loaded.connect_error_programs)
        self._attached = [libbpf.attach(fd) for fd in programs]
        self._message_links: list[int] = []
        self._attach_problem = ""
        self._responses: RingBuffer | None = None
        self._sums = TotalsMap(loaded.maps["sums"], SUMS_KEY, SUMS)
        self._datagrams = TotalsMap(loaded.maps["datagrams"], DATAGRAMS_KEY, DATAGRAMS)
        self._reset_peers = ResetPeersMap(loaded.maps["reset_peers"])
        self._ledger = _open_ring_buffer(loaded.maps["ledger"], CONNECTION)
        self._cgroups = _open_ring_buffer(loaded.maps["cgroups"], CGROUP)
        self._host_sockets = HostSocketsReader()
        self._executables = ExecutableReader(loaded.task_iterator)
        self._is_complete_pass_due = True
        self._complete_pass_due_ns = 0
        self._losses_before = np.zeros(len(LOSS_FIELDS), np.int64)
        self._missed_events = 0
        self._live_sockets = LiveSockets(loaded, _open_ring_buffer(loaded.maps["live"], CONNECTION))

    @property
    def connect_errors_problem(self) -> str:
        """Return the reason why this kernel does not show every connect that fails before its first packet; or ""."""
        return self._loaded.connect_errors_problem

    @property
    def message_probes_problem(self) -> str:
        """Return the reason why the kernel cannot run the message probes, or did not attach them; "" where it can."""
        return self._loaded.message_probes_problem or self._attach_problem

    @property
    def socket_iterator_problem(self) -> str:
        """Return the reason why this kernel cannot walk over sockets, and walks over files instead; "" where it can."""
        return self._loaded.socket_iterator_problem

    @property
    def task_iterator_problem(self) -> str:
        """Return the reason why this kernel does not show the path of an executable; "" where it does."""
        return self._loaded.task_iterator_problem

    @property
    def run_times_problem(self) -> str:
        """Return the reason why the kernel does not count the runs of programs; "" where it does, or is not asked."""
        return self._loaded.run_times_problem

    def program_runs(self) -> dict[str, ProgramRuns]:
        """Return the runs of each program by name, zeros unless the kernel counts them. For any thread."""
        infos = {name: libbpf.program_info(fd) for name, fd in self._loaded.programs.items()}
        return {name: ProgramRuns(int(info.run_cnt), int(info.run_time_ns)) for name, info in infos.items()}

    def find_executable(self, pid: int, start_ns: int) -> Executable | None:
        """Return the executable of the process with this start, CLOCK_BOOTTIME; None: it has ended or is not known."""
        return self._executables.read(pid, start_ns)

    def enable_message_probes(self) -> bool:
        """Attach the programs that run at each message; return whether they are attached now."""
        if not self._message_links:
            self._attach_problem = ""
            try:
                self._attach_message_probes()
            except (OSError, NotPermitted) as error:  # no descriptor or no memory is free: all of them, or none
                self.disable_message_probes()
                self._attach_problem = str(error)
        return bool(self._message_links)

    def disable_message_probes(self) -> None:
        """Detach the programs that run at each message."""
        for fd in self._message_links:
            os.close(fd)
        self._message_links.clear()
        if self._responses is not None:
            self._responses.close()
            self._responses = None

    def _attach_message_probes(self) -> None:
        maps = self._loaded.maps
        since_ns = self._clock.boottime_ns()
        libbpf.store_number(maps["attached_since"], since_ns, "cannot store the start time of the message probes")
        for fd in self._loaded.message_programs:
            self._message_links.append(libbpf.attach(fd))
        if self._message_links:
            self._responses = _open_ring_buffer(maps["responses"], RESPONSE)
            self._responses.read()  # discard the rest of the time when the probes were last attached

    def request_complete_pass(self) -> None:
        """Let the next reading have all live sockets: the last one, or its use, failed."""
        self._is_complete_pass_due = True

    def read(self, *, complete: bool = False) -> Reading:
        """Read the live sockets, then the ledger: in this order no connection is missed between the two.

        `complete`: all live sockets, else those that changed since the last reading. The first reading is complete, and
        so is one every few minutes, and the one after a loss: the end of a connection can be lost.

        Raises:
            OSError, MemoryError: a read failed; ended connections stay in the ledger for the next reading.
        """
        misses = self._count_misses()  # first: an event that is skipped later can already be counted as handled below
        began = self._clock.boottime_ns()
        complete |= self._is_complete_pass_due or began >= self._complete_pass_due_ns
        self._is_complete_pass_due = True  # unless this reading succeeds
        live, coverage = self._live_sockets.read(complete=complete)
        pass_seconds = (self._clock.boottime_ns() - began) / 1e9
        sums = self._with_missed_resets(self._sums.read())
        reset_peers = self._reset_peers.read(began)
        probing = self._responses is not None
        datagrams = self._datagrams.read() if probing else self._datagrams.empty_totals()
        responses = self._responses.read() if self._responses is not None else np.empty(0, RESPONSE)
        host = self._host_sockets.read()
        quality = self._quality(misses, pass_seconds, int(self._live_sockets.is_walk_unfinished))
        cgroups = self._cgroups.read()
        closed = self._ledger.read()  # last: it removes the records, and a later failure would lose them
        self._is_complete_pass_due = bool(quality.ledger_full or quality.sums_full or quality.missed_events)
        if complete:
            self._complete_pass_due_ns = began + _COMPLETE_PASS_NS
        at_ns = self._clock.boottime_ns()
        return Reading(at_ns, live, closed, sums, responses, datagrams, quality, reset_peers, cgroups, host, coverage)

    def close(self) -> None:
        """Detach the programs and close every descriptor."""
        self.disable_message_probes()
        for fd in self._attached:
            os.close(fd)
        self._attached.clear()
        self._ledger.close()
        self._cgroups.close()
        self._host_sockets.close()
        self._live_sockets.close()
        self._loaded.close()

    def _count_misses(self) -> int:
        """Return how many runs of programs the kernel has skipped, without the programs that only count resets."""
        programs = (*self._loaded.message_programs, *self._loaded.connect_error_programs)
        optional = sum(libbpf.recursion_misses(program) for program in programs)
        return optional + libbpf.recursion_misses(self._loaded.connection_programs[STATE_PROBE.name])

    def _with_missed_resets(self, sums: Totals) -> Totals:
        """Add the resets for which the kernel skipped the programs. It counts them, but not per process."""
        missed = {
            counter: libbpf.recursion_misses(self._loaded.connection_programs[program.name])
            for counter, program in zip(("resets_received", "resets_sent"), RESET_PROBES, strict=True)
        }
        if not any(missed.values()):
            return sums
        unknown_owner = np.zeros(1, SUMS_KEY)
        keys, values = sums.keys, sums.values
        if unknown_owner not in keys:
            keys, values = np.append(keys, unknown_owner), np.append(values, np.zeros(1, SUMS))
        for counter, count in missed.items():
            values[counter][keys == unknown_owner] += np.uint64(count)
        return Totals(keys, values)

    def _quality(self, misses: int, pass_seconds: float, walk_unfinished: int) -> Quality:
        maps = self._loaded.maps
        lost = np.array([_read_counter(maps["losses"], index) for index in range(len(LOSS_FIELDS))])
        counts = (int(number) for number in lost - self._losses_before)
        new: dict[str, Any] = dict(zip(LOSS_FIELDS, counts, strict=True))
        missed = max(self._missed_events, misses - _read_counter(maps["fallback_events"], 0))
        newly_missed = missed - self._missed_events
        self._losses_before, self._missed_events = lost, missed
        return Quality(**new, missed_events=newly_missed, pass_seconds=pass_seconds, walk_unfinished=walk_unfinished)


def _read_counter(array: int, index: int) -> int:
    value = ct.c_uint64()
    result = libbpf.library().bpf_map_lookup_elem(array, ct.byref(ct.c_uint32(index)), ct.byref(value))
    libbpf.check_result(result, "cannot read a counter")
    return value.value


def _open_ring_buffer(fd: int, record: np.dtype[np.void]) -> RingBuffer:
    return RingBuffer(fd, libbpf.map_info(fd).max_entries, record)
