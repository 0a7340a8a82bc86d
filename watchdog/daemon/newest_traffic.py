"""The newest snapshot, kept for `top` while somebody watches: a tick copies references, and nothing otherwise."""

from __future__ import annotations

from watchdog.clock import SECOND_NS, Clock
from watchdog.measure.snapshot import Snapshot
from watchdog.measure.traffic_rows import keep_columns

_WATCHED_NS = 15 * SECOND_NS  # after the newest request


class NewestTraffic:
    """The thread of the ticks gives snapshots, any other reads the newest one."""

    def __init__(self, clock: Clock) -> None:
        """Keep nothing before the first `read`."""
        self._clock = clock
        self._until_ns = 0
        self._snapshot: Snapshot | None = None

    def take(self, snapshot: Snapshot) -> None:
        """Keep the snapshot of this tick if somebody watches, and drop the former one."""
        self._snapshot = keep_columns(snapshot) if snapshot.at_ns < self._until_ns else None

    def read(self) -> Snapshot | None:
        """Return the newest snapshot, with the columns of `keep_columns`; None before the tick that follows a read."""
        self._until_ns = self._clock.boottime_ns() + _WATCHED_NS
        return self._snapshot
