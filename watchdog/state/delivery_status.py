"""Which receivers are not reached: known from what became of their notices."""

from __future__ import annotations

from collections.abc import Iterable

from watchdog.clock import SECOND_NS, Clock
from watchdog.storage.reader import ReadableDatabase

MAX_PENDING_SECONDS = 900.0  # of a notice, until its receiver counts as not reached


def delivery_problems(database: ReadableDatabase, receivers: Iterable[str], clock: Clock) -> list[str]:
    """Return a line, without secrets, for each of `receivers` that is not reached.

    Either its oldest notice waits for too long, or the last that ended was given up: until one gets through, nobody
    knows that the next would.

    Raises:
        StoreError: the file can't be read.
    """
    now_ns = clock.boottime_ns()
    found = []
    with database.transaction() as connection:
        for receiver in receivers:
            (oldest_ns,) = connection.execute(
                "SELECT min(created_ns) FROM notices WHERE state = 'pending' AND receiver = ?", (receiver,)
            ).fetchone()
            last = connection.execute(
                "SELECT state, last_error FROM notices WHERE receiver = ? AND state IN ('done', 'dead') "
                "ORDER BY ended DESC, place DESC LIMIT 1",
                (receiver,),
            ).fetchone()
            waits = 0.0 if oldest_ns is None else (now_ns - oldest_ns) / SECOND_NS
            if waits > MAX_PENDING_SECONDS:
                found.append(f"receiver {receiver}: a notice waits for {waits:.0f} s")
            elif last is not None and last[0] == "dead":
                found.append(f"receiver {receiver}: its last notice was given up: {last[1]}")
    return found
