"""Reconciliation: when groups are compared with what their receivers know, because notifications failed for good.

A group takes its alerts as notified when the notification is made. If it fails for good, the receiver does not know
them, and Alertmanager would send them again at the next flush. Here this is done after a start, after a reload, once
the receiver has taken another notification, and else after `group_interval`, then after twice that time and so on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from watchdog.clock import SECOND_NS
from watchdog.errors import StoreError
from watchdog.routing.knowledge import Knowledge
from watchdog.state import losses, notified
from watchdog.storage.database import Database

MIN_WAIT_NS = 5 * SECOND_NS
MAX_WAIT_NS = 3600 * SECOND_NS
_READ_INTERVAL_NS = 2 * SECOND_NS


@dataclass(slots=True)
class _ReceiverProgress:
    """`lost`: notifications counted so far; `due_ns`: of the next comparison, None: no loss since the last one."""

    lost: int
    delivered: int = 0
    due_ns: int | None = None
    wait_ns: int = 0
    compared_ns: int | None = None


class Reconciliation:
    """Decides when each receiver is due. Times are CLOCK_BOOTTIME."""

    def __init__(self, database: Database, group_interval_ns: int) -> None:
        """Read losses and knowledge from `database`. Every receiver is due at first: a former daemon may have lost."""
        self._database = database
        self._progress: dict[str, _ReceiverProgress] = {}
        self._read_ns: int | None = None
        self._is_requested = True
        self.group_interval_ns = group_interval_ns

    def request(self) -> None:
        """Let every receiver be due now."""
        self._is_requested = True

    def due_knowledge(self, delivered: Mapping[str, int], now_ns: int) -> Knowledge | None:
        """Return the knowledge of the receivers that are due; None if none is, or the state file cannot be read.

        `delivered`: number of notifications that each receiver has taken since the start or reload.
        """
        is_time = self._read_ns is None or now_ns - self._read_ns >= _READ_INTERVAL_NS
        if not (is_time or self._is_requested):
            return None
        try:
            with self._database.transaction() as connection:
                lost = losses.count_by_receiver(connection)
                due = [
                    name for name, count in delivered.items() if self._is_due(name, lost.get(name, 0), count, now_ns)
                ]
                names = list(delivered) if self._is_requested else due
                knowledge = notified.read_knowledge(connection, names) if names else None
        except StoreError:
            return None  # outages and failed commits are reported elsewhere
        self._read_ns = now_ns
        self._is_requested = False
        self._mark_compared(names, now_ns)
        return knowledge

    def _is_due(self, name: str, lost: int, delivered: int, now_ns: int) -> bool:
        progress = self._progress.setdefault(name, _ReceiverProgress(lost, delivered))
        if lost > progress.lost:
            first_ns = max(self.group_interval_ns, MIN_WAIT_NS)
            is_new = progress.compared_ns is None or now_ns - progress.compared_ns > 2 * progress.wait_ns
            progress.wait_ns = min(MAX_WAIT_NS, first_ns if is_new or not progress.wait_ns else 2 * progress.wait_ns)
            if progress.due_ns is None:
                progress.due_ns = now_ns + progress.wait_ns
            progress.delivered = delivered
        progress.lost = lost
        if progress.due_ns is None:
            return False
        has_taken = delivered != progress.delivered
        waited = progress.compared_ns is None or now_ns - progress.compared_ns >= self.group_interval_ns
        return now_ns >= progress.due_ns or (has_taken and waited)

    def _mark_compared(self, names: Collection[str], now_ns: int) -> None:
        for name in names:
            self._progress[name].due_ns, self._progress[name].compared_ns = None, now_ns
