"""The audit trail: every notification with its receiver, attempts and answers; and sending a failed one again.

All of it is in the state file anyway (docs/delivery.md, "What is kept"): names of receivers and texts of alerts, never
an address or a secret. The values are for `dataclasses.asdict` and JSON.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Any

from watchdog.clock import Clock, SystemClock
from watchdog.routing.notification import describe_reason
from watchdog.state.losses import LossCause, read_losses
from watchdog.storage.database import Database
from watchdog.storage.reader import ReadableDatabase

RETRIED_RESULT = "queued again by `notifications retry`"

_MAX_ROWS_AT_ONCE = 500  # of `read_undelivered`, within one tick …
_MAX_CHARACTERS = 2_000_000  # … and so many characters of bodies, beyond the first
_MAX_SECONDS = 2**53  # of a time that a double holds
_MAX_NEWEST = 200  # of `read_newest_pending`

_SYSTEM_CLOCK = SystemClock()
_COLUMNS = "id, receiver, group_key, status, state, attempts, ended, last_error, merged_into, body"
_log = logging.getLogger("watchdog")


@dataclass(frozen=True, slots=True)
class NotificationRecord:
    """A notification and its delivery state.

    `state`: "pending" (to be sent, perhaps again), "delivered" (the receiver has it), "merged" (never sent: its alerts
    are in another notification of its receiver), "failed" (given up for good). `created_at`, `ended_at`: wall-clock
    seconds; `ended_at` is None while it is pending. `error`: the last error, or the notification that it was merged
    into; None when it was delivered.
    """

    notification_id: str
    receiver: str
    group_key: str
    reason: str
    status: str
    state: str
    alerts: int
    attempts: int
    created_at: float
    ended_at: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt: `number` from 1, `ended_at` in wall-clock seconds, `result` "ok" or the error."""

    number: int
    ended_at: float
    result: str


@dataclass(frozen=True, slots=True)
class AlertRecord:
    """One alert as in the notification."""

    fingerprint: str
    state: str
    summary: str


@dataclass(frozen=True, slots=True)
class NotificationDetail:
    """A notification with its alerts and all recorded attempts, oldest first.

    An attempt that was counted and never ended (the daemon was killed) is in `notification.attempts` but not in
    `attempts`. `superseded_by`: the newest notification of its group that was created later and delivered. A superseded
    one is not sent again: it would report an old state as new.
    """

    notification: NotificationRecord
    alerts: tuple[AlertRecord, ...]
    attempts: tuple[AttemptRecord, ...]
    superseded_by: str | None


def list_notifications(
    database: ReadableDatabase, *, receiver: str | None = None, state: str | None = None, limit: int = 100
) -> list[NotificationRecord]:
    """Return the newest notifications, newest first; of one receiver or in one of `DELIVERY_STATES`, if given.

    Raises:
        StoreError: the file cannot be read.
    """
    with database.transaction() as connection:
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM notifications WHERE (?1 IS NULL OR receiver = ?1) "  # noqa: S608 - a constant
            "AND (?2 IS NULL OR state = ?2) ORDER BY sequence DESC LIMIT ?3",
            (receiver, state, max(0, limit)),
        ).fetchall()
    return [_record(row, _loads(row[-1])) for row in rows]


def known_receivers(database: ReadableDatabase) -> list[str]:
    """Return the names of all receivers that have a notification or a loss.

    Raises:
        StoreError: the file cannot be read.
    """
    with database.transaction() as connection:
        names = {name for (name,) in connection.execute("SELECT DISTINCT receiver FROM notifications")}
        names |= {name for name, _ in read_losses(connection)}
    return sorted(names)


def find_ids(database: ReadableDatabase, prefix: str) -> list[str]:
    """Return the ids that begin with `prefix`, at most two.

    Raises:
        StoreError: the file cannot be read.
    """
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT id FROM notifications WHERE id >= ?1 AND substr(id, 1, length(?1)) = ?1 ORDER BY id LIMIT 2",
            (prefix,),
        ).fetchall()
    return [id_ for (id_,) in rows]


def read_notification(database: ReadableDatabase, notification_id: str) -> NotificationDetail | None:
    """Return the notification with its attempts; None when there is none, or none any more.

    Raises:
        StoreError: the file cannot be read.
    """
    with database.transaction() as connection:
        row = connection.execute(
            f"SELECT {_COLUMNS} FROM notifications WHERE id = ?",  # noqa: S608 - a constant
            (notification_id,),
        ).fetchone()
        if row is None:
            return None
        attempts = connection.execute(
            "SELECT number, ended, result FROM attempts WHERE notification_id = ? ORDER BY sequence", (notification_id,)
        ).fetchall()
        superseded_by = _superseded_by(connection, notification_id)
    document = _loads(row[-1])
    return NotificationDetail(
        notification=_record(row, document),
        alerts=tuple(_alert(alert) for alert in _alerts(document)),
        attempts=tuple(AttemptRecord(*attempt) for attempt in attempts),
        superseded_by=superseded_by,
    )


def newest_attempts(connection: Connection) -> dict[str, AttemptRecord]:
    """Return the newest recorded attempt of each receiver, by its name."""
    rows = connection.execute(
        "SELECT notifications.receiver, attempts.number, attempts.ended, attempts.result, max(attempts.sequence) "
        "FROM attempts JOIN notifications ON notifications.id = attempts.notification_id "
        "WHERE attempts.result != ? GROUP BY notifications.receiver",
        (RETRIED_RESULT,),
    )
    return {receiver: AttemptRecord(number, ended, result) for receiver, number, ended, result, _ in rows}


def retry_failed(database: Database, notification_id: str, clock: Clock = _SYSTEM_CLOCK) -> bool:
    """Queue a failed notification again, with another 24 hours to expire; return whether it was queued.

    It is not queued when it has not failed, when it is superseded (`NotificationDetail.superseded_by`), or when its
    alerts are lost (it was dropped to make room, or damaged). It keeps its id. The worker of its receiver finds it
    within seconds, at once when woken.

    Raises:
        StoreError: the file cannot be written.
    """
    with database.transaction() as connection:
        if _superseded_by(connection, notification_id) is not None:
            return False
        now_ns = clock.boottime_ns()
        row = connection.execute(
            "UPDATE notifications SET state = 'pending', created_ns = ?, due_ns = ?, ended = NULL, loss_cause = NULL "
            "WHERE id = ? AND state = 'failed' AND coalesce(loss_cause, '') NOT IN (?, ?) RETURNING receiver, attempts",
            (now_ns, now_ns, notification_id, LossCause.CAPACITY.value, LossCause.DAMAGED.value),
        ).fetchone()
        if row is None:
            return False
        receiver, attempts = row
        connection.execute(
            "INSERT INTO attempts (notification_id, number, ended, result) VALUES (?, ?, ?, ?)",
            (notification_id, attempts, clock.wall(), RETRIED_RESULT),
        )
    _log.info("notification queued again: receiver=%s notification=%s", receiver, notification_id)
    return True


def read_undelivered(
    database: ReadableDatabase, receiver: str, after_sequence: int, since: float
) -> tuple[int, list[str]]:
    """Return the bodies of notifications after `after_sequence` that are pending, or ended undelivered since `since`.

    Oldest first, some hundred at most, with the sequence after which to continue. `since`: wall-clock seconds. Those
    merged into a pending one count too: the result must not depend on when they were merged.

    Raises:
        StoreError: the file cannot be read.
    """
    with database.transaction() as connection:
        rows, all_read = _bounded(
            connection,
            "SELECT sequence, body FROM notifications WHERE sequence > ? AND receiver = ? "
            "AND (state = 'pending' OR (state IN ('failed', 'merged') AND ended >= ?)) ORDER BY sequence LIMIT ?",
            # All that follows a known sequence was created in this outage, even if the wall clock was set meanwhile.
            (after_sequence, receiver, 0.0 if after_sequence else since, _MAX_ROWS_AT_ONCE),
        )
        newest: int = connection.execute("SELECT coalesce(max(sequence), 0) FROM notifications").fetchone()[0]
    is_complete = all_read and len(rows) < _MAX_ROWS_AT_ONCE
    return (newest if is_complete else rows[-1][0]), [body for _, body in rows]


def read_newest_pending(database: ReadableDatabase, receiver: str) -> tuple[int, list[str]]:
    """Return the number of pending notifications of `receiver`, and the bodies of the newest, newest first.

    Raises:
        StoreError: the file cannot be read.
    """
    with database.transaction() as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM notifications WHERE state = 'pending' AND receiver = ?", (receiver,)
        ).fetchone()
        rows, _ = _bounded(
            connection,
            "SELECT sequence, body FROM notifications "
            "WHERE state = 'pending' AND receiver = ? ORDER BY sequence DESC LIMIT ?",
            (receiver, _MAX_NEWEST),
        )
    return count, [body for _, body in rows]


def count_due(connection: Connection, now_ns: int) -> int:
    """Return the number of pending notifications that are due at `now_ns` of CLOCK_BOOTTIME."""
    row = connection.execute("SELECT count(*) FROM notifications WHERE state = 'pending' AND due_ns <= ?", (now_ns,))
    return int(row.fetchone()[0])


def count_delivered_attempts(connection: Connection) -> int:
    """Return the number of recorded attempts of notifications that were delivered."""
    row = connection.execute(
        "SELECT count(*) FROM notifications JOIN attempts ON attempts.notification_id = notifications.id "
        "WHERE state = 'delivered'"
    )
    return int(row.fetchone()[0])


def read_all_bodies(connection: Connection) -> list[tuple[int, str]]:
    """Return (created_ns, body) of every notification, oldest first."""
    return connection.execute("SELECT created_ns, body FROM notifications ORDER BY sequence").fetchall()


def _superseded_by(connection: Connection, notification_id: str) -> str | None:
    row = connection.execute(
        "SELECT newer.id FROM notifications AS newer JOIN notifications AS this ON newer.receiver = this.receiver "
        "AND newer.group_key = this.group_key AND newer.sequence > this.sequence "
        "WHERE this.id = ? AND newer.state = 'delivered' ORDER BY newer.sequence DESC LIMIT 1",
        (notification_id,),
    ).fetchone()
    return None if row is None else str(row[0])


def _bounded(connection: Connection, query: str, values: Sequence[object]) -> tuple[list[tuple[int, str]], bool]:
    # Rows of (sequence, body), as many as fit into the time of a tick, at least one; and whether these are all.
    rows: list[tuple[int, str]] = []
    characters = 0
    for row in connection.execute(query, values):
        if rows and characters + len(row[1]) > _MAX_CHARACTERS:
            return rows, False
        rows.append(row)
        characters += len(row[1])
    return rows, True


def _record(row: Sequence[Any], document: dict[str, Any]) -> NotificationRecord:
    id_, receiver, group_key, status, state, attempts, ended, last_error, merged_into, _ = row
    return NotificationRecord(
        notification_id=id_,
        receiver=receiver,
        group_key=group_key,
        reason=describe_reason(str(document.get("reason", "")), str(document.get("reason_detail", ""))),
        status=status,
        state=state,
        alerts=len(_alerts(document)),
        attempts=attempts,
        created_at=_number(document.get("created")),
        ended_at=ended,
        error=last_error if merged_into is None else f"merged into {merged_into}",
    )


def _alerts(document: dict[str, Any]) -> list[dict[str, Any]]:
    alerts = document.get("alerts")
    return [alert for alert in alerts if isinstance(alert, dict)] if isinstance(alerts, list) else []


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) < _MAX_SECONDS else 0.0


def _alert(alert: dict[str, Any]) -> AlertRecord:
    return AlertRecord(*(str(alert.get(name, "")) for name in AlertRecord.__slots__))


def _loads(body: str) -> dict[str, Any]:
    # A damaged body, or one of an unknown version, is shown as far as the columns allow.
    try:
        document = json.loads(body)
    except (RecursionError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
