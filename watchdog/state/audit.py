"""The audit trail: who was told what, when, by which receiver and with what answer; and a way to have it told again.

All of it is what the state file holds anyway (docs/delivery.md, "What is kept"): names of receivers and what alerts
say, never an address or a secret. The values are for `dataclasses.asdict` and JSON.
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
from watchdog.state.outbox import DAMAGED_RESULT, DROPPED_RESULT
from watchdog.storage.database import Database
from watchdog.storage.reader import ReadableDatabase

DELIVERED = "done"
FAILED = "dead"
DELIVERY_STATES = ("pending", DELIVERED, "merged", FAILED)
"""Values of `NotificationRecord.state`."""

RETRIED_RESULT = "to be sent again, asked for by hand"

_SYSTEM_CLOCK = SystemClock()
_COLUMNS = "id, receiver, rule, status, state, attempts, ended, last_error, body"
_log = logging.getLogger("watchdog")


@dataclass(frozen=True, slots=True)
class NotificationRecord:
    """A notice and what became of it.

    `state`: "pending" (to be sent, or sent again), "done" (the receiver has it), "merged" (never sent, a newer one of
    its group tells the same and more), "dead" (given up). `created`, `ended`: wall-clock seconds; `ended` is None while
    it is pending. `error`: what stood in the way last, or what it was merged into; None when it was delivered.
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
    """One attempt: `number` from 1, `at` in wall-clock seconds when it ended, `result` "ok" or what went wrong."""

    number: int
    ended_at: float
    result: str


@dataclass(frozen=True, slots=True)
class AlertRecord:
    """One alert as the notice tells it."""

    fingerprint: str
    state: str
    summary: str


@dataclass(frozen=True, slots=True)
class NotificationDetail:
    """A notice with its alerts and every attempt that is known, oldest first.

    An attempt that was counted and never ended (the daemon was killed) is in `notice.attempts` but not in `attempts`.
    `superseded_by`: the newest notice of its group that was delivered after it was made; a notice that is overtaken is
    not sent again, for it would tell old news as new.
    """

    notification: NotificationRecord
    alerts: tuple[AlertRecord, ...]
    attempts: tuple[AttemptRecord, ...]
    superseded_by: str | None


def list_notifications(
    database: ReadableDatabase, *, receiver: str | None = None, state: str | None = None, limit: int = 100
) -> list[NotificationRecord]:
    """Return the newest notices, newest first; of one receiver or in one of `STATES`, if given.

    Raises:
        StoreError: the file can't be read.
    """
    with database.transaction() as connection:
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM notices WHERE (?1 IS NULL OR receiver = ?1) "  # noqa: S608 - a constant
            "AND (?2 IS NULL OR state = ?2) ORDER BY place DESC LIMIT ?3",
            (receiver, state, max(0, limit)),
        ).fetchall()
    return [_record(row, _loads(row[-1])) for row in rows]


def find_ids(database: ReadableDatabase, prefix: str) -> list[str]:
    """Return the ids that begin so; of several, two.

    Raises:
        StoreError: the file can't be read.
    """
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT id FROM notices WHERE id >= ?1 AND substr(id, 1, length(?1)) = ?1 ORDER BY id LIMIT 2", (prefix,)
        ).fetchall()
    return [notification for (notification,) in rows]


def read_notification(database: ReadableDatabase, notification_id: str) -> NotificationDetail | None:
    """Return all that is known of the notice with this id; None when there is none (any more).

    Raises:
        StoreError: the file can't be read.
    """
    with database.transaction() as connection:
        row = connection.execute(
            f"SELECT {_COLUMNS} FROM notices WHERE id = ?",  # noqa: S608 - a constant
            (notification_id,),
        ).fetchone()
        if row is None:
            return None
        attempts = connection.execute(
            "SELECT number, at, result FROM attempts WHERE notice = ? ORDER BY place", (notification_id,)
        ).fetchall()
        superseded_by = _overtaken_by(connection, notification_id)
    document = _loads(row[-1])
    return NotificationDetail(
        notification=_record(row, document),
        alerts=tuple(_alert(alert) for alert in _alerts(document)),
        attempts=tuple(AttemptRecord(*attempt) for attempt in attempts),
        superseded_by=superseded_by,
    )


def retry_failed(database: Database, notification_id: str, clock: Clock = _SYSTEM_CLOCK) -> bool:
    """Let a dead notice be pending and due again, with a day to live; tell whether it is.

    It is not when it isn't dead, when it is overtaken (`NotificationDetail.superseded_by`), or when what it said is
    not there
    any more (it had to make room, or was damaged). It keeps its id. The worker of its receiver finds it within seconds,
    at once when woken.

    Raises:
        StoreError: the file can't be written.
    """
    with database.transaction() as connection:
        if _overtaken_by(connection, notification_id) is not None:
            return False
        now_ns = clock.boottime_ns()
        row = connection.execute(
            "UPDATE notices SET state = 'pending', created_ns = ?, due_ns = ?, ended = NULL "
            "WHERE id = ? AND state = 'dead' AND last_error NOT IN (?, ?) RETURNING receiver, attempts",
            (now_ns, now_ns, notification_id, DROPPED_RESULT, DAMAGED_RESULT),
        ).fetchone()
        if row is None:
            return False
        receiver, attempts = row
        connection.execute(
            "INSERT INTO attempts (notice, number, at, result) VALUES (?, ?, ?, ?)",
            (notification_id, attempts, clock.wall(), RETRIED_RESULT),
        )
    _log.info("notice %s for %s: %s", notification_id, receiver, RETRIED_RESULT)
    return True


def _overtaken_by(connection: Connection, notification: str) -> str | None:
    row = connection.execute(
        "SELECT newer.id FROM notices AS newer JOIN notices AS this "
        "ON newer.receiver = this.receiver AND newer.rule = this.rule AND newer.place > this.place "
        "WHERE this.id = ? AND newer.state = 'done' ORDER BY newer.place DESC LIMIT 1",
        (notification,),
    ).fetchone()
    return None if row is None else str(row[0])


def _record(row: Sequence[Any], document: dict[str, Any]) -> NotificationRecord:
    id_, receiver, group, status, state, attempts, ended, last_error, _ = row
    return NotificationRecord(
        notification_id=id_,
        receiver=receiver,
        group_key=group,
        reason=describe_reason(str(document.get("reason", "")), str(document.get("reason_detail", ""))),
        status=status,
        state=state,
        alerts=len(_alerts(document)),
        attempts=attempts,
        created_at=float(document.get("created", 0.0)),
        ended_at=ended,
        error=last_error,
    )


def _alerts(document: dict[str, Any]) -> list[dict[str, Any]]:
    alerts = document.get("alerts", [])
    return alerts if isinstance(alerts, list) else []


def _alert(alert: dict[str, Any]) -> AlertRecord:
    return AlertRecord(*(str(alert.get(name, "")) for name in AlertRecord.__slots__))


def _loads(body: str) -> dict[str, Any]:
    # What was written by a version that is gone, or damaged on the way, is shown as far as the columns tell.
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
