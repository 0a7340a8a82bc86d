"""Deadlines of operations that wait in several steps."""

from __future__ import annotations

import time


class Deadline:
    """A moment at which an operation must have ended; CLOCK_MONOTONIC."""

    def __init__(self, seconds: float) -> None:
        """Set the deadline to `seconds` from now."""
        self._at = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds left, 0 after the deadline."""
        return max(0.0, self._at - time.monotonic())

    def socket_timeout(self) -> float:
        """Return the seconds left, at least 1 ms: with a timeout of 0 a socket does not wait at all."""
        return max(0.001, self.remaining())
