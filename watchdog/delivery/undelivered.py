"""Notifications that did not reach a receiver, read from the outbox for escalation and the local log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from watchdog.alerts.alert import Alert
from watchdog.clock import boot_id
from watchdog.errors import DocumentError
from watchdog.receivers.render import notification_text
from watchdog.routing.notification import Notification
from watchdog.state import audit
from watchdog.storage.database import Database

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
    last_sequence, bodies = audit.read_undelivered(database, receiver, after_sequence, since)
    return last_sequence, list(_parse_notifications(bodies))


def describe_queue(database: Database, receiver: str) -> str:
    """Return a text with the number of notifications pending for `receiver` and the most severe alerts in them.

    Raises:
        StoreError: the outbox can't be read.
    """
    count, bodies = audit.read_newest_pending(database, receiver)
    if not count:
        return "no notification is pending"
    newest: dict[str, tuple[Alert, Notification]] = {}
    for notification in _parse_notifications(bodies):
        for alert in notification.alerts:
            newest.setdefault(alert.fingerprint, (alert, notification))
    worst = sorted(newest.values(), key=lambda pair: (pair[0].resolved is not None, -pair[0].severity))
    titles = [notification_text.alert_title(alert, notification) for alert, notification in worst[:_MAX_NAMED]]
    noun = "notification" if count == 1 else "notifications"
    return f"{count} {noun} pending, the most severe: {'; '.join(titles)}"


def _parse_notifications(bodies: Iterable[str]) -> Iterator[Notification]:
    for body in bodies:
        try:
            notification = Notification.from_json_text(body)
        except DocumentError:
            continue  # damaged on disk: the outbox discards and counts it when its turn comes
        yield notification if notification.boot_id == boot_id() else notification.without_boottimes()
