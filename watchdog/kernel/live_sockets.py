"""The pass over live sockets, and the walk over the files of all tasks that finds their owners.

The pass visits the sockets that the programs follow, however many files others hold. The walk over files costs as much
as there are files, so a tick continues it for a limited time only; its descriptor stays open between ticks.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from watchdog.kernel import libbpf
from watchdog.kernel.handover import LoadedPrograms
from watchdog.kernel.layout import FLAG_APART
from watchdog.kernel.ring_buffer import RingBuffer

RECORDS_PER_READ = 8192
"""Records that one read of an iterator makes at most; they fit into the map `live`."""
# CPU time, so that a busy host does not make the walk incomplete.
_BASELINE_SECONDS = 2.0  # the first walk: it makes the entries of sockets that are older than the programs
_TICK_SECONDS = 0.005  # a whole round on a host with some 20,000 open files
_FILES_ALONE_SECONDS = 1.0  # where the walk over files also reports the sockets
# Rounds take 0.1 % of one CPU, but one begins every 30 s: 0.3 ms of walk each second, 5 ms each 5 s.
_ROUND_PAUSES = 1000
_URGENT_ROUND_PAUSES = 20  # 5 %, while the walk reports sockets that have no memory for an entry in socket storage
_MAX_ROUND_SECONDS = 30.0
# A long round takes 40 % of one CPU: 60 million files, of a user who has nothing else in mind, take 25 s.
_STEP_PAUSES = 1.5
_MARK_BYTES = 8  # a program writes one at the end of a read


class Coverage(Enum):
    """The live sockets that the rows of one reading cover."""

    ALL = "all"
    CHANGED = "changed"  # idle sockets are left out: since their last row only the time went on
    PART = "part"  # the others were not visited in this tick


class Walk:
    """Rounds of one iterator, read in steps."""

    def __init__(self, link: int) -> None:
        """Walk by the iterator behind `link`."""
        self._link = link
        self._fd: int | None = None

    def step(self) -> bool:
        """Visit objects for a few milliseconds; return whether the round goes on.

        Raises:
            OSError: the kernel cannot go on; the next step begins a new round.
        """
        if self._fd is None:
            self._fd = libbpf.open_iterator(self._link)
        try:
            goes_on = bool(os.read(self._fd, _MARK_BYTES))
        except OSError:
            self.close()
            raise
        if not goes_on:
            self.close()
        return goes_on

    @property
    def is_open(self) -> bool:
        """Return whether a round has begun and not ended."""
        return self._fd is not None

    def close(self) -> None:
        """End the round."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class HolderWalk:
    """Rounds over the files of all tasks: they find the processes that hold sockets, and sockets without an entry.

    A round costs as much as there are files, and any user can open many. So rounds are paced by the CPU time of the
    round before, a tick walks for a few milliseconds only, and a thread with a bounded share of one CPU goes on between
    ticks. The thread and the tick never read iterators at the same time.
    """

    def __init__(self, walk: Walk) -> None:
        """Walk by `walk`; the first round begins in the first tick."""
        self._walk = walk
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._unfinished = False
        self._round_began = 0.0  # CLOCK_MONOTONIC, seconds
        self._round_seconds = 0.0  # CPU time of this round
        self._next_round = 0.0
        self._rounds = 0
        self._urgent_round = -1  # the newest round that reported sockets
        self._failure: Exception | None = None

    @contextlib.contextmanager
    def tick(self) -> Iterator[None]:
        """Begin a round if it is due, and keep the thread from walking in the context.

        Raises:
            OSError: the walk failed, here or in the thread; any other exception of the thread too.
        """
        with self._lock:
            self._raise_failure()
            if not self._unfinished and time.monotonic() >= self._next_round:
                self._begin_round(_TICK_SECONDS if self._round_began else _BASELINE_SECONDS)
            yield
        if self._unfinished and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="holder-walk", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # any user can use up the host's threads: tried again in the next tick
                self._thread = None

    def note_reports(self) -> None:
        """Note that the newest round reported sockets, which nothing else does: the next one begins soon."""
        with self._lock:
            self._urgent_round = self._rounds
            self._next_round = self._round_began + self._pause()

    @property
    def is_unfinished(self) -> bool:
        """Return whether a round goes on after this tick."""
        return self._unfinished

    def close(self) -> None:
        """End the round and the thread."""
        self._stopped.set()
        if thread := self._thread:
            thread.join()
        self._walk.close()

    def _begin_round(self, seconds: float) -> None:
        self._round_began, self._round_seconds = time.monotonic(), 0.0
        self._unfinished = True
        self._rounds += 1
        while self._unfinished and self._round_seconds < seconds:
            self._step()

    def _step(self) -> float:
        """Visit some files; return the CPU time that it took."""
        began = time.thread_time()
        self._unfinished = self._walk.step()
        seconds = time.thread_time() - began
        self._round_seconds += seconds
        self._next_round = self._round_began + self._pause()
        return seconds

    def _pause(self) -> float:
        """Return the seconds between the begins of the newest round and the next one."""
        pauses = _URGENT_ROUND_PAUSES if self._urgent_round == self._rounds else _ROUND_PAUSES
        return min(self._round_seconds * pauses, _MAX_ROUND_SECONDS)

    def _run(self) -> None:
        pause = 0.0
        while not self._stopped.wait(pause):
            with self._lock:
                try:
                    pause = self._step() * _STEP_PAUSES
                except Exception as error:  # noqa: BLE001 - the edge of the thread: the next tick raises it
                    self._failure, self._unfinished = error, False
                if not self._unfinished:
                    self._thread = None
                    return

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


class LiveSockets:
    """Reads the live sockets of one tick."""

    def __init__(self, loaded: LoadedPrograms, ring: RingBuffer) -> None:
        """Read through the iterators of `loaded`; `ring`: the map `live`. The first pass is complete."""
        self._files = Walk(loaded.file_iterator_link)
        self._holders = HolderWalk(self._files)
        self._sockets = Walk(loaded.socket_iterator_link) if loaded.socket_iterator_link is not None else None
        self._requests = loaded.maps["complete_pass"]
        self._complete_passes = 0
        self._ring = ring
        self._seconds = _BASELINE_SECONDS  # of a pass over files
        self._expected_bytes = 0  # slightly more than the pass before

    def read(self, *, complete: bool) -> tuple[NDArray[np.void], Coverage]:
        """Return live sockets, (n,) of `CONNECTION`: those that changed since the last reading, or all.

        Raises:
            OSError: a walk failed; the next reading must be complete.
        """
        if self._sockets is None:
            self._ring.read()  # the rest of a pass that failed
            return self._read_by_files()
        if complete:
            self._request_complete_pass()
        with self._holders.tick():
            apart = self._ring.read()
            apart = apart[(apart["flags"] & FLAG_APART) != 0]  # others: the rest of a pass that failed
            live = self._read_by_sockets(self._sockets)
        if len(apart):
            self._holders.note_reports()
            live = np.concatenate([live, _newest_rows(apart)])
        return live, Coverage.ALL if complete else Coverage.CHANGED

    @property
    def is_walk_unfinished(self) -> bool:
        """Return whether a round over files goes on after the last reading."""
        return self._files.is_open if self._sockets is None else self._holders.is_unfinished

    def close(self) -> None:
        """Close the descriptors and the ring."""
        self._holders.close()
        if self._sockets is not None:
            self._sockets.close()
        self._ring.close()

    def _read_by_sockets(self, sockets: Walk) -> NDArray[np.void]:
        rows = _Rows(self._ring, self._expected_bytes)
        goes_on = True
        while goes_on:
            goes_on = sockets.step()
            rows.take()
        self._expected_bytes = rows.filled + rows.filled // 8
        return rows.records()

    def _request_complete_pass(self) -> None:
        self._complete_passes += 1
        libbpf.store_number(self._requests, self._complete_passes, "cannot request a complete pass over sockets")

    def _read_by_files(self) -> tuple[NDArray[np.void], Coverage]:
        rows = _Rows(self._ring, self._expected_bytes)
        is_begun = not self._files.is_open
        end = time.thread_time() + max(self._seconds, _FILES_ALONE_SECONDS)
        self._seconds = _FILES_ALONE_SECONDS
        goes_on = True
        while goes_on and time.thread_time() < end:
            goes_on = self._files.step()
            rows.take()
        return rows.records(), Coverage.ALL if is_begun and not goes_on else Coverage.PART


def _newest_rows(rows: NDArray[np.void]) -> NDArray[np.void]:
    """Return the last row of each connection."""
    _, index = np.unique(rows["cookie"][::-1], return_index=True)
    return rows[::-1][index]


class _Rows:
    """The rows of one pass in one array: one array per read, joined at the end, took a quarter of the time."""

    def __init__(self, ring: RingBuffer, expected_bytes: int) -> None:
        self._ring = ring
        self._raw = np.empty(expected_bytes, np.uint8)
        self.filled = 0

    def take(self) -> None:
        missing = self.filled + self._ring.waiting_bytes() - len(self._raw)
        if missing > 0:
            self._raw = np.concatenate([self._raw[: self.filled], np.empty(len(self._raw) + missing, np.uint8)])
        self.filled += self._ring.read_into(self._raw[self.filled :])

    def records(self) -> NDArray[np.void]:
        return self._ring.records(self._raw[: self.filled])
