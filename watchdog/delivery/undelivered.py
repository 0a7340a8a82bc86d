"""What did not reach a receiver: read from the outbox for those who are told in its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from sqlite3 import Connection

from watchdog.alerts.alert import Alert
from watchdog.errors import DocumentError
from watchdog.receivers.render import notification_text
from watchdog.routing.notification import Notification
from watchdog.storage.database import Database

_MOST_AT_ONCE = 500  # notices within one tick …
_MOST_CHARACTERS = 2_000_000  # … and so much of them, beyond the first
_MOST_SEARCHED = 200
_MOST_NAMED = 3


def undelivered_notifications(
    database: Database, receiver: str, after_sequence: int, since: float
) -> tuple[int, Sequence[Notification]]:
    """Return the notices after `place` that wait for `receiver`, or were given up after `since` (wall clock).

    Oldest first, some hundred at most, with the place after which to go on. Those merged into one that waits count too:
    what is read must not depend on when they were.

    Raises:
        StoreError: the outbox can't be read.
    """
    with database.transaction() as connection:
        rows, all_read = _some(
            connection,
            "SELECT place, body FROM notices WHERE place > ? AND receiver = ? "
            "AND (state = 'pending' OR (state IN ('dead', 'merged') AND ended >= ?)) ORDER BY place LIMIT ?",
            # What comes after a place that is known came in this outage, whatever the wall clock did meanwhile.
            (after_sequence, receiver, 0.0 if after_sequence else since, _MOST_AT_ONCE),
        )
        newest: int = connection.execute("SELECT coalesce(max(place), 0) FROM notices").fetchone()[0]
    whole = all_read and len(rows) < _MOST_AT_ONCE
    return (newest if whole else rows[-1][0]), list(_notices(body for _, body in rows))


def describe_queue(database: Database, receiver: str) -> str:
    """Return for people how much waits for `receiver`, and the worst of it.

    Raises:
        StoreError: the outbox can't be read.
    """
    with database.transaction() as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM notices WHERE state = 'pending' AND receiver = ?", (receiver,)
        ).fetchone()
        rows, _ = _some(
            connection,
            "SELECT place, body FROM notices WHERE state = 'pending' AND receiver = ? ORDER BY place DESC LIMIT ?",
            (receiver, _MOST_SEARCHED),
        )
    if not count:
        return "no notice waits for it"
    newest: dict[str, tuple[Alert, Notification]] = {}
    for notification in _notices(body for _, body in rows):
        for alert in notification.alerts:
            newest.setdefault(alert.fingerprint, (alert, notification))
    worst = sorted(newest.values(), key=lambda pair: (pair[0].resolved is not None, -pair[0].severity))
    told = [notification_text.alert_title(alert, notification) for alert, notification in worst[:_MOST_NAMED]]
    return f"{count} {'notice waits' if count == 1 else 'notices wait'} for it, the worst: {'; '.join(told)}"


def _some(connection: Connection, query: str, values: Sequence[object]) -> tuple[list[tuple[int, str]], bool]:
    # Rows of (place, body) for as long as it is worth a tick's time, at least one; and whether these are all.
    rows: list[tuple[int, str]] = []
    characters = 0
    for row in connection.execute(query, values):
        if rows and characters + len(row[1]) > _MOST_CHARACTERS:
            return rows, False
        rows.append(row)
        characters += len(row[1])
    return rows, True


def _notices(bodies: Iterable[str]) -> Iterator[Notification]:
    for body in bodies:
        try:
            yield Notification.from_json_text(body)
        except DocumentError:
            continue  # damaged on disk: it is given up when its turn comes
