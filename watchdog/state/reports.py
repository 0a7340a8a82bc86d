"""What the log is told of a state that can't be written as it should: once a minute, not once a tick."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path

from watchdog.clock import SECOND_NS, Clock

REPORT_INTERVAL_NS = 60 * SECOND_NS
_FULL_BYTES = 1024 * 1024  # with less than that left for us a disk counts as full

_log = logging.getLogger("watchdog")


class StorageReports:
    """Tells each kind of trouble when it begins, and each minute while it lasts."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Speak of the state file `path`."""
        self._path = path
        self._clock = clock
        self._told_ns: dict[str, int] = {}
        self._dropped: Counter[str] = Counter()

    def is_due(self, report: str) -> bool:
        """Tell whether `what` has its turn, and count it as taken."""
        now_ns = self._clock.boottime_ns()
        told_ns = self._told_ns.get(report)
        if told_ns is not None and now_ns < told_ns + REPORT_INTERVAL_NS:
            return False
        self._told_ns[report] = now_ns
        return True

    def report_unreserved(self, error: Exception) -> None:
        """Tell that the disk has not the room that the file may need."""
        if self.is_due("not reserved"):
            _log.error("no room is reserved for the state, which will have to wait when the disk is full: %s", error)

    def report_failed_commit(self, error: Exception, changes: int, notifications: int) -> None:
        """Tell that a commit failed, and how much waits for the next in memory."""
        if self.is_due("unwritten"):
            _log.error("%s; %d changes and %d notices wait in memory", error, changes, notifications)

    def report_dropped(self, dropped: Counter[str]) -> None:
        """Tell of notices, by receiver, that were given up for want of room; those of the last minute together."""
        self._dropped += dropped
        if self._dropped and self.is_due("dropped"):
            for receiver, number in sorted(self._dropped.items()):
                _log.error("no room for more notices that wait for %s: %d were given up", receiver, number)
            self._dropped.clear()

    def report_full_disk(self, free_bytes: int) -> None:
        """Tell when the disk is full, though the state goes on in what is reserved."""
        try:
            status = os.statvfs(self._path)
        except OSError:
            return
        if status.f_bavail * status.f_frsize < _FULL_BYTES and self.is_due("disk"):
            _log.error(
                "the disk of %s is full: the state goes on in the %d KiB that are left in the file",
                self._path,
                free_bytes // 1024,
            )
