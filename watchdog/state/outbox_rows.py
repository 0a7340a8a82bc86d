"""Statements on rows of the outbox, for everything that writes or reorders pending notifications.

Each function runs inside the transaction of its caller. `sequence` is the number of a row, in order of creation.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from sqlite3 import Connection

from watchdog.clock import SECOND_NS
from watchdog.errors import DocumentError
from watchdog.routing.notification import Notification
from watchdog.state import losses
from watchdog.state.documents import dump_document
from watchdog.state.losses import LossCause
from watchdog.storage.checksum import checksum, is_intact

MAX_RETRY_WAIT_NS = 3600 * SECOND_NS  # between two attempts, also when the receiver asks for more

DAMAGED_RESULT = "damaged in the state file"

_SET_BODY = "body = ?, checksum = ?, status = ?, reason = ?, has_evidence = ?"


@dataclass(frozen=True, slots=True)
class PendingNotification:
    """A pending notification with its number of alerts, and the keys by which it keeps its order."""

    sequence: int
    was_attempted: bool
    created_ns: int
    reason: str
    alert_count: int
    ordering_keys: frozenset[str]
    id: str
    checksum: int | None
    body: str

    def is_valid(self, receiver: str) -> bool:
        """Return whether the body matches its checksum and the row."""
        return is_valid_body(self.body, self.checksum, self.id, receiver)


def insert_notifications(
    connection: Connection, notifications: Iterable[Notification], now_ns: int, held: Mapping[str, int]
) -> None:
    """Add pending notifications, due at `now_ns` of CLOCK_BOOTTIME; skip ids that exist.

    `held`: notifications that are due later, and their times.

    A commit can be on disk although it was reported as failed: then the same notification comes again.
    """
    connection.executemany(
        "INSERT INTO notifications"
        " (id, receiver, group_key, body, checksum, status, reason, has_evidence, created_ns, due_ns) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        [
            (each.id, each.receiver, each.group_key, *_body_values(each), now_ns, held.get(each.id, now_ns))
            for each in notifications
        ],
    )


def shift_pending(connection: Connection, boottime_shift_ns: int) -> None:
    """Move the CLOCK_BOOTTIME values of pending notifications to another boot."""
    connection.execute(
        "UPDATE notifications SET created_ns = created_ns + ?1, due_ns = due_ns + ?1 WHERE state = 'pending'",
        (boottime_shift_ns,),
    )


def pending_bodies(connection: Connection, receiver: str) -> list[str]:
    """Return the bodies of all pending notifications of `receiver`, oldest first."""
    rows = connection.execute(
        "SELECT body FROM notifications WHERE state = 'pending' AND receiver = ? ORDER BY sequence", (receiver,)
    )
    return [body for (body,) in rows]


def read_pending(connection: Connection, receiver: str) -> list[PendingNotification]:
    """Return the pending notifications of `receiver` whose body is JSON, oldest first."""
    rows = connection.execute(
        "SELECT sequence, attempts > 0, created_ns, reason, coalesce(json_array_length(body, '$.alerts'), 0), "
        "(SELECT json_group_array(ordering_key) FROM ordering_keys"
        " WHERE ordering_keys.sequence = notifications.sequence), id, checksum, body "
        "FROM notifications WHERE state = 'pending' AND receiver = ? AND json_valid(body) ORDER BY sequence",
        (receiver,),
    )
    return [
        PendingNotification(
            sequence, bool(was_attempted), created_ns, reason, count, frozenset(json.loads(keys)), *identity
        )
        for sequence, was_attempted, created_ns, reason, count, keys, *identity in rows
    ]


def read_due_unattempted(connection: Connection, receiver: str, now_ns: int) -> list[tuple[int, str, str]]:
    """Return (sequence, reason, body) of each notification of `receiver` that is due and was never attempted."""
    return connection.execute(
        "SELECT sequence, reason, body FROM notifications "
        "WHERE state = 'pending' AND receiver = ? AND attempts = 0 AND (due_ns <= ? OR due_ns > ?)",
        (receiver, now_ns, now_ns + MAX_RETRY_WAIT_NS),
    ).fetchall()


def unattempted_before(connection: Connection, sequence: int) -> set[int]:
    """Return the unattempted notifications that must leave before the one at `sequence`, or together with it."""
    rows = connection.execute(
        "SELECT DISTINCT earlier.sequence FROM ordering_keys AS mine JOIN ordering_keys AS earlier"
        " ON earlier.receiver = mine.receiver AND earlier.ordering_key = mine.ordering_key"
        " AND earlier.sequence < mine.sequence"
        " JOIN notifications ON notifications.sequence = earlier.sequence WHERE mine.sequence = ? AND attempts = 0",
        (sequence,),
    )
    return {earlier for (earlier,) in rows}


def defer(connection: Connection, sequences: Iterable[int], due_ns: int) -> None:
    """Let the notifications be due at `due_ns` of CLOCK_BOOTTIME."""
    connection.executemany(
        "UPDATE notifications SET due_ns = ? WHERE sequence = ?", [(due_ns, sequence) for sequence in sequences]
    )


def release_order(connection: Connection, sequence: int) -> None:
    """Let later notifications overtake the one at `sequence`, which its receiver may have, at least in part.

    It keeps no ordering key until it ends. A later attempt sends only the alerts that `remove_overtaken_alerts` leaves.
    """
    connection.execute("DELETE FROM ordering_keys WHERE sequence = ?", (sequence,))


def is_released(connection: Connection, sequence: int) -> bool:
    """Return whether the pending notification at `sequence` may be overtaken."""
    query = "SELECT NOT EXISTS (SELECT 1 FROM ordering_keys WHERE sequence = ?)"
    return bool(connection.execute(query, (sequence,)).fetchone()[0])


def remove_overtaken(connection: Connection, receiver: str, wall: float) -> None:
    """Call `remove_overtaken_alerts` for each released notification that may have arrived."""
    rows = connection.execute(
        "SELECT sequence FROM notifications WHERE state = 'pending' AND open_attempts > 0 AND receiver = ?", (receiver,)
    ).fetchall()
    for (sequence,) in rows:
        if is_released(connection, sequence):
            with contextlib.suppress(DocumentError):  # damaged: it is discarded when its turn comes
                remove_overtaken_alerts(connection, receiver, sequence, wall)


def remove_overtaken_alerts(connection: Connection, receiver: str, sequence: int, wall: float) -> bool:
    """Remove from the released notification at `sequence` each alert of which a later one has a newer state.

    One that failed for good does not count: its receiver never gets that state.
    Return whether alerts are left; without any, the notification is marked as merged into the newest of those.
    """
    newer = dict(
        connection.execute(
            "SELECT json_extract(alert.value, '$.fingerprint'), notifications.id FROM notifications,"
            " json_each(CASE WHEN json_valid(body) THEN body ELSE '{}' END, '$.alerts') AS alert"
            " WHERE receiver = ? AND sequence > ? AND state NOT IN ('merged', 'failed') ORDER BY sequence",
            (receiver, sequence),
        )
    )
    body, created_ns = connection.execute(
        "SELECT body, created_ns FROM notifications WHERE sequence = ?", (sequence,)
    ).fetchone()
    notification = Notification.from_json_text(body)
    left = tuple(alert for alert in notification.alerts if alert.fingerprint not in newer)
    if not left:
        mark_merged(connection, [sequence], newer[notification.alerts[-1].fingerprint], wall)
        return False
    if len(left) < len(notification.alerts):
        replace_notification(connection, sequence, replace(notification, alerts=left), created_ns)
        release_order(connection, sequence)
    return True


def mark_merged(connection: Connection, sequences: Iterable[int], merged_into: str, wall: float) -> None:
    """Mark the notifications as never to be sent: their alerts are in the notification with the id `merged_into`."""
    connection.executemany(
        "UPDATE notifications SET state = 'merged', last_error = NULL, merged_into = ?, ended = ? WHERE sequence = ?",
        [(merged_into, wall, sequence) for sequence in sequences],
    )


def replace_notification(
    connection: Connection, sequence: int, notification: Notification, created_ns: int, due_ns: int | None = None
) -> None:
    """Let the row at `sequence` hold `notification`; `due_ns` None: due as before."""
    connection.execute(
        f"UPDATE notifications SET group_key = ?, {_SET_BODY}, created_ns = ?, due_ns = coalesce(?, due_ns) "  # noqa: S608
        "WHERE sequence = ?",
        (notification.group_key, *_body_values(notification), created_ns, due_ns, sequence),
    )


def mergeable_rows(connection: Connection, receiver: str, group_key: str) -> list[tuple[int, str, int]]:
    """Return (sequence, body, created_ns) of the notifications of a group that may become one, oldest first.

    Those were never attempted. The first one behind a notification of another group that may hold an older state of
    the same alerts ends the list, since a later one must not overtake it.
    """
    return connection.execute(
        "WITH own AS MATERIALIZED (SELECT sequence, body, created_ns FROM notifications"
        " WHERE state = 'pending' AND receiver = ?1 AND group_key = ?2 AND attempts = 0), "
        "others AS MATERIALIZED (SELECT ordering_key, min(ordering_keys.sequence) AS sequence FROM ordering_keys"
        " JOIN notifications ON notifications.sequence = ordering_keys.sequence AND group_key != ?2"
        " WHERE ordering_keys.receiver = ?1 AND ordering_keys.sequence > (SELECT min(sequence) FROM own)"
        " AND ordering_key IN"
        " (SELECT ordering_key FROM ordering_keys JOIN own ON own.sequence = ordering_keys.sequence)"
        " GROUP BY ordering_key), "
        "blocked AS MATERIALIZED (SELECT min(own.sequence) AS sequence FROM own"
        " JOIN ordering_keys AS mine ON mine.sequence = own.sequence"
        " JOIN others ON others.ordering_key = mine.ordering_key AND others.sequence < mine.sequence) "
        "SELECT own.sequence, body, created_ns FROM own, blocked"
        " WHERE blocked.sequence IS NULL OR own.sequence < blocked.sequence ORDER BY own.sequence",
        (receiver, group_key),
    ).fetchall()


def fail_damaged(connection: Connection, receiver: str, group_key: str, wall: float) -> list[str]:
    """Fail the pending notifications of a group whose body does not match its checksum; return their ids."""
    rows = connection.execute(
        "SELECT sequence, id, body, checksum FROM notifications "
        "WHERE state = 'pending' AND receiver = ? AND group_key = ?",
        (receiver, group_key),
    ).fetchall()
    damaged = [
        (sequence, id_) for sequence, id_, body, expected in rows if not is_valid_body(body, expected, id_, receiver)
    ]
    mark_failed(connection, [sequence for sequence, _ in damaged], LossCause.DAMAGED, DAMAGED_RESULT, wall)
    losses.count_loss(connection, receiver, LossCause.DAMAGED, len(damaged))
    return [id_ for _, id_ in damaged]


def mark_failed(
    connection: Connection, sequences: Sequence[int], cause: LossCause, last_error: str, wall: float
) -> None:
    """Mark the notifications as failed for good; the caller counts the loss."""
    connection.executemany(
        "UPDATE notifications SET state = 'failed', loss_cause = ?, last_error = ?, ended = ? WHERE sequence = ?",
        [(cause.value, last_error, wall, sequence) for sequence in sequences],
    )


def is_valid_body(body: str, expected_checksum: int | None, id_: str, receiver: str) -> bool:
    """Return whether `body` matches its checksum and is a notification with alerts, and the one of its row."""
    if not is_intact(body, expected_checksum):
        return False
    try:
        notification = Notification.from_json_text(body)
    except DocumentError:
        return False
    return bool(notification.alerts) and (notification.id, notification.receiver) == (id_, receiver)


def _body_values(notification: Notification) -> tuple[str, int, str, str, bool]:
    body = dump_document(notification.to_json())
    has_evidence = any(alert.evidence is not None for alert in notification.alerts)
    return body, checksum(body), notification.status, str(notification.reason), has_evidence


def trim_history(connection: Connection, max_bytes: int) -> None:
    """Delete the oldest notifications that have ended, until at most `max_bytes` of bodies remain."""
    connection.execute(
        "DELETE FROM notifications WHERE sequence IN (SELECT sequence FROM ("
        "SELECT sequence, sum(body_bytes) OVER (ORDER BY ended DESC, sequence DESC) AS so_far FROM notifications "
        "WHERE state != 'pending') WHERE so_far > ?)",
        (max_bytes,),
    )
