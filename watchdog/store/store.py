"""What must outlive the daemon: alerts, what receivers know of them, and notices on their way.

The tick's one commit is the point of no return of DESIGN §2.5: before it nothing is sent, after it nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from watchdog.alerts.group import GroupKey
from watchdog.alerts.notice import Notice
from watchdog.clock import SECOND_NS, Clock
from watchdog.store.database import Database

FILE_NAME = "state.sqlite3"

KEEP_SECONDS = 7 * 24 * 3600  # notices that have ended are kept this long …
KEEP_ROWS = 10_000  # … and this many at most; as many attempts
PRUNE_EVERY_NS = 3600 * SECOND_NS
NOTE_EVERY_NS = 5 * SECOND_NS  # while a timer runs, the time of the last tick is known this well after a crash

State = dict[str, Any]  # JSON-able


@dataclass(frozen=True, slots=True)
class Saved:
    """What was in the store at start.

    `shift_ns` turns saved CLOCK_BOOTTIME values into this boot's, by addition; 0 within the same boot. `down_ns`: time
    since the last commit, as long as there was no daemon if timers ran until then.
    """

    alerts: tuple[State, ...]
    groups: tuple[State, ...]
    shift_ns: int
    down_ns: int


class Store:
    """The state file. `commit` is for one thread; the outbox uses `database` from others at the same time."""

    def __init__(self, folder: Path, clock: Clock, boot_id: str) -> None:
        """Open the state file in `folder`, both made when missing.

        `boot_id` names this boot (`watchdog.clock.boot_id()`).

        Raises:
            StoreError: another daemon uses the folder, or the file can't be used.
        """
        self.database = Database(folder / FILE_NAME)
        self._clock = clock
        self._boot_id = boot_id
        self._pruned_ns: int | None = None
        self._noted_ns = 0
        # What the next commit writes, by key, as JSON (None: delete). It outlives a commit that failed.
        self._alerts: dict[str, str | None] = {}
        self._groups: dict[GroupKey, str | None] = {}
        self._notices: dict[str, Notice] = {}
        try:
            with self.database.transaction() as connection:
                self._carry_notices_over(connection)
        except BaseException:
            self.database.close()
            raise

    def load(self) -> Saved:
        """Return what the former daemon saved.

        When `shift_ns` is not 0, the first commit must hold every alert and every group that was loaded, with shifted
        times: saved times of two boots can't be told apart.

        Raises:
            StoreError: the file can't be read.
        """
        with self.database.transaction() as connection:
            alerts = connection.execute("SELECT state FROM alerts ORDER BY fingerprint").fetchall()
            groups = connection.execute("SELECT state FROM groups ORDER BY receiver, rule").fetchall()
            shift_ns = self._shift_ns(connection, "state")
            noted = connection.execute("SELECT boot_ns FROM clocks WHERE part = 'state'").fetchone()
        return Saved(
            alerts=tuple(_loads(state) for (state,) in alerts),
            groups=tuple(_loads(state) for (state,) in groups),
            shift_ns=shift_ns,
            down_ns=0 if noted is None else max(0, self._clock.boottime_ns() - (noted[0] + shift_ns)),
        )

    def commit(
        self,
        *,
        alerts: Iterable[tuple[str, State | None]],
        groups: Iterable[tuple[GroupKey, State | None]],
        notices: Iterable[Notice],
        timing: bool = False,
    ) -> None:
        """Write one tick's changes (None: gone) and notices in one transaction; nothing changed costs nothing.

        `timing`: timers run, so that the time of this tick is noted, each `NOTE_EVERY_NS` at least.

        When it fails, nothing of it is in the file, and everything is kept here for the next commit, which writes the
        newest state of each key: the caller hands each change over once, and goes on with the next tick.

        Raises:
            StoreError: the disk is full, or the file can't be written.
        """
        self._alerts.update((key, _dumps(state)) for key, state in alerts)
        self._groups.update((key, _dumps(state)) for key, state in groups)
        self._notices.update((notice.id, notice) for notice in notices)
        due = timing and self._clock.boottime_ns() >= self._noted_ns + NOTE_EVERY_NS
        if not (self._alerts or self._groups or self._notices or due):
            return
        with self.database.transaction() as connection:
            self._write_state(connection)
            self._write_notices(connection)
            self._note_clocks(connection, "state")
            self._note_clocks(connection, "notices")
            self._prune(connection)
        self._alerts.clear()
        self._groups.clear()
        self._notices.clear()
        self._noted_ns = self._clock.boottime_ns()

    def close(self) -> None:
        """Close the file; what was not committed is lost."""
        self.database.close()

    def _write_state(self, connection: Connection) -> None:
        connection.executemany(
            "INSERT INTO alerts (fingerprint, state) VALUES (?, ?) "
            "ON CONFLICT (fingerprint) DO UPDATE SET state = excluded.state",
            [(key, state) for key, state in self._alerts.items() if state is not None],
        )
        connection.executemany(
            "DELETE FROM alerts WHERE fingerprint = ?",
            [(key,) for key, state in self._alerts.items() if state is None],
        )
        connection.executemany(
            "INSERT INTO groups (receiver, rule, state) VALUES (?, ?, ?) "
            "ON CONFLICT (receiver, rule) DO UPDATE SET state = excluded.state",
            [(*key, state) for key, state in self._groups.items() if state is not None],
        )
        connection.executemany(
            "DELETE FROM groups WHERE receiver = ? AND rule = ?",
            [key for key, state in self._groups.items() if state is None],
        )

    def _write_notices(self, connection: Connection) -> None:
        now_ns = self._clock.boottime_ns()
        # A commit can be on disk although it was reported as failed: the same notice is not written twice.
        connection.executemany(
            "INSERT INTO notices (id, receiver, rule, status, body, created_ns, due_ns) VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO NOTHING",
            [
                (notice.id, notice.receiver, notice.group, notice.status, _dumps(notice.to_json()), now_ns, now_ns)
                for notice in self._notices.values()
            ],
        )

    def _prune(self, connection: Connection) -> None:
        now_ns = self._clock.boottime_ns()
        if self._pruned_ns is not None and now_ns < self._pruned_ns + PRUNE_EVERY_NS:
            return
        connection.execute(
            "DELETE FROM notices WHERE state != 'pending' AND ended < ?", (self._clock.wall() - KEEP_SECONDS,)
        )
        connection.execute(
            "DELETE FROM notices WHERE place IN "
            "(SELECT place FROM notices WHERE state != 'pending' ORDER BY ended DESC, place DESC LIMIT -1 OFFSET ?)",
            (KEEP_ROWS,),
        )
        connection.execute("DELETE FROM attempts WHERE place <= (SELECT max(place) FROM attempts) - ?", (KEEP_ROWS,))
        self._pruned_ns = now_ns

    def _note_clocks(self, connection: Connection, part: str) -> None:
        connection.execute(
            "INSERT INTO clocks (part, boot_id, boot_ns, wall) VALUES (?, ?, ?, ?) ON CONFLICT (part) "
            "DO UPDATE SET boot_id = excluded.boot_id, boot_ns = excluded.boot_ns, wall = excluded.wall",
            (part, self._boot_id, self._clock.boottime_ns(), self._clock.wall()),
        )

    def _shift_ns(self, connection: Connection, part: str) -> int:
        row = connection.execute("SELECT boot_id, boot_ns, wall FROM clocks WHERE part = ?", (part,)).fetchone()
        if row is None or row[0] == self._boot_id:
            return 0
        boot_ns, wall = int(row[1]), float(row[2])
        # A host without a battery-backed clock starts in 1970: better no time at all was lost than a negative one.
        down_ns = max(0, round((self._clock.wall() - wall) * SECOND_NS))
        return self._clock.boottime_ns() - (boot_ns + down_ns)

    def _carry_notices_over(self, connection: Connection) -> None:
        shift_ns = self._shift_ns(connection, "notices")
        if shift_ns:
            connection.execute(
                "UPDATE notices SET created_ns = created_ns + ?1, due_ns = due_ns + ?1 WHERE state = 'pending'",
                (shift_ns,),
            )
            self._note_clocks(connection, "notices")


def _loads(state: str) -> State:
    # What is no JSON becomes what nobody can read: those who restore it know what to do with that.
    try:
        document = json.loads(state)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _dumps(state: State | None) -> str | None:
    # ASCII: names that are no UTF-8 (surrogate-escaped) stay as they are.
    return None if state is None else json.dumps(state, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
