"""The store: alerts, notification groups and pending notifications, kept in the state file across restarts.

Each tick makes one commit. Nothing is sent before the commit, and nothing is lost after it.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import Connection

from watchdog.alerts.alert import Alert
from watchdog.clock import SECOND_NS, Clock
from watchdog.errors import StoreError
from watchdog.routing.group import ReceiverGroupKey
from watchdog.routing.notification import Notification
from watchdog.state import notified, outbox_rows
from watchdog.state.capacity import OutboxCapacity, enforce_capacity, prune_history
from watchdog.state.documents import AlertKind, GroupKind, JsonDocument, load_document
from watchdog.state.pending_writes import OutageChanges, PendingWrites
from watchdog.state.reports import StorageReports
from watchdog.state.rule_history import RuleHistory
from watchdog.state.salvage_checks import SALVAGE_CHECKS
from watchdog.state.silences import Silences, shift_silences
from watchdog.storage import reserve
from watchdog.storage.checksum import checksum, is_intact
from watchdog.storage.damage import QuarantinedFile, is_disk_full
from watchdog.storage.database import Database
from watchdog.storage.folder import STATE_FILE_NAME

MAX_HISTORY_SECONDS = 7 * 24 * 3600  # notifications that have ended are kept this long …
MAX_HISTORY_ROWS = 10_000  # … and at most this many; at most as many attempts, and as many receiver states
PRUNE_INTERVAL_NS = 3600 * SECOND_NS
CLOCK_SAVE_INTERVAL_NS = 5 * SECOND_NS  # while a timer runs: precision of the time of the last tick after a crash

_MAX_HALVINGS = 6  # of the outbox capacity, when the file cannot grow and new changes need space
_CAPACITY = OutboxCapacity()
_NO_OUTAGES = OutageChanges()
_NONE_HELD: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class SavedOutages:
    """Documents about receivers that are down, as in `OutageChanges`."""

    alerts: tuple[JsonDocument, ...] = ()
    groups: tuple[JsonDocument, ...] = ()
    progress: tuple[JsonDocument, ...] = ()


@dataclass(frozen=True, slots=True)
class SavedState:
    """The content of the state file at start.

    `boottime_shift_ns`: is added to saved CLOCK_BOOTTIME values to get those of this boot; 0 within the same boot.
    `downtime_ns`: time since the last commit; it is the time without a daemon if timers ran until then. `notified`:
    (receiver, alert) of everything sent as firing for which no resolved notification is pending. `rule_memories`:
    memories of rules, by rule id and name of the part.
    """

    alerts: tuple[JsonDocument, ...]
    groups: tuple[JsonDocument, ...]
    outages: SavedOutages
    boottime_shift_ns: int
    downtime_ns: int
    notified: tuple[tuple[str, Alert], ...]
    rule_memories: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)


class Store:
    """The state file. `commit` is for one thread; the outbox uses `database` from others at the same time."""

    def __init__(self, folder: Path, clock: Clock, boot_id: str, capacity: OutboxCapacity = _CAPACITY) -> None:
        """Open the state file in `folder`; create both if they are missing.

        `boot_id`: identifies this boot (`watchdog.clock.boot_id()`). `capacity`: limits the pending notifications.

        Raises:
            StoreError: another daemon uses the folder, or the file cannot be used.
        """
        self.database = Database(folder / STATE_FILE_NAME, clock, SALVAGE_CHECKS)
        self._clock = clock
        self._boot_id = boot_id
        self._capacity = capacity
        self._reports = StorageReports(self.database.path, clock)
        self._reserving = False
        self._known_quarantined = 0
        self._pruned_ns: int | None = None
        self._clocks_saved_ns = 0
        self._pending_writes = PendingWrites()
        try:
            with self.database.transaction() as connection:
                self._shift_pending(connection)
            self.rule_history = RuleHistory(self.database)
            self.silences = Silences(self.database, lambda connection: self._save_clocks(connection, "notifications"))
        except BaseException:
            self.database.close()
            raise

    @property
    def quarantined(self) -> tuple[QuarantinedFile, ...]:
        """Return the damaged files that were moved aside since the start, oldest first."""
        return self.database.quarantined

    @property
    def has_unwritten_notifications(self) -> bool:
        """Return whether a failed commit left notifications in memory."""
        return bool(self._pending_writes.notifications)

    def reserve_space(self) -> None:
        """Reserve the maximum size of the file on the disk; retry each minute if the disk has not enough space."""
        self._reserving = True
        try:
            reserve.reserve_space(self.database)
        except StoreError as error:
            self._reports.report_unreserved(error)

    def take_recreated(self) -> bool:
        """Return whether the file was recreated since `load` or the last call.

        If so, the next commit must contain every alert and every group: some may not have been salvaged.
        """
        before, self._known_quarantined = self._known_quarantined, len(self.quarantined)
        return self._known_quarantined > before

    def load(self) -> SavedState:
        """Return the state that the former daemon saved.

        If `boottime_shift_ns` is not 0, the first commit must contain every loaded alert and group with shifted times:
        the file cannot hold times of two boots.

        Raises:
            StoreError: the file cannot be read.
        """
        with self.database.transaction() as connection:
            alerts = connection.execute("SELECT kind, document, checksum FROM alerts ORDER BY fingerprint").fetchall()
            groups = connection.execute(
                "SELECT kind, document, checksum FROM groups ORDER BY receiver, kind, group_key"
            ).fetchall()
            boottime_shift_ns = self._shift_ns(connection, "state")
            saved = connection.execute("SELECT boottime_ns FROM clocks WHERE part = 'state'").fetchone()
            unresolved = notified.unresolved_alerts(connection)
            memories = connection.execute("SELECT rule, part, content, checksum FROM rule_memories").fetchall()
        self._known_quarantined = len(self.quarantined)
        return SavedState(
            alerts=_documents(alerts, AlertKind.RULE),
            groups=_documents(groups, GroupKind.ROUTED),
            outages=SavedOutages(
                alerts=_documents(alerts, AlertKind.RECEIVER_DOWN),
                groups=_documents(groups, GroupKind.ESCALATION),
                progress=_documents(groups, GroupKind.ESCALATION_PROGRESS),
            ),
            boottime_shift_ns=boottime_shift_ns,
            downtime_ns=0 if saved is None else max(0, self._clock.boottime_ns() - (saved[0] + boottime_shift_ns)),
            notified=tuple(unresolved),
            rule_memories=_rule_memories(memories),
        )

    def commit(
        self,
        *,
        alerts: Iterable[tuple[str, JsonDocument | None]],
        groups: Iterable[tuple[ReceiverGroupKey, JsonDocument | None]],
        notifications: Iterable[Notification],
        outages: OutageChanges = _NO_OUTAGES,
        rule_memories: Iterable[tuple[tuple[str, str], bytes | None]] = (),
        timers_running: bool = False,
        held: Mapping[str, int] = _NONE_HELD,
    ) -> None:
        """Write the changes (None: deleted) and notifications of one tick in one transaction; none, if nothing changed.

        `rule_memories`: changed parts of the memories of rules, by rule id and name of the part. `timers_running`: also
        save the time of this tick, at least each `CLOCK_SAVE_INTERVAL_NS`. `held`: ids of notifications that are due
        later than now, and the CLOCK_BOOTTIME in ns at which they are.

        After a failure nothing of it is in the file. All changes are kept in memory for the next commit, which writes
        the newest document of each key: the caller passes each change once and continues with the next tick. If the
        outbox exceeds its capacity, the least needed notifications are dropped, counted and logged
        (`state/capacity.py`).

        Raises:
            StoreError: the disk is full, or the file cannot be written.
        """
        self._pending_writes.add(alerts, groups, notifications, outages)
        self._pending_writes.rule_memories.update(rule_memories)
        self._keep_space_free()
        due = timers_running and self._clock.boottime_ns() >= self._clocks_saved_ns + CLOCK_SAVE_INTERVAL_NS
        if not (self._pending_writes or due):
            return
        try:
            self._write(held)
        except StoreError as error:
            self._pending_writes.merge_groups()
            changes = len(self._pending_writes.alerts) + len(self._pending_writes.groups)
            self._reports.report_failed_commit(error, changes, len(self._pending_writes.notifications))
            raise
        self._pending_writes.clear()
        self._clocks_saved_ns = self._clock.boottime_ns()

    def close(self) -> None:
        """Close the file; uncommitted changes are lost."""
        self.database.close()

    def _write(self, held: Mapping[str, int]) -> None:
        try:
            self._write_once(held)
        except StoreError as error:
            if not is_disk_full(error.__cause__):
                raise
            wanted_bytes = reserve.MIN_FREE_BYTES + self._pending_writes.size_bytes() * 5 // 4
            with self.database.transaction() as connection:
                if reserve.preallocated_bytes(connection) >= wanted_bytes:
                    raise  # the disk is full, and the WAL cannot grow
                self._free_up(connection, wanted_bytes)
            self._write_once(held)

    def _write_once(self, held: Mapping[str, int]) -> None:
        dropped: Counter[str] = Counter()
        with self.database.transaction() as connection:
            self._write_state(connection)
            if self._pending_writes.notifications:
                pending = self._pending_writes.notifications.values()
                outbox_rows.insert_notifications(connection, pending, self._clock.boottime_ns(), held)
                dropped = enforce_capacity(connection, self._capacity, self._clock.wall())
            self.rule_history.write(connection, self._clock.wall())
            self._save_clocks(connection, "state")
            self._save_clocks(connection, "notifications")
            self._prune(connection)
        self.rule_history.mark_written()
        self._reports.report_dropped(dropped)

    def _keep_space_free(self) -> None:
        # Once a minute: keep some space free in the file, so that attempts and their results can be written too.
        self._reports.report_dropped(Counter())  # those of the last minute
        if not self._reports.is_due("space check"):
            return
        with contextlib.suppress(StoreError):
            with self.database.transaction() as connection:
                missing = not reserve.is_fully_reserved(connection)
                if reserve.free_bytes(connection) < reserve.MIN_FREE_BYTES:
                    self._free_up(connection, reserve.MIN_FREE_BYTES)
                free_bytes = reserve.free_bytes(connection)
            self._reports.report_full_disk(free_bytes)
            if missing and self._reserving:
                self.reserve_space()

    def _free_up(self, connection: Connection, wanted_bytes: int) -> None:
        # History is worth less than new changes. Pending notifications are dropped only if the file cannot grow.
        for history_bytes in (self._capacity.max_history_bytes, 0):
            if reserve.preallocated_bytes(connection) < wanted_bytes:
                outbox_rows.trim_history(connection, history_bytes)
        halvings = 0
        while (
            reserve.is_fully_reserved(connection)
            and reserve.preallocated_bytes(connection) < wanted_bytes
            and halvings < _MAX_HALVINGS
        ):
            halvings += 1
            dropped = enforce_capacity(connection, self._capacity.halved(halvings), self._clock.wall())
            outbox_rows.trim_history(connection, 0)  # the merged ones
            self._reports.report_dropped(dropped)

    def _write_state(self, connection: Connection) -> None:
        alerts, groups = self._pending_writes.alerts, self._pending_writes.groups
        connection.executemany(
            "INSERT INTO alerts (fingerprint, kind, document, checksum) VALUES (?, ?, ?, ?) ON CONFLICT (fingerprint) "
            "DO UPDATE SET kind = excluded.kind, document = excluded.document, checksum = excluded.checksum",
            [(key, kind.value, text, checksum(text)) for (kind, key), text in alerts.items() if text is not None],
        )
        connection.executemany(
            "DELETE FROM alerts WHERE fingerprint = ?", [(key,) for (_, key), text in alerts.items() if text is None]
        )
        connection.executemany(
            "INSERT INTO groups (kind, receiver, group_key, document, checksum) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (receiver, kind, group_key) "
            "DO UPDATE SET document = excluded.document, checksum = excluded.checksum",
            [(kind.value, *key, text, checksum(text)) for (kind, *key), text in groups.items() if text is not None],
        )
        connection.executemany(
            "DELETE FROM groups WHERE kind = ? AND receiver = ? AND group_key = ?",
            [(kind.value, *key) for (kind, *key), text in groups.items() if text is None],
        )
        memories = self._pending_writes.rule_memories
        connection.executemany(
            "INSERT INTO rule_memories (rule, part, checksum, content) VALUES (?, ?, ?, ?) ON CONFLICT (rule, part) "
            "DO UPDATE SET checksum = excluded.checksum, content = excluded.content",
            [(*key, checksum(content), content) for key, content in memories.items() if content is not None],
        )
        connection.executemany(
            "DELETE FROM rule_memories WHERE rule = ? AND part = ?",
            [key for key, content in memories.items() if content is None],
        )

    def _prune(self, connection: Connection) -> None:
        now_ns = self._clock.boottime_ns()
        if self._pruned_ns is not None and now_ns < self._pruned_ns + PRUNE_INTERVAL_NS:
            return
        ended_before = self._clock.wall() - MAX_HISTORY_SECONDS
        prune_history(connection, ended_before, MAX_HISTORY_ROWS, self._capacity.max_history_bytes)
        connection.execute(
            "DELETE FROM receiver_state WHERE rowid <= (SELECT max(rowid) FROM receiver_state) - ?",
            (MAX_HISTORY_ROWS,),
        )
        self._pruned_ns = now_ns

    def _save_clocks(self, connection: Connection, part: str) -> None:
        connection.execute(
            "INSERT INTO clocks (part, boot_id, boottime_ns, wall) VALUES (?, ?, ?, ?) ON CONFLICT (part) "
            "DO UPDATE SET boot_id = excluded.boot_id, boottime_ns = excluded.boottime_ns, wall = excluded.wall",
            (part, self._boot_id, self._clock.boottime_ns(), self._clock.wall()),
        )

    def _shift_ns(self, connection: Connection, part: str) -> int:
        row = connection.execute("SELECT boot_id, boottime_ns, wall FROM clocks WHERE part = ?", (part,)).fetchone()
        if row is None or row[0] == self._boot_id:
            return 0
        boottime_ns, wall = int(row[1]), float(row[2])
        # A host without a battery-backed clock starts in 1970: then assume no downtime instead of a negative one.
        downtime_ns = max(0, round((self._clock.wall() - wall) * SECOND_NS))
        return self._clock.boottime_ns() - (boottime_ns + downtime_ns)

    def _shift_pending(self, connection: Connection) -> None:
        boottime_shift_ns = self._shift_ns(connection, "notifications")
        if boottime_shift_ns:
            outbox_rows.shift_pending(connection, boottime_shift_ns)
            shift_silences(connection, boottime_shift_ns)
            self._save_clocks(connection, "notifications")


def _rule_memories(rows: Iterable[tuple[str, str, bytes, int]]) -> dict[str, dict[str, bytes]]:
    memories: dict[str, dict[str, bytes]] = {}
    for rule, part, content, expected in rows:
        if is_intact(content, expected):
            memories.setdefault(rule, {})[part] = content
    return memories


def _documents(rows: Iterable[tuple[str, str, int | None]], kind: str) -> tuple[JsonDocument, ...]:
    return tuple(load_document(text, expected) for row_kind, text, expected in rows if row_kind == kind)
