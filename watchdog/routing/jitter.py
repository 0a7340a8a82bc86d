"""Hosts that share their rules should not all speak at once: what is told of the time after a start or a reload waits.

Each host waits for a share of `jitter` of its own, the same each time. Only with news of the first seconds, and of what
became true then, however long a rule's `for` is: that is how a bad rule shows. What is critical never waits.
"""

from __future__ import annotations

import hashlib

from watchdog.clock import SECOND_NS, Now

SETTLING_SECONDS = 15


def hash_to_share(*identity: str) -> float:
    """Return a number of [0, 1) that looks random and is always the same for one host."""
    digest = hashlib.sha256("\0".join(identity).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


class Jitter:
    """How long one host waits."""

    def __init__(self, share: float) -> None:
        """Wait for `share` of whatever the settings say, and not at all before `begin`."""
        self._share = share
        self._began = Now(0, 0.0)
        self._delay_ns = 0

    def restart(self, now: Now, jitter_ns: int) -> None:
        """Take in that the daemon has started, or its rules have changed."""
        self._began = now
        self._delay_ns = int(jitter_ns * self._share)

    def delay_ns(self, unsent_since_ns: int, started: float) -> int:
        """Return how much later than at other times news are told.

        `unsent_since_ns`: CLOCK_BOOTTIME of the first of them; `started`: wall clock when the first became true.
        """
        passed_seconds = (unsent_since_ns - self._began.boottime_ns) / SECOND_NS, started - self._began.wall
        return self._delay_ns if any(0 <= seconds < SETTLING_SECONDS for seconds in passed_seconds) else 0
