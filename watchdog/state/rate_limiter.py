"""What keeps a receiver within its budget: more than that is told in one digest, and nothing is silenced.

While only one more notice may go, all that waits is collapsed into it: the newest state of every alert, of several
groups. While none may, what waits is put off, but for news of something critical as long as their reserve lasts. An
attempt that is made again costs nothing, and is never held.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from sqlite3 import Connection
from typing import Any, Final

from watchdog.clock import SECOND_NS, Clock
from watchdog.routing.notification import DIGEST_GROUP_KEY, Notification, NotificationReason
from watchdog.rules.language.rule import Severity
from watchdog.state.outbox import MAX_RETRY_WAIT_NS, is_valid_body, merge_notifications
from watchdog.state.rate_limit import RateLimit
from watchdog.storage.checksum import checksum

MAX_DIGEST_ALERTS: Final = 40  # of a digest: what one message shows; those beyond it are told by the next one
_KEY: Final = "rate_limit"  # in the table `memories`
_DUE: Final = "(due_ns <= ? OR due_ns > ?)"
_NEWS: Final = frozenset(
    (
        NotificationReason.FIRST,
        NotificationReason.NEW_ALERT,
        NotificationReason.SEVERITY_CHANGED,
        NotificationReason.ESCALATED,
    )
)


class RateLimiter:
    """Keeps one receiver's notices within its budget. What was used is in the state file, and survives a restart."""

    def __init__(self, budget: RateLimit, clock: Clock) -> None:
        """Go by `budget`; `clock` tells how long the host was down."""
        self._buckets = (budget.shared_bucket, budget.critical_bucket)
        self._clock = clock

    def defer_excess(self, connection: Connection, receiver: str, now_ns: int) -> None:
        """Leave due only what may be sent now, collapsed where it would be too many."""
        debts = self._debts(connection, receiver, now_ns)
        left = self._buckets[0].available_count(debts[0])
        if left == 1:
            self._collapse(connection, receiver, now_ns)
        elif left == 0:
            self._hold_all_but_urgent(connection, receiver, now_ns, debts)

    def _hold_all_but_urgent(self, connection: Connection, receiver: str, now_ns: int, debts: tuple[int, int]) -> None:
        # Each notice is looked at once, when it is new or its time has come.
        rows = connection.execute(
            f"SELECT place, body FROM notices WHERE state = 'pending' AND receiver = ? AND attempts = 0 AND {_DUE}",  # noqa: S608
            (receiver, now_ns, now_ns + MAX_RETRY_WAIT_NS),
        ).fetchall()
        urgent = {place for place, body in rows if _is_urgent(body)}
        until_any, until_urgent = (b.wait_ns(debt_ns) for b, debt_ns in zip(self._buckets, debts, strict=True))
        kept = self._buckets[1].available_count(debts[1])
        if kept:
            for place in list(urgent):
                urgent.update(_before(connection, place))
            _put_off(connection, urgent, now_ns)
        else:
            _put_off(connection, urgent, now_ns + min(until_any, until_urgent))
        _put_off(connection, {place for place, _ in rows} - urgent, now_ns + until_any)
        if kept == 1:
            self._collapse(connection, receiver, now_ns, urgent)

    def count_sent(self, connection: Connection, receiver: str, now_ns: int) -> None:
        """Note that one more notice is sent for the first time."""
        debts = list(self._debts(connection, receiver, now_ns))
        used = 0 if self._buckets[0].available_count(debts[0]) else 1
        debts[used] += self._buckets[used].step_ns
        wall = self._clock.wall()
        connection.execute(
            "INSERT INTO memories (receiver, key, value, at) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (receiver, key) DO UPDATE SET value = excluded.value, at = excluded.at",
            (receiver, _KEY, json.dumps({"updated_ns": now_ns, "debts_ns": debts}), wall),
        )

    def _debts(self, connection: Connection, receiver: str, now_ns: int) -> tuple[int, int]:
        row = connection.execute(
            "SELECT value, at FROM memories WHERE receiver = ? AND key = ?", (receiver, _KEY)
        ).fetchone()
        if row is None:
            return 0, 0
        try:
            kept = json.loads(row[0])
            passed_ns = now_ns - int(kept["updated_ns"])
            debts = [int(debt_ns) for debt_ns in kept["debts_ns"]]
        except (LookupError, TypeError, ValueError):
            return 0, 0
        if passed_ns < 0:  # another boot
            passed_ns = max(0, round((self._clock.wall() - float(row[1])) * SECOND_NS))
        general, reserve = self._buckets
        return general.remaining_debt_ns(debts[0], passed_ns), reserve.remaining_debt_ns(debts[-1], passed_ns)

    def _collapse(self, connection: Connection, receiver: str, now_ns: int, only: set[int] | None = None) -> None:
        pending = _pending(connection, receiver)
        taken: set[int] = set()
        if only is None and sum(row.alerts for row in pending) > MAX_DIGEST_ALERTS:
            urgent = {row.sequence for row in pending if not row.attempted and _is_urgent(row.body)}
            taken = _choose(pending, urgent.union(*(_before(connection, place) for place in urgent)), taken)
        chosen = _choose(pending, only, taken)
        # A damaged one is left to those who bury it.
        rows = [row for row in pending if row.sequence in chosen and row.is_readable(receiver)]
        if len(rows) < 2:  # noqa: PLR2004 - nothing to collapse
            return
        first, *rest = rows
        digest = make_digest([Notification.from_json_text(row.body) for row in rows])
        connection.executemany(
            "UPDATE notices SET state = 'merged', last_error = ?, ended = ? WHERE place = ?",
            [(f"merged into {digest.id}", self._clock.wall(), row.sequence) for row in rest],
        )
        body = json.dumps(digest.to_json(), separators=(",", ":"))
        connection.execute(
            "UPDATE notices SET rule = ?, body = ?, checksum = ?, status = ?, created_ns = ?, due_ns = ? "
            "WHERE place = ?",
            (
                digest.group_key,
                body,
                checksum(body),
                digest.status,
                rows[-1].created_ns,
                now_ns,
                first.sequence,
            ),
        )


def make_digest(notifications: Sequence[Notification]) -> Notification:
    """Return one notice that tells what `notifications` of any groups, oldest first, tell: the worst first, ends last.

    It keeps the id of the oldest. Notices of one group that have become one are that group's, and no digest.
    """
    merged = merge_notifications(notifications)
    if len({notification.group_key for notification in notifications}) == 1:
        return merged
    alerts = sorted(merged.alerts, key=lambda one: (one.resolved is not None, -one.severity, one.fired, one.rule))
    return replace(
        merged,
        group_key=DIGEST_GROUP_KEY,
        group_labels=(),
        reason=NotificationReason.DIGEST,
        reason_detail="",
        alerts=tuple(alerts),
    )


@dataclass(frozen=True, slots=True)
class _PendingNotification:
    """A pending notice: how many alerts it has, and what else may not overtake it."""

    sequence: int
    attempted: bool
    created_ns: int
    alerts: int
    ordering_keys: frozenset[str]
    id: str
    checksum: int | None
    body: str

    def is_readable(self, receiver: str) -> bool:
        return is_valid_body(self.body, self.checksum, self.id, receiver)


def _pending(connection: Connection, receiver: str) -> list[_PendingNotification]:
    rows = connection.execute(
        "SELECT place, attempts, created_ns, coalesce(json_array_length(body, '$.alerts'), 0), "
        "(SELECT json_group_array(lane) FROM lanes WHERE lanes.place = notices.place), id, checksum, body "
        "FROM notices WHERE state = 'pending' AND receiver = ? AND json_valid(body) ORDER BY place",
        (receiver,),
    )
    return [
        _PendingNotification(place, attempts > 0, created_ns, alerts, frozenset(json.loads(lanes)), id_, expected, body)
        for place, attempts, created_ns, alerts, lanes, id_, expected, body in rows
    ]


def _choose(rows: Sequence[_PendingNotification], only: set[int] | None, taken: set[int]) -> set[int]:
    # Adds to the places `taken` those of what can become one notice with them, in the place of the oldest, without
    # overtaking anything: in order, so that what is left for want of room comes after all that it could depend on.
    chosen, shut, opened = set(taken), set[str](), set[str]()
    room = MAX_DIGEST_ALERTS - sum(row.alerts for row in rows if row.sequence in taken)
    for row in rows:
        wanted = only is None or row.sequence in only or row.ordering_keys <= opened
        if row.sequence not in taken:
            if row.attempted or not wanted or row.ordering_keys & shut or room <= 0:
                shut |= row.ordering_keys
                continue
            chosen.add(row.sequence)
            room -= row.alerts
        opened |= row.ordering_keys
    return chosen


def _before(connection: Connection, place: int) -> set[int]:
    # What was never attempted and has to leave before the notice at `place`, or with it.
    rows = connection.execute(
        "SELECT DISTINCT earlier.place FROM lanes AS mine JOIN lanes AS earlier"
        " ON earlier.receiver = mine.receiver AND earlier.lane = mine.lane AND earlier.place < mine.place"
        " JOIN notices ON notices.place = earlier.place WHERE mine.place = ? AND attempts = 0",
        (place,),
    )
    return {earlier for (earlier,) in rows}


def _is_urgent(body: str) -> bool:
    try:
        document = json.loads(body)
        return _is_worse(document)
    except (AttributeError, LookupError, TypeError, ValueError):  # damaged: not for this module to say
        return False


def _is_worse(document: dict[str, Any]) -> bool:
    return document["reason"] in _NEWS and any(
        alert["resolved"] is None and alert["severity"] == Severity.CRITICAL for alert in document["alerts"]
    )


def _put_off(connection: Connection, places: Iterable[int], until_ns: int) -> None:
    connection.executemany("UPDATE notices SET due_ns = ? WHERE place = ?", [(until_ns, place) for place in places])
