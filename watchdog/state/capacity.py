"""How much may wait in the outbox, and what makes room for the rest: the least needed first, each loss counted.

1. History: what has ended. Nothing is lost by it.
2. News of one group that were never attempted become one notice. Nothing is lost by it.
3. News that were never attempted go without their evidence. No alert is lost by it.
4. Reminders: the receiver has been told.
5. Groups of which the receiver was told nothing, and nothing fires any more: alerts that came and went.
6. Groups of which it was told nothing, and something fires: a reminder will tell it.
7. The rest of what fires.
8. The end of what it was told: only when there is nothing else.

In 5 to 8 a group's notices go together: a receiver is never left with the beginning whose end was dropped. Within
each, the oldest go first.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from sqlite3 import Connection

from watchdog.state import losses
from watchdog.state.losses import LossCause
from watchdog.state.outbox import DROPPED_RESULT, fail_damaged, merge_unattempted
from watchdog.storage.checksum import checksum

_MIB = 1024 * 1024
_WITH_EVIDENCE = '"evidence":{'  # as it stands in a body; in no text, whose quotes are escaped


@dataclass(frozen=True, slots=True)
class OutboxCapacity:
    """How many notices, and bytes of them, may be pending for one receiver and in all; and what may be kept ended."""

    max_receiver_notifications: int = 12_000
    max_receiver_bytes: int = 12 * _MIB
    max_notifications: int = 20_000
    max_bytes: int = 16 * _MIB
    max_history_bytes: int = 8 * _MIB

    def halved(self, times: int) -> OutboxCapacity:
        """Return it with half the bytes, `times` over."""
        return replace(self, max_receiver_bytes=self.max_receiver_bytes >> times, max_bytes=self.max_bytes >> times)


@dataclass(slots=True)
class _QueueSize:
    notifications: int = 0
    bytes: int = 0


class _QueueSizes:
    """What is pending, and whether that is too much."""

    def __init__(self, connection: Connection, capacity: OutboxCapacity) -> None:
        self._capacity = capacity
        self._loads = {
            receiver: _QueueSize(notifications, size)
            for receiver, notifications, size in connection.execute(
                "SELECT receiver, count(*), sum(bytes) FROM notices INDEXED BY notices_pending "
                "WHERE state = 'pending' GROUP BY receiver"
            )
        }

    def subtract(self, receiver: str, notifications: int, size: int) -> None:
        """Count what was dropped."""
        load = self._loads[receiver]
        load.notifications -= notifications
        load.bytes -= size

    def is_over_limit(self, receiver: str) -> bool:
        """Tell whether more waits for `receiver` than may."""
        load, capacity = self._loads[receiver], self._capacity
        return load.notifications > capacity.max_receiver_notifications or load.bytes > capacity.max_receiver_bytes

    def is_over_share(self, receiver: str) -> bool:
        """Tell whether more waits in all than may, and for `receiver` more than its share of that."""
        load, capacity, shares = self._loads[receiver], self._capacity, len(self._loads)
        return (
            sum(each.notifications for each in self._loads.values()) > capacity.max_notifications
            and load.notifications * shares > capacity.max_notifications
        ) or (
            sum(each.bytes for each in self._loads.values()) > capacity.max_bytes
            and load.bytes * shares > capacity.max_bytes
        )

    def is_any_over(self) -> bool:
        """Tell whether anything has to go."""
        return any(self.is_over_limit(receiver) or self.is_over_share(receiver) for receiver in self._loads)


@dataclass(frozen=True, slots=True)
class _PendingEntry:
    sequence: int
    receiver: str
    group_key: str
    firing: bool
    is_repeat: bool
    attempted: bool
    was_notified: (
        bool  # the receiver knows of something of these rules that fires, or perhaps does, by a digest on its way
    )
    bytes: int


def enforce_capacity(connection: Connection, capacity: OutboxCapacity, wall: float) -> Counter[str]:
    """Bring what is pending within `capacity`; return how many notices were dropped, by receiver.

    They are counted in the same transaction, as lost by "capacity".
    """
    dropped: Counter[str] = Counter()
    scales = _QueueSizes(connection, capacity)
    if not scales.is_any_over():
        return dropped
    _merge_all(connection, wall)
    scales = _QueueSizes(connection, capacity)
    if scales.is_any_over():
        _strip_evidence(connection)
        scales = _QueueSizes(connection, capacity)
    for has_to_give in (scales.is_over_limit, scales.is_over_share):
        if not scales.is_any_over():
            break
        for bundle in _least_needed_first(connection):
            receiver = bundle[0].receiver
            if has_to_give(receiver):
                _drop(connection, [waiting.sequence for waiting in bundle], wall)
                scales.subtract(receiver, len(bundle), sum(waiting.bytes for waiting in bundle))
                dropped[receiver] += len(bundle)
    for receiver, number in dropped.items():
        losses.count_loss(connection, receiver, LossCause.CAPACITY, number)
    return dropped


def trim_history(connection: Connection, max_bytes: int) -> None:
    """Delete the oldest of what has ended, so that `max_bytes` stay."""
    connection.execute(
        "DELETE FROM notices WHERE place IN (SELECT place FROM ("
        "SELECT place, sum(bytes) OVER (ORDER BY ended DESC, place DESC) AS so_far FROM notices "
        "WHERE state != 'pending') WHERE so_far > ?)",
        (max_bytes,),
    )


def _merge_all(connection: Connection, wall: float) -> None:
    groups = connection.execute("SELECT DISTINCT receiver, rule FROM notices WHERE state = 'pending'").fetchall()
    for receiver, rule in groups:
        fail_damaged(connection, receiver, rule, wall)
        merge_unattempted(connection, receiver, rule, wall)


def _strip_evidence(connection: Connection) -> None:
    rows = connection.execute(
        "SELECT place, body FROM notices WHERE state = 'pending' AND attempts = 0 AND instr(body, ?) > 0",
        (_WITH_EVIDENCE,),
    ).fetchall()
    for place, body in rows:
        document = json.loads(body)
        document["alerts"] = [alert | {"evidence": None} for alert in document["alerts"]]
        slim = json.dumps(document, separators=(",", ":"))
        connection.execute("UPDATE notices SET body = ?, checksum = ? WHERE place = ?", (slim, checksum(slim), place))


def _least_needed_first(connection: Connection) -> Iterator[list[_PendingEntry]]:
    waiting = _waiting(connection)
    reminders = [each for each in waiting if each.is_repeat]
    yield from ([each] for each in reminders)
    gone = {each.sequence for each in reminders}
    rest = sorted(
        (each for each in waiting if each.sequence not in gone),
        key=lambda each: (each.receiver, each.group_key, each.sequence),
    )
    groups = [list(group) for _, group in groupby(rest, key=lambda each: (each.receiver, each.group_key))]
    yield from sorted(groups, key=lambda group: (_need(group), group[-1].sequence))


def _need(group: list[_PendingEntry]) -> int:
    # One that was attempted may have arrived: then the receiver was told of what fires in it.
    told = any(each.was_notified or (each.attempted and each.firing) for each in group)
    if group[-1].firing:
        return 2 if told else 1
    return 3 if told else 0


def _waiting(connection: Connection) -> list[_PendingEntry]:
    # No text in the body can look like that: its quotes are escaped there. To parse them all takes ten times as long.
    rows = connection.execute(
        "SELECT place, receiver, rule, status = 'firing', "
        'instr(body, \'"reason":"repeat"\') > 0, attempts > 0, EXISTS ('
        "SELECT 1 FROM lanes JOIN told ON told.receiver = lanes.receiver AND told.rule = lanes.lane "
        "WHERE lanes.place = notices.place), EXISTS ("
        "SELECT 1 FROM lanes AS mine JOIN lanes AS earlier "
        "ON earlier.receiver = mine.receiver AND earlier.lane = mine.lane AND earlier.place < mine.place "
        "JOIN notices AS before ON before.place = earlier.place AND before.rule != notices.rule "
        "AND before.attempts > 0 AND before.status = 'firing' WHERE mine.place = notices.place), bytes "
        "FROM notices WHERE state = 'pending' ORDER BY place"
    )
    return [
        _PendingEntry(place, receiver, rule, bool(firing), bool(reminder), bool(attempted), bool(told or perhaps), size)
        for place, receiver, rule, firing, reminder, attempted, told, perhaps, size in rows
    ]


def _drop(connection: Connection, places: list[int], wall: float) -> None:
    # What they would have said gives its room back; that they were, stays in the history.
    connection.executemany(
        "UPDATE notices SET state = 'dead', last_error = ?, ended = ?, checksum = NULL, "
        "body = CASE WHEN json_valid(body) THEN json_set(body, '$.alerts', json('[]')) ELSE '{}' END WHERE place = ?",
        [(DROPPED_RESULT, wall, place) for place in places],
    )
