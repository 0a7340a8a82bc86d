"""Notifications that did not reach a receiver, read from the outbox for escalation and the local log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from sqlite3 import Connection

from watchdog.alerts.alert import Alert
from watchdog.errors import DocumentError
from watchdog.receivers.render import notification_text
from watchdog.routing.notification import Notification
from watchdog.storage.database import Database

_MAX_ROWS = 500  # read within one tick
_MAX_CHARACTERS = 2_000_000  # of their bodies; the first row is read whatever its size
_MAX_SEARCHED = 200  # rows among which the most severe alerts are looked for
_MAX_NAMED = 3


def undelivered_notifications(
    database: Database, receiver: str, after_sequence: int, since: float
) -> tuple[int, Sequence[Notification]]:
    """Return (last_sequence, notifications) for `receiver`: pending now, or failed or merged at `since` or later.

    Notifications with a sequence above `after_sequence`, oldest first, at most 500. The next call begins after
    `last_sequence`. `since`: wall clock. Merged ones count: the result must not depend on the time of the merge.

    Raises:
        StoreError: the outbox can't be read.
    """
    with database.transaction() as connection:
        rows, all_read = _read_rows(
            connection,
            "SELECT place, body FROM notices WHERE place > ? AND receiver = ? "
            "AND (state = 'pending' OR (state IN ('dead', 'merged') AND ended >= ?)) ORDER BY place LIMIT ?",
            # Rows after a known sequence belong to this outage, even if the wall clock was set meanwhile.
            (after_sequence, receiver, 0.0 if after_sequence else since, _MAX_ROWS),
        )
        newest: int = connection.execute("SELECT coalesce(max(place), 0) FROM notices").fetchone()[0]
    complete = all_read and len(rows) < _MAX_ROWS
    return (newest if complete else rows[-1][0]), list(_parse_notifications(body for _, body in rows))


def describe_queue(database: Database, receiver: str) -> str:
    """Return a text with the number of notifications pending for `receiver` and the most severe alerts in them.

    Raises:
        StoreError: the outbox can't be read.
    """
    with database.transaction() as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM notices WHERE state = 'pending' AND receiver = ?", (receiver,)
        ).fetchone()
        rows, _ = _read_rows(
            connection,
            "SELECT place, body FROM notices WHERE state = 'pending' AND receiver = ? ORDER BY place DESC LIMIT ?",
            (receiver, _MAX_SEARCHED),
        )
    if not count:
        return "no notification is pending"
    newest: dict[str, tuple[Alert, Notification]] = {}
    for notification in _parse_notifications(body for _, body in rows):
        for alert in notification.alerts:
            newest.setdefault(alert.fingerprint, (alert, notification))
    worst = sorted(newest.values(), key=lambda pair: (pair[0].resolved is not None, -pair[0].severity))
    titles = [notification_text.alert_title(alert, notification) for alert, notification in worst[:_MAX_NAMED]]
    noun = "notification" if count == 1 else "notifications"
    return f"{count} {noun} pending, the most severe: {'; '.join(titles)}"


def _read_rows(connection: Connection, query: str, values: Sequence[object]) -> tuple[list[tuple[int, str]], bool]:
    # Rows of (sequence, body), limited so that they cost little of a tick, but at least one; and whether these are all.
    rows: list[tuple[int, str]] = []
    characters = 0
    for row in connection.execute(query, values):
        if rows and characters + len(row[1]) > _MAX_CHARACTERS:
            return rows, False
        rows.append(row)
        characters += len(row[1])
    return rows, True


def _parse_notifications(bodies: Iterable[str]) -> Iterator[Notification]:
    for body in bodies:
        try:
            yield Notification.from_json_text(body)
        except DocumentError:
            continue  # damaged on disk: the outbox discards and counts it when its turn comes
