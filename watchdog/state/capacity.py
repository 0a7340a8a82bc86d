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
from watchdog.state.outbox import DROPPED, bury_unreadable, merge_unattempted
from watchdog.storage.checksum import checksum

_MIB = 1024 * 1024
_WITH_EVIDENCE = '"evidence":{'  # as it stands in a body; in no text, whose quotes are escaped


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many notices, and bytes of them, may be pending for one receiver and in all; and what may be kept ended."""

    receiver_notices: int = 12_000
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
                "SELECT receiver, count(*), sum(bytes) FROM notices INDEXED BY notices_pending "
                "WHERE state = 'pending' GROUP BY receiver"
            )
        }

    def take_off(self, receiver: str, notices: int, size: int) -> None:
        """Count what was dropped."""
        load = self._loads[receiver]
        load.notices -= notices
        load.bytes -= size

    def too_full(self, receiver: str) -> bool:
        """Tell whether more waits for `receiver` than may."""
        load, capacity = self._loads[receiver], self._capacity
        return load.notices > capacity.receiver_notices or load.bytes > capacity.receiver_bytes

    def beyond_share(self, receiver: str) -> bool:
        """Tell whether more waits in all than may, and for `receiver` more than its share of that."""
        load, capacity, shares = self._loads[receiver], self._capacity, len(self._loads)
        return (
            sum(each.notices for each in self._loads.values()) > capacity.notices
            and load.notices * shares > capacity.notices
        ) or (
            sum(each.bytes for each in self._loads.values()) > capacity.bytes and load.bytes * shares > capacity.bytes
        )

    def any_too_full(self) -> bool:
        """Tell whether anything has to go."""
        return any(self.too_full(receiver) or self.beyond_share(receiver) for receiver in self._loads)


@dataclass(frozen=True, slots=True)
class _Waiting:
    place: int
    receiver: str
    rule: str
    firing: bool
    reminder: bool
    attempted: bool
    told: bool  # the receiver knows of something of these rules that fires, or perhaps does, by a digest on its way
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
        _strip_evidence(connection)
        scales = _Scales(connection, capacity)
    for has_to_give in (scales.too_full, scales.beyond_share):
        if not scales.any_too_full():
            break
        for bundle in _least_needed_first(connection):
            receiver = bundle[0].receiver
            if has_to_give(receiver):
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
    groups = connection.execute("SELECT DISTINCT receiver, rule FROM notices WHERE state = 'pending'").fetchall()
    for receiver, rule in groups:
        bury_unreadable(connection, receiver, rule, wall)
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
        _Waiting(place, receiver, rule, bool(firing), bool(reminder), bool(attempted), bool(told or perhaps), size)
        for place, receiver, rule, firing, reminder, attempted, told, perhaps, size in rows
    ]


def _drop(connection: Connection, places: list[int], wall: float) -> None:
    # What they would have said gives its room back; that they were, stays in the history.
    connection.executemany(
        "UPDATE notices SET state = 'dead', last_error = ?, ended = ?, checksum = NULL, "
        "body = CASE WHEN json_valid(body) THEN json_set(body, '$.alerts', json('[]')) ELSE '{}' END WHERE place = ?",
        [(DROPPED, wall, place) for place in places],
    )
