"""Lost notifications, counted by receiver and cause in the transaction that gives them up.

The counts are therefore exact, and survive a restart. The table `losses` is their only source.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from sqlite3 import Connection


class LossCause(enum.StrEnum):
    """Cause for which a notification was given up for good; the values are stored in the state file."""

    CAPACITY = "capacity"
    """The outbox was full, and the notification was dropped to make room (`capacity.py`)."""
    EXPIRED = "expired"
    """It reported only firing alerts and was not delivered for 24 hours."""
    REFUSED = "refused"
    """The receiver refused it, and another attempt would not help."""
    RECEIVER_REMOVED = "receiver_removed"
    """Its receiver is not configured any more."""
    DAMAGED = "damaged"
    """Its text in the state file does not match its checksum."""
    DEFECT = "defect"
    """A defect of this program prevented every attempt."""


def count_loss(connection: Connection, receiver: str, cause: LossCause, count: int = 1) -> None:
    """Add `count` lost notifications of `receiver`; a negative count takes back an earlier loss."""
    if count:
        connection.execute(
            "INSERT INTO losses (receiver, cause, count) VALUES (?, ?, ?) "
            "ON CONFLICT (receiver, cause) DO UPDATE SET count = count + excluded.count",
            (receiver, cause.value, count),
        )


def count_by_receiver(connection: Connection) -> Mapping[str, int]:
    """Return the number of lost notifications of all causes by receiver."""
    return dict(connection.execute("SELECT receiver, sum(count) FROM losses GROUP BY receiver").fetchall())


def read_losses(connection: Connection) -> Mapping[tuple[str, LossCause], int]:
    """Return the number of lost notifications by (receiver, cause), ordered by both."""
    rows = connection.execute("SELECT receiver, cause, count FROM losses WHERE count > 0 ORDER BY receiver, cause")
    return {(receiver, LossCause(cause)): count for receiver, cause, count in rows}
