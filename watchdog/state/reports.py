"""Log records about a state file that cannot be written as expected: once a minute, not once a tick."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path

from watchdog.clock import SECOND_NS, Clock

REPORT_INTERVAL_NS = 60 * SECOND_NS
_FULL_BYTES = 1024 * 1024  # a disk with less space than that for us counts as full

_log = logging.getLogger("watchdog")


class StorageReports:
    """Logs each kind of problem when it begins, and again each minute while it lasts."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Report on the state file `path`."""
        self._path = path
        self._clock = clock
        self._logged_ns: dict[str, int] = {}
        self._dropped: Counter[str] = Counter()

    def is_due(self, report: str) -> bool:
        """Return whether `report` may be logged now; if so, count it as logged."""
        now_ns = self._clock.boottime_ns()
        logged_ns = self._logged_ns.get(report)
        if logged_ns is not None and now_ns < logged_ns + REPORT_INTERVAL_NS:
            return False
        self._logged_ns[report] = now_ns
        return True

    def report_unreserved(self, error: Exception) -> None:
        """Log that the disk has not enough space for the maximum size of the file."""
        if self.is_due("not reserved"):
            _log.error("cannot reserve disk space, state cannot be saved while the disk is full: error=%s", error)

    def report_failed_commit(self, error: Exception, changes: int, notifications: int) -> None:
        """Log a failed commit with the number of changes and notifications kept in memory for the next."""
        if self.is_due("unwritten"):
            _log.error(
                "commit failed, kept in memory: changes=%d notifications=%d error=%s", changes, notifications, error
            )

    def report_dropped(self, dropped: Counter[str]) -> None:
        """Log the number of notifications dropped to make room, by receiver; those of one minute together."""
        self._dropped += dropped
        if self._dropped and self.is_due("dropped"):
            for receiver, number in sorted(self._dropped.items()):
                _log.error("outbox full, oldest notifications dropped: receiver=%s dropped=%d", receiver, number)
            self._dropped.clear()

    def report_full_disk(self, free_bytes: int) -> None:
        """Log a full disk on which the state is still written, in the reserved space."""
        try:
            status = os.statvfs(self._path)
        except OSError:
            return
        if status.f_bavail * status.f_frsize < _FULL_BYTES and self.is_due("disk"):
            _log.error(
                "disk full, state continues in reserved space: file=%s free=%dKiB",
                self._path,
                free_bytes // 1024,
            )
