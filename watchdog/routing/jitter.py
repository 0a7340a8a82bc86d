"""Jitter: spreads the notifications of many hosts that share their rules, after a start or a reload.

Each host has its own constant share of `jitter` and delays notifications by it. Only alerts of the first seconds after
a start or reload are delayed, and alerts that became true then, however long their `for` is: a bad rule shows itself in
this way. A critical alert is never delayed.
"""

from __future__ import annotations

import hashlib

from watchdog.clock import SECOND_NS

SETTLING_SECONDS = 15


def hash_to_share(*identity: str) -> float:
    """Return a pseudo-random number in [0, 1) that is constant for one `identity`."""
    digest = hashlib.sha256("\0".join(identity).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


class Jitter:
    """The delay of one host."""

    def __init__(self, share: float) -> None:
        """Use `share`, in [0, 1), of the configured jitter; no delay before `restart` is called."""
        self._share = share
        self._began_ns = 0
        self._delay_ns = 0

    def restart(self, at_ns: int, jitter_ns: int) -> None:
        """Record that the daemon has started or reloaded its rules; `jitter_ns`: the configured maximum."""
        self._began_ns = at_ns
        self._delay_ns = int(jitter_ns * self._share)

    def delay_ns(self, unsent_since_ns: int, started_ns: int) -> int:
        """Return the additional delay in ns of a notification.

        `unsent_since_ns`, `started_ns`: CLOCK_BOOTTIME since when it waits, and when its first alert became true.
        """
        passed_seconds = [(at_ns - self._began_ns) / SECOND_NS for at_ns in (unsent_since_ns, started_ns)]
        return self._delay_ns if any(0 <= seconds < SETTLING_SECONDS for seconds in passed_seconds) else 0
