"""A stop during the start: SIGTERM and SIGINT end it, although they are blocked for the threads to come."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Final

STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT})


class StopRequested(BaseException):
    """One of `STOP_SIGNALS` has arrived during the start."""


@contextlib.contextmanager
def stopping_at_signals() -> Iterator[None]:
    """Let `STOP_SIGNALS`, which are blocked otherwise, end a block in the main thread: a compiler can take minutes.

    Threads that the block starts would not have them blocked.

    Raises:
        StopRequested: one of them has arrived.
    """

    def stop(_number: int, _frame: object) -> None:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the clean-up
        raise StopRequested

    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
