"""What did not reach a receiver: read from the outbox for those who are told in its place."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from watchdog.alerts.alert import Alert
from watchdog.alerts.notice import Notice
from watchdog.notify import render
from watchdog.store.database import Database

_MOST_AT_ONCE = 500  # within one tick
_MOST_SEARCHED = 200
_MOST_NAMED = 3


def unheard(database: Database, receiver: str, place: int, since: float) -> tuple[int, Sequence[Notice]]:
    """Return the notices after `place` that wait for `receiver`, or were given up after `since` (wall clock).

    Oldest first, some hundred at most, with the place after which to go on. Those merged into one that waits count too:
    what is read must not depend on when they were.

    Raises:
        StoreError: the outbox can't be read.
    """
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT place, body FROM notices WHERE place > ? AND receiver = ? "
            "AND (state = 'pending' OR (state IN ('dead', 'merged') AND ended >= ?)) ORDER BY place LIMIT ?",
            (place, receiver, since, _MOST_AT_ONCE),
        ).fetchall()
        newest: int = connection.execute("SELECT coalesce(max(place), 0) FROM notices").fetchone()[0]
    return (rows[-1][0] if len(rows) == _MOST_AT_ONCE else newest), [
        Notice.from_json(json.loads(body)) for _, body in rows
    ]


def in_words(database: Database, receiver: str) -> str:
    """Return for people how much waits for `receiver`, and the worst of it.

    Raises:
        StoreError: the outbox can't be read.
    """
    with database.transaction() as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM notices WHERE state = 'pending' AND receiver = ?", (receiver,)
        ).fetchone()
        rows = connection.execute(
            "SELECT body FROM notices WHERE state = 'pending' AND receiver = ? ORDER BY place DESC LIMIT ?",
            (receiver, _MOST_SEARCHED),
        ).fetchall()
    if not count:
        return "no notice waits for it"
    newest: dict[str, tuple[Alert, Notice]] = {}
    for notice in _notices(body for (body,) in rows):
        for alert in notice.alerts:
            newest.setdefault(alert.fingerprint, (alert, notice))
    worst = sorted(newest.values(), key=lambda pair: (pair[0].resolved is not None, -pair[0].severity))
    told = [render.alert_title(alert, notice) for alert, notice in worst[:_MOST_NAMED]]
    return f"{count} {'notice waits' if count == 1 else 'notices wait'} for it, the worst: {'; '.join(told)}"


def _notices(bodies: Iterable[str]) -> Iterator[Notice]:
    for body in bodies:
        try:
            yield Notice.from_json(json.loads(body))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            continue  # damaged on disk: it is given up when its turn comes
