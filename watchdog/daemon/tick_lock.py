"""The lock between ticks and everything that must not run during one; a tick that waits goes first."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

_PAUSE_SECONDS = 0.000_5


class TickLock:
    """Held by a tick, by a change between two ticks, or by a reader.

    A plain lock is not fair: a reader that takes it again and again would hold up a tick for its whole answer.
    """

    def __init__(self) -> None:
        """Start free."""
        self._lock = threading.Lock()
        self._tick_waits = False

    @contextlib.contextmanager
    def held_by_tick(self) -> Iterator[None]:
        """Hold the lock for a tick; from the call on, no reader gets it."""
        self._tick_waits = True
        with self._lock:
            self._tick_waits = False
            yield

    @contextlib.contextmanager
    def held_by_reader(self) -> Iterator[None]:
        """Hold the lock to copy a part of the state, for some milliseconds at most."""
        self._lock.acquire()
        while self._tick_waits:
            self._lock.release()
            time.sleep(_PAUSE_SECONDS)
            self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def held(self, timeout_seconds: float = -1) -> Iterator[bool]:
        """Hold the lock for a change; yield whether it was free within `timeout_seconds` (-1: wait without limit)."""
        is_held = self._lock.acquire(timeout=timeout_seconds)
        try:
            yield is_held
        finally:
            if is_held:
                self._lock.release()
