"""The lock between ticks and everything that must not run during one; a tick that waits goes first."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from watchdog.errors import WatchdogError

_PAUSE_SECONDS = 0.000_5
_CHECK_SECONDS = 0.25
_MAX_HELD_SECONDS = 10.0  # by a tick or a change, after which readers do not wait


class TickLock:
    """Held by a tick, by a change between two ticks, or by a reader.

    A plain lock is not fair: a reader that takes it again and again would hold up a tick for its whole answer.
    """

    def __init__(self) -> None:
        """Start free."""
        self._lock = threading.Lock()
        self._tick_waits = False
        self._held_since: float | None = None  # by a tick or a change, in seconds of CLOCK_MONOTONIC

    @contextlib.contextmanager
    def held_by_tick(self) -> Iterator[None]:
        """Hold the lock for a tick; from the call on, no reader gets it."""
        self._tick_waits = True
        with self._lock, self._timed():
            self._tick_waits = False
            yield

    @contextlib.contextmanager
    def held_by_reader(self) -> Iterator[None]:
        """Hold the lock to copy a part of the state, for some milliseconds at most.

        Raises:
            WatchdogError: a tick, or a change, has held it for 10 s: the disk hangs, for example.
        """
        self._acquire()
        while self._tick_waits:
            self._lock.release()
            time.sleep(_PAUSE_SECONDS)
            self._acquire()
        try:
            yield
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def held(self, timeout_seconds: float = -1) -> Iterator[bool]:
        """Hold the lock for a change; yield whether it was free within `timeout_seconds` (-1: wait without limit)."""
        if not self._lock.acquire(timeout=timeout_seconds):
            yield False
            return
        try:
            with self._timed():
                yield True
        finally:
            self._lock.release()

    def _acquire(self) -> None:
        while not self._lock.acquire(timeout=_CHECK_SECONDS):
            since = self._held_since
            if since is not None and time.monotonic() - since > _MAX_HELD_SECONDS:
                raise WatchdogError("the daemon is busy: a tick or a reload hangs", remedy="see bpf-watchdog status")

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        self._held_since = time.monotonic()
        try:
            yield
        finally:
            self._held_since = None
