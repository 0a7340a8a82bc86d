"""The limit on notifications of one receiver: excess notifications are combined into a digest, none is discarded.

While only one more notification may be sent, all pending ones are combined into it: the newest state of every alert, of
several groups. While none may be sent, pending ones are deferred, except urgent ones as long as the reserve for
critical alerts lasts. A repeated attempt costs nothing and is never deferred.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from sqlite3 import Connection
from typing import Final

from watchdog.clock import SECOND_NS, Clock
from watchdog.routing.notification import Notification, NotificationReason
from watchdog.rules.language.rule import Severity
from watchdog.state import outbox_rows
from watchdog.state.digest import make_digest
from watchdog.state.outbox_rows import PendingNotification
from watchdog.state.rate_limit import RateLimit
from watchdog.state.receiver_state import read_value, write_value

MAX_DIGEST_ALERTS: Final = 40  # alerts of one digest: so many one message shows; the rest goes into the next digest
_KEY: Final = "rate_limit"  # in the table `receiver_state`
_URGENT_REASONS: Final = frozenset(
    (
        NotificationReason.FIRST,
        NotificationReason.NEW_ALERT,
        NotificationReason.SEVERITY_CHANGED,
        NotificationReason.RELEASED,
        NotificationReason.ESCALATED,
    )
)


class RateLimiter:
    """Keeps the notifications of one receiver within its limit. Its use is in the state file and survives a restart."""

    def __init__(self, rate_limit: RateLimit, clock: Clock) -> None:
        """Apply `rate_limit`; `clock` measures the downtime of the host."""
        self._buckets = (rate_limit.shared_bucket, rate_limit.critical_bucket)
        self._clock = clock

    def defer_excess(self, connection: Connection, receiver: str, now_ns: int) -> None:
        """Leave due only the notifications that may be sent now, combined into a digest if they would be too many."""
        debts = self._debts(connection, receiver, now_ns)
        left = self._buckets[0].available_count(debts[0])
        if left == 1:
            self._combine(connection, receiver, now_ns)
        elif left == 0:
            self._defer_all_but_urgent(connection, receiver, now_ns, debts)

    def count_sent(self, connection: Connection, receiver: str, now_ns: int) -> None:
        """Count one more notification that is sent for the first time."""
        debts = list(self._debts(connection, receiver, now_ns))
        used = 0 if self._buckets[0].available_count(debts[0]) else 1
        debts[used] += self._buckets[used].step_ns
        value = json.dumps({"updated_ns": now_ns, "debts_ns": debts})
        write_value(connection, receiver, _KEY, value, self._clock.wall())

    def _defer_all_but_urgent(self, connection: Connection, receiver: str, now_ns: int, debts: tuple[int, int]) -> None:
        # Each notification is examined once: when it is new, or when it becomes due again.
        rows = outbox_rows.read_due_unattempted(connection, receiver, now_ns)
        urgent = {sequence for sequence, reason, body in rows if _is_urgent(reason, body)}
        wait_ns, urgent_wait_ns = (b.wait_ns(debt_ns) for b, debt_ns in zip(self._buckets, debts, strict=True))
        reserve = self._buckets[1].available_count(debts[1])
        if reserve:
            for sequence in list(urgent):
                urgent.update(outbox_rows.unattempted_before(connection, sequence))
            outbox_rows.defer(connection, urgent, now_ns)
        else:
            outbox_rows.defer(connection, urgent, now_ns + min(wait_ns, urgent_wait_ns))
        outbox_rows.defer(connection, {sequence for sequence, _, _ in rows} - urgent, now_ns + wait_ns)
        if reserve == 1:
            self._combine(connection, receiver, now_ns, urgent)

    def _debts(self, connection: Connection, receiver: str, now_ns: int) -> tuple[int, int]:
        saved = read_value(connection, receiver, _KEY)
        if saved is None:
            return 0, 0
        value, updated = saved
        try:
            document = json.loads(value)
            elapsed_ns = now_ns - int(document["updated_ns"])
            debts = [int(debt_ns) for debt_ns in document["debts_ns"]]
        except (LookupError, TypeError, ValueError):
            return 0, 0
        if elapsed_ns < 0:  # another boot
            elapsed_ns = max(0, round((self._clock.wall() - updated) * SECOND_NS))
        shared, critical = self._buckets
        return shared.remaining_debt_ns(debts[0], elapsed_ns), critical.remaining_debt_ns(debts[-1], elapsed_ns)

    def _combine(self, connection: Connection, receiver: str, now_ns: int, only: set[int] | None = None) -> None:
        pending = outbox_rows.read_pending(connection, receiver)
        taken: set[int] = set()
        if only is None and sum(row.alert_count for row in pending) > MAX_DIGEST_ALERTS:
            urgent = {row.sequence for row in pending if not row.was_attempted and _is_urgent(row.reason, row.body)}
            before = (outbox_rows.unattempted_before(connection, sequence) for sequence in urgent)
            taken = _choose(pending, urgent.union(*before), taken)
        chosen = _choose(pending, only, taken)
        # A damaged one stays: `begin_attempt` discards it when its turn comes.
        rows = [row for row in pending if row.sequence in chosen and row.is_valid(receiver)]
        if len(rows) < 2:  # noqa: PLR2004 - nothing to combine
            return
        first, *rest = rows
        digest = make_digest([Notification.from_json_text(row.body) for row in rows])
        outbox_rows.mark_merged(connection, [row.sequence for row in rest], digest.id, self._clock.wall())
        outbox_rows.replace_notification(connection, first.sequence, digest, rows[-1].created_ns, now_ns)


def _choose(rows: Sequence[PendingNotification], only: set[int] | None, taken: set[int]) -> set[int]:
    # Adds to the sequences `taken` those that can become one notification with them, in place of the oldest, without
    # overtaking any other: in order, so that one left out for lack of space follows all that it could depend on.
    chosen, closed, opened = set(taken), set[str](), set[str]()
    room = MAX_DIGEST_ALERTS - sum(row.alert_count for row in rows if row.sequence in taken)
    for row in rows:
        wanted = only is None or row.sequence in only or row.ordering_keys <= opened
        if row.sequence not in taken:
            if row.was_attempted or not wanted or row.ordering_keys & closed or room <= 0:
                closed |= row.ordering_keys
                continue
            chosen.add(row.sequence)
            room -= row.alert_count
        opened |= row.ordering_keys
    return chosen


def _is_urgent(reason: str, body: str) -> bool:
    # News of a critical alert that fires.
    if reason not in _URGENT_REASONS:
        return False
    try:
        alerts = json.loads(body)["alerts"]
        return any(alert["resolved"] is None and alert["severity"] == Severity.CRITICAL for alert in alerts)
    except (AttributeError, LookupError, TypeError, ValueError):
        return False  # damaged
