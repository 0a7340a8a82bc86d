"""Threads of attempts: any user of the host can use up the threads that it has.

An attempt needs two beside its own: for the name resolution, which has no timeout, and for its guard. Threads that have
done their work wait for the next attempt, so that attempts go on while the host has no further thread.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from watchdog.errors import DeliveryError, DeliveryErrorReason

THREADS_PER_ATTEMPT: Final = 2
MAX_SPARE: Final = 16  # threads that wait; an idle thread takes some 30 kB

_lock = threading.Lock()
_spare: list[_HelperThread] = []


def start_thread(thread: threading.Thread) -> None:
    """Start `thread`.

    Raises:
        DeliveryError: `connect`: no further thread is allowed, see kernel.threads-max and pids.max.
    """
    try:
        thread.start()
    except RuntimeError:
        raise DeliveryError(
            DeliveryErrorReason.CONNECT, "no further thread can be started on this host", retryable=True
        ) from None


def run_in_thread(function: Callable[[], None]) -> threading.Event:
    """Call `function` in a thread that waits for work, or in a new one; return the event of its end.

    Raises:
        DeliveryError: as `start_thread`.
    """
    with _lock:
        helper = _spare.pop() if _spare else None
    if helper is None:
        helper = _HelperThread()
        start_thread(helper.thread)
    return helper.take(function)


def keep_spare_threads(count: int) -> None:
    """Start threads that wait for work, until `count` of them or `MAX_SPARE` do, or the host has no further one."""
    with contextlib.suppress(DeliveryError), _lock:
        while len(_spare) < min(count, MAX_SPARE):
            helper = _HelperThread()
            start_thread(helper.thread)
            _spare.append(helper)


def _forget_threads() -> None:
    """Drop the threads of the parent, which a forked child does not have; its lock can be held for ever."""
    global _lock  # noqa: PLW0603 - the only one
    _lock = threading.Lock()
    _spare.clear()


os.register_at_fork(after_in_child=_forget_threads)


class _HelperThread:
    """A daemon thread that calls one function after the other: a name resolution can hang for ever."""

    def __init__(self) -> None:
        self.thread = threading.Thread(target=self._run, name="attempt-helper", daemon=True)
        self._work: SimpleQueue[tuple[Callable[[], None], threading.Event]] = SimpleQueue()

    def take(self, function: Callable[[], None]) -> threading.Event:
        ended = threading.Event()
        self._work.put((function, ended))
        return ended

    def _run(self) -> None:
        is_kept = True
        while is_kept:
            function, ended = self._work.get()
            try:
                function()
                with _lock:  # before the event: the caller may need a thread at once
                    is_kept = len(_spare) < MAX_SPARE
                    if is_kept:
                        _spare.append(self)
            finally:
                ended.set()
