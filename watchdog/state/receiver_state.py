"""What receivers keep in the state file, each under its own name."""

from __future__ import annotations

from watchdog.clock import Clock
from watchdog.storage.database import Database


class StoredReceiverState:
    """The memory of one receiver, safe from crashes. Every method is one transaction."""

    def __init__(self, database: Database, receiver: str, clock: Clock) -> None:
        """Keep what `receiver` knows in `database`."""
        self._database = database
        self._receiver = receiver
        self._clock = clock

    def get(self, key: str) -> str | None:
        """Return what was kept under `key`, None if nothing was.

        Raises:
            StoreError: it can't be read.
        """
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT value FROM memories WHERE receiver = ? AND key = ?", (self._receiver, key)
            ).fetchone()
        return None if row is None else str(row[0])

    def put(self, key: str, value: str | None) -> None:
        """Keep `value` under `key`, None to forget; on disk when this returns.

        Raises:
            StoreError: it can't be written.
        """
        with self._database.transaction() as connection:
            if value is None:
                connection.execute("DELETE FROM memories WHERE receiver = ? AND key = ?", (self._receiver, key))
            else:
                connection.execute(
                    "INSERT INTO memories (receiver, key, value, at) VALUES (?, ?, ?, ?) ON CONFLICT (receiver, key) "
                    "DO UPDATE SET value = excluded.value, at = excluded.at",
                    (self._receiver, key, value, self._clock.wall()),
                )
