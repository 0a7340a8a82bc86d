"""How much may wait in the outbox, and what makes room for the rest: the least needed first, each loss counted.

1. History: what has ended. Nothing is lost by it.
2. News of one group that were never attempted become one notice. Nothing is lost by it.
3. Reminders: the receiver has been told.
4. Groups of which the receiver was told nothing, and nothing fires any more: alerts that came and went.
5. Groups of which it was told nothing, and something fires: a reminder will tell it.
6. The rest of what fires.
7. The end of what it was told: only when there is nothing else.

In 4 to 7 a group's notices go together: a receiver is never left with the beginning whose end was dropped. Within
each, the oldest go first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from sqlite3 import Connection

from watchdog.notify.outbox import DROPPED, bury_unreadable, merge_unattempted
from watchdog.store import losses

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many notices, and bytes of them, may be pending for one receiver and in all; and what may be kept ended."""

    receiver_notices: int = 10_000
    receiver_bytes: int = 12 * _MIB
    notices: int = 20_000
    bytes: int = 16 * _MIB
    history_bytes: int = 8 * _MIB

    def halved(self, times: int) -> Capacity:
        """Return it with half the bytes, `times` over."""
        return replace(self, receiver_bytes=self.receiver_bytes >> times, bytes=self.bytes >> times)


@dataclass(slots=True)
class _Load:
    notices: int = 0
    bytes: int = 0


class _Scales:
    """What is pending, and whether that is too much."""

    def __init__(self, connection: Connection, capacity: Capacity) -> None:
        self._capacity = capacity
        self._loads = {
            receiver: _Load(notices, size)
            for receiver, notices, size in connection.execute(
                "SELECT receiver, count(*), sum(bytes) FROM notices WHERE state = 'pending' GROUP BY receiver"
            )
        }

    def take_off(self, receiver: str, notices: int, size: int) -> None:
        load = self._loads[receiver]
        load.notices -= notices
        load.bytes -= size

    def too_full(self, receiver: str) -> bool:
        load, capacity = self._loads[receiver], self._capacity
        return (
            load.notices > capacity.receiver_notices
            or load.bytes > capacity.receiver_bytes
            or sum(each.notices for each in self._loads.values()) > capacity.notices
            or sum(each.bytes for each in self._loads.values()) > capacity.bytes
        )

    def any_too_full(self) -> bool:
        return any(self.too_full(receiver) for receiver in self._loads)


@dataclass(frozen=True, slots=True)
class _Waiting:
    place: int
    receiver: str
    rule: str
    firing: bool
    reminder: bool
    attempted: bool
    told: bool  # the receiver knows of something in this group that fires
    bytes: int


def make_room(connection: Connection, capacity: Capacity, wall: float) -> Counter[str]:
    """Bring what is pending within `capacity`; return how many notices were dropped, by receiver.

    They are counted in the same transaction, as lost by "capacity".
    """
    dropped: Counter[str] = Counter()
    scales = _Scales(connection, capacity)
    if not scales.any_too_full():
        return dropped
    _merge_all(connection, wall)
    scales = _Scales(connection, capacity)
    if scales.any_too_full():
        for bundle in _least_needed_first(connection):
            receiver = bundle[0].receiver
            if not scales.too_full(receiver):
                continue
            _drop(connection, [waiting.place for waiting in bundle], wall)
            scales.take_off(receiver, len(bundle), sum(waiting.bytes for waiting in bundle))
            dropped[receiver] += len(bundle)
        for receiver, number in dropped.items():
            losses.count(connection, receiver, "capacity", number)
    return dropped


def trim_history(connection: Connection, most_bytes: int) -> None:
    """Delete the oldest of what has ended, so that `most_bytes` stay."""
    connection.execute(
        "DELETE FROM notices WHERE place IN (SELECT place FROM ("
        "SELECT place, sum(bytes) OVER (ORDER BY ended DESC, place DESC) AS so_far FROM notices "
        "WHERE state != 'pending') WHERE so_far > ?)",
        (most_bytes,),
    )


def _merge_all(connection: Connection, wall: float) -> None:
    groups = connection.execute(
        "SELECT receiver, rule FROM notices WHERE state = 'pending' AND attempts = 0 "
        "GROUP BY receiver, rule HAVING count(*) > 1"
    ).fetchall()
    for receiver, rule in groups:
        bury_unreadable(connection, receiver, rule, wall)
        merge_unattempted(connection, receiver, rule, wall)


def _least_needed_first(connection: Connection) -> Iterator[list[_Waiting]]:
    waiting = _waiting(connection)
    reminders = [each for each in waiting if each.reminder]
    yield from ([each] for each in reminders)
    gone = {each.place for each in reminders}
    rest = sorted(
        (each for each in waiting if each.place not in gone), key=lambda each: (each.receiver, each.rule, each.place)
    )
    groups = [list(group) for _, group in groupby(rest, key=lambda each: (each.receiver, each.rule))]
    yield from sorted(groups, key=lambda group: (_need(group), group[-1].place))


def _need(group: list[_Waiting]) -> int:
    # One that was attempted may have arrived: then the receiver was told of what fires in it.
    told = any(each.told or (each.attempted and each.firing) for each in group)
    if group[-1].firing:
        return 2 if told else 1
    return 3 if told else 0


def _waiting(connection: Connection) -> list[_Waiting]:
    rows = connection.execute(
        "SELECT place, receiver, rule, status = 'firing', "
        "json_valid(body) AND json_extract(body, '$.reason') = 'repeat', attempts > 0, EXISTS ("
        "SELECT 1 FROM told WHERE told.receiver = notices.receiver AND told.rule = notices.rule), bytes "
        "FROM notices WHERE state = 'pending' ORDER BY place"
    )
    return [
        _Waiting(place, receiver, rule, bool(firing), bool(reminder), bool(attempted), bool(told), size)
        for place, receiver, rule, firing, reminder, attempted, told, size in rows
    ]


def _drop(connection: Connection, places: list[int], wall: float) -> None:
    # What they would have said gives its room back; that they were, stays in the history.
    connection.executemany(
        "UPDATE notices SET state = 'dead', last_error = ?, ended = ?, checksum = NULL, "
        "body = CASE WHEN json_valid(body) THEN json_set(body, '$.alerts', json('[]')) ELSE '{}' END WHERE place = ?",
        [(DROPPED, wall, place) for place in places],
    )
