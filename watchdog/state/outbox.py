"""The outbox: a queue of notifications in the state file, served by one worker per receiver.

Notifications of one group leave in the order in which they were created. Those that were never attempted are merged
into the oldest of them: after a long outage a receiver gets the newest state of each group, not its history. An
attempted one is never changed: the receiver may have it, and would discard other content under the same id as a
duplicate.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from sqlite3 import Connection
from typing import Literal, Protocol

from watchdog.clock import SECOND_NS, Clock
from watchdog.errors import StoreError
from watchdog.routing.notification import Notification, NotificationReason
from watchdog.state import losses, notified, outbox_rows
from watchdog.state.losses import LossCause
from watchdog.state.outbox_rows import MAX_RETRY_WAIT_NS
from watchdog.storage.damage import is_disk_full
from watchdog.storage.database import Database

FIRING_EXPIRY_NS = 24 * 3600 * SECOND_NS  # of a notification that holds only firing alerts

_MAX_ERROR_CHARACTERS = 200
_MIN_HISTORY_BYTES = 1024 * 1024  # of ended notifications, kept even when the file is full
_log = logging.getLogger("watchdog")

_FIRST_OF_GROUP = """
    state = 'pending' AND receiver = ? AND NOT EXISTS (
        SELECT 1 FROM ordering_keys AS mine JOIN ordering_keys AS earlier
          ON earlier.receiver = mine.receiver AND earlier.ordering_key = mine.ordering_key
          AND earlier.sequence < mine.sequence
        WHERE mine.sequence = notifications.sequence
    )
"""


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    """A notification taken from the queue to be sent now; `number` counts from 1, across restarts.

    `open_attempts`: the number of earlier attempts with an unknown outcome: the receiver may have the notification.
    """

    notification: Notification
    number: int
    open_attempts: int = 0


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """Result of an attempt: `state` is "delivered", "failed" or "pending" (again, at `due_ns` of CLOCK_BOOTTIME).

    `result`: "ok" or the error, without secrets. `cause`: the cause of loss that is counted when `state` is "failed".
    `is_open`: whether the receiver took the notification is unknown. `is_partial`: it reached some of several
    recipients. Later notifications may overtake one that is pending after either.
    """

    attempt: DeliveryAttempt
    state: Literal["pending", "delivered", "failed"]
    result: str
    due_ns: int = 0
    cause: LossCause = LossCause.REFUSED
    is_open: bool = False
    is_partial: bool = False


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """The queue of one receiver: number of pending and failed notifications.

    `oldest_seconds`: age of the oldest pending one, 0 without any.
    """

    pending: int = 0
    failed: int = 0
    oldest_seconds: float = 0.0


class AttemptLimiter(Protocol):
    """A limit on first attempts; called inside the transaction that takes a notification."""

    def defer_excess(self, connection: Connection, receiver: str, now_ns: int) -> None:
        """Leave due only the notifications that may be sent now."""
        ...

    def count_sent(self, connection: Connection, receiver: str, now_ns: int) -> None:
        """Count one more notification that is sent for the first time."""
        ...


class Outbox:
    """The queue. Every method is one transaction and raises StoreError when the file cannot be written."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Serve the notifications that `Store.commit` writes to `database`."""
        self._database = database
        self._clock = clock

    def begin_attempt(
        self,
        receiver: str,
        limiter: AttemptLimiter | None = None,
        is_sent: Callable[[Notification], bool] = lambda _: True,
    ) -> DeliveryAttempt | None:
        """Take the oldest notification that is due and that `limiter` allows; return None when there is none.

        The attempt is counted on disk before it is made, so that after a crash it is known which ones may have been
        sent. One that may have arrived loses each alert of which a later notification has a newer state, and is
        skipped if none is left. A due time that no attempt can have set (a clock has changed) counts as over. A
        notification whose checksum does not match is discarded and counted as damaged. `is_sent`: whether the receiver
        gets anything of a notification; others do not count for `limiter`.
        """
        while True:
            now_ns = self._clock.boottime_ns()
            with self._database.transaction() as connection:
                if limiter is not None:
                    limiter.defer_excess(connection, receiver, now_ns)
                first = self._first_due(connection, receiver, now_ns)
                if first is None:
                    return None
                sequence, group_key = first
                damaged = outbox_rows.fail_damaged(connection, receiver, group_key, self._clock.wall())
                if not damaged:
                    attempt = self._take(connection, sequence, receiver, group_key)
                    if attempt is None:
                        continue
                    if limiter is not None and attempt.number == 1 and is_sent(attempt.notification):
                        limiter.count_sent(connection, receiver, now_ns)
                    return attempt
            _log.error("damaged notifications discarded: receiver=%s ids=%s", receiver, ",".join(damaged))

    def finish_attempt(self, outcome: AttemptOutcome) -> None:
        """Record the outcome of an attempt.

        After a reload an attempt of the former worker can end while the next worker attempts the same notification: a
        delivery still counts then, a failure does not. The same holds for a notification that was dropped meanwhile.
        """
        try:
            self._finish_attempt(outcome)
        except StoreError as error:
            if not is_disk_full(error.__cause__):
                raise
            # History is worth less than the knowledge that the receiver has this notification.
            with self._database.transaction() as connection:
                outbox_rows.trim_history(connection, _MIN_HISTORY_BYTES)
            self._finish_attempt(outcome)

    def _finish_attempt(self, outcome: AttemptOutcome) -> None:
        attempt = outcome.attempt
        result = _storable(outcome.result)
        wall = self._clock.wall()
        with self._database.transaction() as connection:
            if outcome.state == "delivered":
                notified.record_delivery(connection, attempt.notification, wall)
                _take_back_drop(connection, attempt.notification)
            may_overtake = outcome.is_open or outcome.is_partial or _is_released(connection, attempt.notification)
            counted = connection.execute(
                "UPDATE notifications SET state = ?1, due_ns = ?2, last_error = ?3, loss_cause = ?4, ended = ?5, "
                "open_attempts = max(0, open_attempts - ?8) "
                "WHERE id = ?6 AND state = 'pending' AND (attempts = ?7 OR ?1 = 'delivered')",
                (
                    outcome.state,
                    outcome.due_ns,
                    None if outcome.state == "delivered" else result,
                    outcome.cause.value if outcome.state == "failed" else None,
                    None if outcome.state == "pending" else wall,
                    attempt.notification.id,
                    attempt.number,
                    0 if outcome.is_open else 1,
                ),
            ).rowcount
            if counted and outcome.state == "pending" and may_overtake:
                outbox_rows.release_order(connection, _sequence(connection, attempt.notification))
            if outcome.state == "delivered":
                outbox_rows.remove_overtaken(connection, attempt.notification.receiver, wall)
            if outcome.state == "failed":
                losses.count_loss(connection, attempt.notification.receiver, outcome.cause, counted)
            connection.execute(
                "INSERT INTO attempts (notification_id, number, ended, result) VALUES (?, ?, ?, ?)",
                (attempt.notification.id, attempt.number, wall, result),
            )

    def retry_now(self, receiver: str) -> None:
        """Let all pending notifications of `receiver` be due now: it works again."""
        now_ns = self._clock.boottime_ns()
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE notifications SET due_ns = ?2 WHERE state = 'pending' AND receiver = ?1 AND due_ns > ?2",
                (receiver, now_ns),
            )

    def release(self, held: Mapping[str, int], complete: Callable[[Notification], Notification]) -> None:
        """Let the notifications in `held` be due now, each as `complete` returns it; those attempted stay as they are.

        `held`: ids, and the CLOCK_BOOTTIME in ns at which they are due, as in `Store.commit`. A notification that was
        merged meanwhile, or deferred by a limit, is not released.
        """
        now_ns = self._clock.boottime_ns()
        with self._database.transaction() as connection:
            for notification_id, held_until_ns in held.items():
                row = connection.execute(
                    "SELECT sequence, body, checksum, receiver, created_ns FROM notifications "
                    "WHERE id = ? AND state = 'pending' AND attempts = 0 AND due_ns = ?",
                    (notification_id, held_until_ns),
                ).fetchone()
                if row is None:
                    continue
                sequence, body, expected, receiver, created_ns = row
                if outbox_rows.is_valid_body(body, expected, notification_id, receiver):
                    completed = complete(Notification.from_json_text(body))
                    outbox_rows.replace_notification(connection, sequence, completed, created_ns, now_ns)

    def expire_old(self, receiver: str) -> list[str]:
        """Fail pending notifications that are 24 hours old and hold only firing alerts; return their ids.

        A notification with a resolved alert never expires.
        """
        too_old_ns = self._clock.boottime_ns() - FIRING_EXPIRY_NS
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT sequence, id, body FROM notifications "
                "WHERE state = 'pending' AND receiver = ? AND status = 'firing' AND created_ns < ? ORDER BY sequence",
                (receiver, too_old_ns),
            )
            old = [(sequence, id_) for sequence, id_, body in rows if not _has_resolved_alert(body)]
            expired = [sequence for sequence, _ in old]
            outbox_rows.mark_failed(connection, expired, LossCause.EXPIRED, "expired", self._clock.wall())
            losses.count_loss(connection, receiver, LossCause.EXPIRED, len(old))
        return [id_ for _, id_ in old]

    def fail_unconfigured(self, receivers: Collection[str]) -> list[tuple[str, str]]:
        """Fail pending notifications of receivers that are not in `receivers`; return (receiver, id) of each."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT sequence, receiver, id FROM notifications WHERE state = 'pending' ORDER BY sequence"
            ).fetchall()
            failed = [row for row in rows if row[1] not in receivers]
            sequences, wall = [sequence for sequence, _, _ in failed], self._clock.wall()
            outbox_rows.mark_failed(connection, sequences, LossCause.RECEIVER_REMOVED, "receiver removed", wall)
            for _, receiver, _ in failed:
                losses.count_loss(connection, receiver, LossCause.RECEIVER_REMOVED)
            notified.forget_receivers(connection, receivers)
        return [(receiver, id_) for _, receiver, id_ in failed]

    def release_deferred(self) -> None:
        """Let everything be due that a rate limit of a former configuration deferred."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE notifications SET due_ns = created_ns "
                "WHERE state = 'pending' AND attempts = 0 AND due_ns > created_ns"
            )

    def next_due_ns(self, receiver: str) -> int | None:
        """Return the CLOCK_BOOTTIME at which `begin_attempt` will find one; None when none is pending."""
        with self._database.transaction() as connection:
            due: int | None = connection.execute(
                f"SELECT min(due_ns) FROM notifications WHERE {_FIRST_OF_GROUP}",  # noqa: S608 - a constant
                (receiver,),
            ).fetchone()[0]
        return due

    def queues(self) -> Mapping[str, QueueStatus]:
        """Return the queue of each receiver that has pending or failed notifications."""
        now_ns = self._clock.boottime_ns()
        with self._database.transaction() as connection:
            return read_queues(connection, now_ns)

    def losses(self) -> Mapping[tuple[str, LossCause], int]:
        """Return the number of notifications lost since the state file was created, by (receiver, cause)."""
        with self._database.transaction() as connection:
            return losses.read_losses(connection)

    def _first_due(self, connection: Connection, receiver: str, now_ns: int) -> tuple[int, str] | None:
        row: tuple[int, str] | None = connection.execute(
            f"SELECT sequence, group_key FROM notifications WHERE {_FIRST_OF_GROUP} "  # noqa: S608 - a constant
            "AND (due_ns <= ? OR due_ns > ?) ORDER BY sequence LIMIT 1",
            (receiver, now_ns, now_ns + MAX_RETRY_WAIT_NS),
        ).fetchone()
        return row

    def _take(self, connection: Connection, sequence: int, receiver: str, group_key: str) -> DeliveryAttempt | None:
        # Returns None if newer notifications have the state of all its alerts.
        wall = self._clock.wall()
        if not outbox_rows.is_released(connection, sequence):
            merge_unattempted(connection, receiver, group_key, wall)
        elif not outbox_rows.remove_overtaken_alerts(connection, receiver, sequence, wall):
            return None
        body, number, open_attempts = connection.execute(
            "UPDATE notifications SET attempts = attempts + 1, open_attempts = open_attempts + 1 WHERE sequence = ? "
            "RETURNING body, attempts, open_attempts",
            (sequence,),
        ).fetchone()
        return DeliveryAttempt(Notification.from_json_text(body), number, open_attempts - 1)


def read_queues(connection: Connection, now_ns: int) -> Mapping[str, QueueStatus]:
    """Return the queue, at `now_ns` of CLOCK_BOOTTIME, of each receiver with pending or failed notifications."""
    rows = connection.execute(
        "SELECT receiver, sum(state = 'pending'), sum(state = 'failed'), "
        "min(created_ns) FILTER (WHERE state = 'pending') "
        "FROM notifications WHERE state IN ('pending', 'failed') GROUP BY receiver"
    )
    return {
        receiver: QueueStatus(pending, failed, 0.0 if oldest_ns is None else max(0, now_ns - oldest_ns) / SECOND_NS)
        for receiver, pending, failed, oldest_ns in rows
    }


def merge_notifications(notifications: Iterable[Notification]) -> Notification:
    """Return one notification for `notifications` of one group, oldest first, with the newest state of every alert.

    It keeps the id of the oldest. Its reason stays `FIRST` while an alert of it fires, and is `REPEAT` only if all of
    them are repeats.
    """
    first, *later = _of_one_boot(list(notifications))
    alerts = {alert.fingerprint: alert for alert in first.alerts}
    merged = first
    for notification in later:
        newest = {alert.fingerprint: alert for alert in notification.alerts}
        alerts = newest | {key: alert for key, alert in alerts.items() if key not in newest}
        origin = merged if notification.reason is NotificationReason.REPEAT else notification
        merged = _with_reason_of(origin, replace(notification, id=first.id, alerts=tuple(alerts.values())))
    if first.reason is NotificationReason.FIRST and merged.status == "firing":
        merged = _with_reason_of(first, merged)
    return merged


def _of_one_boot(notifications: list[Notification]) -> list[Notification]:
    newest = notifications[-1].boot_id
    return [one if one.boot_id == newest else one.without_boottimes() for one in notifications]


def _with_reason_of(origin: Notification, notification: Notification) -> Notification:
    return replace(notification, reason=origin.reason, reason_detail=origin.reason_detail)


def merge_unattempted(connection: Connection, receiver: str, group_key: str, wall: float) -> None:
    """Merge the notifications of a group that were never attempted into the oldest of them.

    Not those behind a notification of another group that may hold an older state of the same alerts.
    """
    rows = outbox_rows.mergeable_rows(connection, receiver, group_key)
    if len(rows) < 2:  # noqa: PLR2004 - nothing to merge with
        return
    merged = merge_notifications(Notification.from_json_text(body) for _, body, _ in rows)
    outbox_rows.mark_merged(connection, [sequence for sequence, _, _ in rows[1:]], merged.id, wall)
    outbox_rows.replace_notification(connection, rows[0][0], merged, created_ns=rows[-1][2])


def _sequence(connection: Connection, notification: Notification) -> int:
    row = connection.execute("SELECT sequence FROM notifications WHERE id = ?", (notification.id,)).fetchone()
    return -1 if row is None else int(row[0])


def _is_released(connection: Connection, notification: Notification) -> bool:
    return outbox_rows.is_released(connection, _sequence(connection, notification))


def _take_back_drop(connection: Connection, notification: Notification) -> None:
    # It was dropped to make room during its attempt, and arrived all the same.
    restored = connection.execute(
        "UPDATE notifications SET state = 'pending' WHERE id = ? AND state = 'failed' AND loss_cause = ?",
        (notification.id, LossCause.CAPACITY.value),
    ).rowcount
    losses.count_loss(connection, notification.receiver, LossCause.CAPACITY, -restored)


def _has_resolved_alert(body: str) -> bool:
    try:
        return any(alert["resolved"] is not None for alert in json.loads(body)["alerts"])
    except (LookupError, TypeError, ValueError):
        return False  # damaged


def _storable(text: str) -> str:
    return text[:_MAX_ERROR_CHARACTERS].encode("utf-8", "backslashreplace").decode()
