"""The notices on their way: a queue in the state file, taken from by one worker per receiver.

Notices of one group leave in the order in which they were made. Those that were never attempted are merged into the
oldest of them: after a long outage a receiver hears the newest state of each group, not its history. One that was
attempted is never altered: the receiver may have it, and would take other news under the same id for a duplicate.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from sqlite3 import Connection
from typing import Literal, Protocol

from watchdog.clock import SECOND_NS, Clock
from watchdog.errors import DocumentError
from watchdog.routing.notification import Notification, NotificationReason
from watchdog.state import losses, notified
from watchdog.state.losses import LossCause
from watchdog.storage.checksum import checksum, is_intact
from watchdog.storage.database import Database

MAX_RETRY_WAIT_NS = 3600 * SECOND_NS  # between two attempts, whatever the receiver asked for
FIRING_EXPIRY_NS = 24 * 3600 * SECOND_NS  # of news that something fires

DROPPED_RESULT = "dropped: no room"  # what is said of a notice that had to make room for others (`capacity.py`)
DAMAGED_RESULT = "damaged in the state file"

_MOST_ERROR_CHARACTERS = 200
_log = logging.getLogger("watchdog")

_FIRST_OF_GROUP = """
    state = 'pending' AND receiver = ? AND NOT EXISTS (
        SELECT 1 FROM lanes AS mine JOIN lanes AS earlier
          ON earlier.receiver = mine.receiver AND earlier.lane = mine.lane AND earlier.place < mine.place
        WHERE mine.place = notices.place
    )
"""


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    """A notice taken from the queue to be sent now; `number` counts from 1, over restarts."""

    notification: Notification
    number: int


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """Result of an attempt: `state` is "done", "dead" or "pending" (again, at `due_ns` of CLOCK_BOOTTIME).

    `cause` is the cause of loss that is counted when `state` is "dead".
    """

    attempt: DeliveryAttempt
    state: Literal["pending", "done", "dead"]
    result: str  # "ok", or what went wrong, without secrets
    due_ns: int = 0
    cause: LossCause = LossCause.REFUSED


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """What waits for one receiver; `oldest_seconds` is the age of the oldest pending notice, 0 without any."""

    pending: int = 0
    failed: int = 0
    oldest_seconds: float = 0.0


class AttemptLimiter(Protocol):
    """What may keep notices back that were never attempted; called inside the transaction that takes one."""

    def defer_excess(self, connection: Connection, receiver: str, now_ns: int) -> None:
        """Leave due only what may be sent now."""
        ...

    def count_sent(self, connection: Connection, receiver: str, now_ns: int) -> None:
        """Note that one more notice is sent for the first time."""
        ...


class Outbox:
    """The queue. Every method is one transaction and raises StoreError when the file can't be written."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Use the notices that `Store.commit` writes."""
        self._database = database
        self._clock = clock

    def begin_attempt(self, receiver: str, gate: AttemptLimiter | None = None) -> DeliveryAttempt | None:
        """Take the oldest notice that is due, and that `gate` lets through; None when none is.

        The attempt is counted on disk before it is made, so that what may have been sent is known after a crash. A
        waiting time that no attempt can have set (a clock has changed) counts as over. A notice that is not what it was
        any more is given up: nobody is told what nobody said.
        """
        while True:
            now_ns = self._clock.boottime_ns()
            with self._database.transaction() as connection:
                if gate is not None:
                    gate.defer_excess(connection, receiver, now_ns)
                first = self._first_due(connection, receiver, now_ns)
                if first is None:
                    return None
                place, rule = first
                given_up = fail_damaged(connection, receiver, rule, self._clock.wall())
                if not given_up:
                    attempt = self._take(connection, place, receiver, rule)
                    if gate is not None and attempt.number == 1:
                        gate.count_sent(connection, receiver, now_ns)
                    return attempt
            _log.error("notices given up for %s, %s: %s", receiver, DAMAGED_RESULT, ", ".join(given_up))

    def finish_attempt(self, outcome: AttemptOutcome) -> None:
        """Write down how an attempt ended.

        After a reload an attempt of the former worker can end while its notice is attempted by the next one: that it
        was delivered still counts then, that it failed does not. So it does for one that was dropped in that time.
        """
        attempt = outcome.attempt
        result = _storable(outcome.result)
        wall = self._clock.wall()
        with self._database.transaction() as connection:
            if outcome.state == "done":
                notified.record_delivery(connection, attempt.notification)
                _take_back_drop(connection, attempt.notification)
            counted = connection.execute(
                "UPDATE notices SET state = ?, due_ns = ?, last_error = ?, ended = ? "
                "WHERE id = ? AND state = 'pending' AND (attempts = ? OR ? = 'done')",
                (
                    outcome.state,
                    outcome.due_ns,
                    None if outcome.state == "done" else result,
                    None if outcome.state == "pending" else wall,
                    attempt.notification.id,
                    attempt.number,
                    outcome.state,
                ),
            ).rowcount
            if outcome.state == "dead":
                losses.count_loss(connection, attempt.notification.receiver, outcome.cause, counted)
            connection.execute(
                "INSERT INTO attempts (notice, number, at, result) VALUES (?, ?, ?, ?)",
                (attempt.notification.id, attempt.number, wall, result),
            )

    def retry_now(self, receiver: str) -> None:
        """Have everything that waits for `receiver` attempted now: it works again."""
        now_ns = self._clock.boottime_ns()
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE notices SET due_ns = ? WHERE state = 'pending' AND receiver = ? AND due_ns > ?",
                (now_ns, receiver, now_ns),
            )

    def expire_old(self, receiver: str) -> list[str]:
        """Give up on pending notices that are a day old and tell of firing alone; return their ids.

        The end of an alert never expires, nor does what is told with it.
        """
        too_old_ns = self._clock.boottime_ns() - FIRING_EXPIRY_NS
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT id, body FROM notices "
                "WHERE state = 'pending' AND receiver = ? AND status = 'firing' AND created_ns < ? ORDER BY place",
                (receiver, too_old_ns),
            )
            old = [notification for notification, body in rows if not _tells_an_end(body)]
            connection.executemany(
                "UPDATE notices SET state = 'dead', last_error = 'expired', ended = ? WHERE id = ?",
                [(self._clock.wall(), notification) for notification in old],
            )
            losses.count_loss(connection, receiver, LossCause.EXPIRED, len(old))
        return old

    def fail_unconfigured(self, receivers: Collection[str]) -> list[tuple[str, str]]:
        """Give up on what waits for receivers that are not configured any more; return (receiver, id) of each."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT receiver, id FROM notices WHERE state = 'pending' ORDER BY place"
            ).fetchall()
            buried = [(receiver, notification) for receiver, notification in rows if receiver not in receivers]
            connection.executemany(
                "UPDATE notices SET state = 'dead', last_error = 'receiver removed', ended = ? WHERE id = ?",
                [(self._clock.wall(), notification) for _, notification in buried],
            )
            for receiver, _ in buried:
                losses.count_loss(connection, receiver, LossCause.RECEIVER_REMOVED)
            for (receiver,) in connection.execute("SELECT DISTINCT receiver FROM told").fetchall():
                if receiver not in receivers:
                    connection.execute("DELETE FROM told WHERE receiver = ?", (receiver,))
        return buried

    def release_deferred(self) -> None:
        """Let everything be due that a gate of before kept back."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE notices SET due_ns = created_ns "
                "WHERE state = 'pending' AND attempts = 0 AND due_ns > created_ns"
            )

    def next_due_ns(self, receiver: str) -> int | None:
        """Return the CLOCK_BOOTTIME at which `begin` has something to give; None when nothing waits."""
        with self._database.transaction() as connection:
            due: int | None = connection.execute(
                f"SELECT min(due_ns) FROM notices WHERE {_FIRST_OF_GROUP}",  # noqa: S608 - a constant
                (receiver,),
            ).fetchone()[0]
        return due

    def queues(self) -> Mapping[str, QueueStatus]:
        """Return what waits, by receiver."""
        now_ns = self._clock.boottime_ns()
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT receiver, sum(state = 'pending'), sum(state = 'dead'), "
                "min(created_ns) FILTER (WHERE state = 'pending') "
                "FROM notices WHERE state IN ('pending', 'dead') GROUP BY receiver"
            ).fetchall()
        return {
            receiver: QueueStatus(pending, dead, 0.0 if oldest_ns is None else max(0, now_ns - oldest_ns) / SECOND_NS)
            for receiver, pending, dead, oldest_ns in rows
        }

    def losses(self) -> Mapping[tuple[str, LossCause], int]:
        """Return the number of notifications lost since the state file was created, by (receiver, cause)."""
        with self._database.transaction() as connection:
            return losses.read_losses(connection)

    def _first_due(self, connection: Connection, receiver: str, now_ns: int) -> tuple[int, str] | None:
        row: tuple[int, str] | None = connection.execute(
            f"SELECT place, rule FROM notices WHERE {_FIRST_OF_GROUP} "  # noqa: S608 - a constant
            "AND (due_ns <= ? OR due_ns > ?) ORDER BY place LIMIT 1",
            (receiver, now_ns, now_ns + MAX_RETRY_WAIT_NS),
        ).fetchone()
        return row

    def _take(self, connection: Connection, place: int, receiver: str, rule: str) -> DeliveryAttempt:
        merge_unattempted(connection, receiver, rule, self._clock.wall())
        body, number = connection.execute(
            "UPDATE notices SET attempts = attempts + 1 WHERE place = ? RETURNING body, attempts", (place,)
        ).fetchone()
        return DeliveryAttempt(Notification.from_json_text(body), number)


def merge_notifications(notifications: Iterable[Notification]) -> Notification:
    """Return one notification for `notifications` of one group, oldest first, with the newest state of every alert.

    It keeps the id of the oldest. Its reason stays `FIRST` while it says that something fires, and is
    `REPEAT` only if nothing in it is news.
    """
    first, *later = notifications
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


def _with_reason_of(origin: Notification, notification: Notification) -> Notification:
    return replace(notification, reason=origin.reason, reason_detail=origin.reason_detail)


def merge_unattempted(connection: Connection, receiver: str, rule: str, wall: float) -> None:
    """Make one notice of those of a group that were never attempted.

    But not of what another group's notice stands before, which may tell something older of the same alerts.
    """
    rows = connection.execute(
        "WITH own AS MATERIALIZED (SELECT place, body, created_ns FROM notices"
        " WHERE state = 'pending' AND receiver = ?1 AND rule = ?2 AND attempts = 0), "
        "others AS MATERIALIZED (SELECT lane, min(lanes.place) AS place FROM lanes"
        " JOIN notices ON notices.place = lanes.place AND rule != ?2"
        " WHERE lanes.receiver = ?1 AND lanes.place > (SELECT min(place) FROM own)"
        " AND lane IN (SELECT lane FROM lanes JOIN own ON own.place = lanes.place) GROUP BY lane) "
        "SELECT place, body, created_ns FROM own WHERE NOT EXISTS ("
        " SELECT 1 FROM lanes AS mine JOIN others ON others.lane = mine.lane AND others.place < mine.place"
        " WHERE mine.place = own.place) ORDER BY place",
        (receiver, rule),
    ).fetchall()
    if len(rows) < 2:  # noqa: PLR2004 - nothing to merge with
        return
    merged = merge_notifications(Notification.from_json_text(body) for _, body, _ in rows)
    connection.executemany(
        "UPDATE notices SET state = 'merged', last_error = ?, ended = ? WHERE place = ?",
        [(f"merged into {merged.id}", wall, place) for place, _, _ in rows[1:]],
    )
    body = json.dumps(merged.to_json(), separators=(",", ":"))
    connection.execute(
        "UPDATE notices SET body = ?, checksum = ?, status = ?, created_ns = ? WHERE place = ?",
        (body, checksum(body), merged.status, rows[-1][2], rows[0][0]),
    )


def fail_damaged(connection: Connection, receiver: str, rule: str, wall: float) -> list[str]:
    """Give up on the pending notices of a group that are not what they were any more; return their ids."""
    rows = connection.execute(
        "SELECT place, id, body, checksum FROM notices WHERE state = 'pending' AND receiver = ? AND rule = ?",
        (receiver, rule),
    ).fetchall()
    unreadable = [
        (place, notification)
        for place, notification, body, expected in rows
        if not is_valid_body(body, expected, notification, receiver)
    ]
    connection.executemany(
        "UPDATE notices SET state = 'dead', last_error = ?, ended = ? WHERE place = ?",
        [(DAMAGED_RESULT, wall, place) for place, _ in unreadable],
    )
    losses.count_loss(connection, receiver, LossCause.DAMAGED, len(unreadable))
    return [notification for _, notification in unreadable]


def is_valid_body(body: str, expected: int | None, id_: str, receiver: str) -> bool:
    """Tell whether `body` is a notice with something to tell, and the one that it is kept as, by its checksum too."""
    if not is_intact(body, expected):
        return False
    try:
        notification = Notification.from_json_text(body)
    except DocumentError:
        return False
    return bool(notification.alerts) and (notification.id, notification.receiver) == (id_, receiver)


def _take_back_drop(connection: Connection, notification: Notification) -> None:
    # It was given up for want of room while it was under way, and arrived all the same.
    back = connection.execute(
        "UPDATE notices SET state = 'pending' WHERE id = ? AND state = 'dead' AND last_error = ?",
        (notification.id, DROPPED_RESULT),
    ).rowcount
    losses.count_loss(connection, notification.receiver, LossCause.CAPACITY, -back)


def _tells_an_end(body: str) -> bool:
    try:
        return any(alert["resolved"] is not None for alert in json.loads(body)["alerts"])
    except (LookupError, TypeError, ValueError):
        return False  # damaged: it tells nothing


def _storable(text: str) -> str:
    return text[:_MOST_ERROR_CHARACTERS].encode("utf-8", "backslashreplace").decode()
