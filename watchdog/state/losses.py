"""Notices that were given up, counted by receiver and cause in the transaction that gives them up.

So the counts are exact, and outlive a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from sqlite3 import Connection


def count_loss(connection: Connection, receiver: str, cause: str, count: int = 1) -> None:
    """Count `number` more notices for `receiver` as lost by `cause`."""
    if count:
        connection.execute(
            "INSERT INTO losses (receiver, cause, count) VALUES (?, ?, ?) "
            "ON CONFLICT (receiver, cause) DO UPDATE SET count = count + excluded.count",
            (receiver, cause, count),
        )


def read_losses(connection: Connection) -> Mapping[tuple[str, str], int]:
    """Return the counts by (receiver, cause)."""
    rows = connection.execute("SELECT receiver, cause, count FROM losses WHERE count > 0 ORDER BY receiver, cause")
    return {(receiver, cause): number for receiver, cause, number in rows}
