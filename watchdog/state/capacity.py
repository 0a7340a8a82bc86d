"""Limits of the outbox, and the order in which notifications make room for others. Each loss is counted.

1. History: notifications that have ended. No loss.
2. Notifications of one group that were never attempted are merged. No loss.
3. Notifications that were never attempted lose their evidence. No alert is lost.
4. Repeats: the receiver was notified before.
5. Groups of which the receiver was not notified and in which nothing fires: alerts that came and went.
6. Groups of which it was not notified and in which an alert fires: a repeat will report it.
7. All other groups in which an alert fires.
8. The resolved notification of a notified group: only if nothing else is left.

In 5 to 8 all notifications of a group go together: a receiver never keeps a firing alert whose end was dropped. Within
each step the oldest go first.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from sqlite3 import Connection

from watchdog.routing.notification import NotificationReason
from watchdog.state import losses
from watchdog.state.losses import LossCause
from watchdog.state.outbox import merge_unattempted
from watchdog.state.outbox_rows import fail_damaged, trim_history
from watchdog.storage.checksum import checksum

DROPPED_RESULT = "dropped: no room"
"""Last error of a notification that was dropped to make room."""

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class OutboxCapacity:
    """Maximum number and bytes of pending notifications, per receiver and in total; maximum bytes of history."""

    max_receiver_notifications: int = 12_000
    max_receiver_bytes: int = 12 * _MIB
    max_notifications: int = 20_000
    max_bytes: int = 16 * _MIB
    max_history_bytes: int = 8 * _MIB

    def halved(self, times: int) -> OutboxCapacity:
        """Return a copy whose bytes are halved `times` times."""
        return replace(self, max_receiver_bytes=self.max_receiver_bytes >> times, max_bytes=self.max_bytes >> times)


@dataclass(slots=True)
class _QueueSize:
    notifications: int = 0
    bytes: int = 0


class _QueueSizes:
    """Size of the queue of each receiver, compared with the capacity."""

    def __init__(self, connection: Connection, capacity: OutboxCapacity) -> None:
        self._capacity = capacity
        self._sizes = {
            receiver: _QueueSize(notifications, size)
            for receiver, notifications, size in connection.execute(
                "SELECT receiver, count(*), sum(body_bytes) FROM notifications INDEXED BY notifications_pending "
                "WHERE state = 'pending' GROUP BY receiver"
            )
        }

    def subtract(self, receiver: str, notifications: int, size: int) -> None:
        """Subtract dropped notifications."""
        queue = self._sizes[receiver]
        queue.notifications -= notifications
        queue.bytes -= size

    def is_over_limit(self, receiver: str) -> bool:
        """Return whether the queue of `receiver` exceeds the limit of one receiver."""
        queue, capacity = self._sizes[receiver], self._capacity
        return queue.notifications > capacity.max_receiver_notifications or queue.bytes > capacity.max_receiver_bytes

    def is_over_share(self, receiver: str) -> bool:
        """Return whether all queues exceed the total, and that of `receiver` exceeds its share of the total."""
        queue, capacity, shares = self._sizes[receiver], self._capacity, len(self._sizes)
        return (
            sum(each.notifications for each in self._sizes.values()) > capacity.max_notifications
            and queue.notifications * shares > capacity.max_notifications
        ) or (
            sum(each.bytes for each in self._sizes.values()) > capacity.max_bytes
            and queue.bytes * shares > capacity.max_bytes
        )

    def is_any_over(self) -> bool:
        """Return whether any queue must shrink."""
        return any(self.is_over_limit(receiver) or self.is_over_share(receiver) for receiver in self._sizes)


@dataclass(frozen=True, slots=True)
class _PendingEntry:
    """`was_notified`: the receiver was, or by a digest on its way may have been, sent an alert of these rules."""

    sequence: int
    receiver: str
    group_key: str
    firing: bool
    is_repeat: bool
    attempted: bool
    was_notified: bool
    bytes: int


def enforce_capacity(connection: Connection, capacity: OutboxCapacity, wall: float) -> Counter[str]:
    """Bring pending notifications within `capacity`; return the number of dropped ones by receiver.

    They are counted as lost in the same transaction, with the cause "capacity".
    """
    dropped: Counter[str] = Counter()
    sizes = _QueueSizes(connection, capacity)
    if not sizes.is_any_over():
        return dropped
    _merge_all(connection, wall)
    sizes = _QueueSizes(connection, capacity)
    if sizes.is_any_over():
        _strip_evidence(connection)
        sizes = _QueueSizes(connection, capacity)
    for must_shrink in (sizes.is_over_limit, sizes.is_over_share):
        if not sizes.is_any_over():
            break
        for bundle in _least_needed_first(connection):
            receiver = bundle[0].receiver
            if must_shrink(receiver):
                _drop(connection, [entry.sequence for entry in bundle], wall)
                sizes.subtract(receiver, len(bundle), sum(entry.bytes for entry in bundle))
                dropped[receiver] += len(bundle)
    for receiver, count in dropped.items():
        losses.count_loss(connection, receiver, LossCause.CAPACITY, count)
    return dropped


def prune_history(connection: Connection, ended_before: float, max_rows: int, max_bytes: int) -> None:
    """Delete notifications that ended before a wall-clock second, and the oldest ended ones beyond a limit."""
    connection.execute("DELETE FROM notifications WHERE state != 'pending' AND ended < ?", (ended_before,))
    connection.execute(
        "DELETE FROM notifications WHERE sequence IN (SELECT sequence FROM notifications "
        "WHERE state != 'pending' ORDER BY ended DESC, sequence DESC LIMIT -1 OFFSET ?)",
        (max_rows,),
    )
    trim_history(connection, max_bytes)
    connection.execute(
        "DELETE FROM attempts WHERE sequence <= (SELECT max(sequence) FROM attempts) - ?",
        (max_rows,),
    )


def _merge_all(connection: Connection, wall: float) -> None:
    groups = connection.execute(
        "SELECT DISTINCT receiver, group_key FROM notifications WHERE state = 'pending'"
    ).fetchall()
    for receiver, group_key in groups:
        fail_damaged(connection, receiver, group_key, wall)
        merge_unattempted(connection, receiver, group_key, wall)


def _strip_evidence(connection: Connection) -> None:
    rows = connection.execute(
        "SELECT sequence, body FROM notifications WHERE state = 'pending' AND attempts = 0 AND has_evidence"
    ).fetchall()
    for sequence, body in rows:
        document = json.loads(body)
        document["alerts"] = [alert | {"evidence": None} for alert in document["alerts"]]
        slim = json.dumps(document, separators=(",", ":"))
        connection.execute(
            "UPDATE notifications SET body = ?, checksum = ?, has_evidence = 0 WHERE sequence = ?",
            (slim, checksum(slim), sequence),
        )


def _least_needed_first(connection: Connection) -> Iterator[list[_PendingEntry]]:
    entries = _pending_entries(connection)
    repeats = [entry for entry in entries if entry.is_repeat]
    yield from ([entry] for entry in repeats)
    gone = {entry.sequence for entry in repeats}
    rest = sorted(
        (entry for entry in entries if entry.sequence not in gone),
        key=lambda entry: (entry.receiver, entry.group_key, entry.sequence),
    )
    groups = [list(group) for _, group in groupby(rest, key=lambda entry: (entry.receiver, entry.group_key))]
    yield from sorted(groups, key=lambda group: (_need(group), group[-1].sequence))


def _need(group: list[_PendingEntry]) -> int:
    # An attempted notification may have arrived: then the receiver was notified of its firing alerts.
    was_notified = any(entry.was_notified or (entry.attempted and entry.firing) for entry in group)
    if group[-1].firing:
        return 2 if was_notified else 1
    return 3 if was_notified else 0


def _pending_entries(connection: Connection) -> list[_PendingEntry]:
    rows = connection.execute(
        "SELECT sequence, receiver, group_key, status = 'firing', reason = ?, attempts > 0, EXISTS ("
        "SELECT 1 FROM ordering_keys JOIN notified"
        " ON notified.receiver = ordering_keys.receiver AND notified.rule = ordering_keys.ordering_key "
        "WHERE ordering_keys.sequence = notifications.sequence), EXISTS ("
        "SELECT 1 FROM ordering_keys AS mine JOIN ordering_keys AS earlier "
        "ON earlier.receiver = mine.receiver AND earlier.ordering_key = mine.ordering_key"
        " AND earlier.sequence < mine.sequence "
        "JOIN notifications AS before ON before.sequence = earlier.sequence"
        " AND before.group_key != notifications.group_key AND before.attempts > 0 AND before.status = 'firing' "
        "WHERE mine.sequence = notifications.sequence), body_bytes "
        "FROM notifications WHERE state = 'pending' ORDER BY sequence",
        (NotificationReason.REPEAT.value,),
    )
    return [
        _PendingEntry(
            sequence, receiver, group_key, bool(firing), bool(repeat), bool(attempted), bool(sure or maybe), size
        )
        for sequence, receiver, group_key, firing, repeat, attempted, sure, maybe, size in rows
    ]


def _drop(connection: Connection, sequences: list[int], wall: float) -> None:
    # The alerts give their space back; the notification itself stays in the history.
    connection.executemany(
        "UPDATE notifications SET state = 'failed', loss_cause = ?, last_error = ?, ended = ?, checksum = NULL, "
        "has_evidence = 0, body = CASE WHEN json_valid(body) THEN json_set(body, '$.alerts', json('[]')) ELSE '{}' END "
        "WHERE sequence = ?",
        [(LossCause.CAPACITY.value, DROPPED_RESULT, wall, sequence) for sequence in sequences],
    )
