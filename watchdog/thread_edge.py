"""The edge of a thread that must go on: an unexpected exception is logged and named in the status, and ends nothing."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from watchdog.errors import error_location

_PAUSE_SECONDS = 0.1  # after a failure: a step that fails at once takes no CPU
_log = logging.getLogger("watchdog")
_failing: dict[str, str] = {}  # of this process: error of the newest step, by name of the thread


class ThreadEdge:
    """Guards the steps of one thread."""

    def __init__(self, name: str) -> None:
        """Guard the thread `name`, which stands in log lines and in `thread_problems`."""
        self._name = name
        self._failures = 0  # in a row

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Run the block, one step of the thread; an exception ends the step only.

        The 1st, 2nd, 4th, 8th, … failure in a row is logged, by type and location: texts of errors may hold secrets.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the edge of a thread: the next step must come after any failure
            self._fail(f"{type(error).__name__} in {error_location(error)}")
        else:
            if self._failures:
                _log.warning("thread works again: thread=%s failures=%d", self._name, self._failures)
                self.end()

    def end(self) -> None:
        """Forget the failures: the thread works again, or has ended."""
        self._failures = 0
        _failing.pop(self._name, None)

    def _fail(self, error: str) -> None:
        self._failures += 1
        _failing[self._name] = error
        if self._failures & (self._failures - 1) == 0:
            _log.error("thread failed, it goes on: thread=%s in_a_row=%d error=%s", self._name, self._failures, error)
        time.sleep(_PAUSE_SECONDS)


def thread_problems() -> list[str]:
    """Return a line for each thread whose newest step failed. Never blocks; any thread may ask."""
    return [f"thread fails: thread={name} error={error}" for name, error in sorted(_failing.copy().items())]
