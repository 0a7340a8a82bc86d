"""Values that receivers keep in the state file, each receiver under its own name."""

from __future__ import annotations

from sqlite3 import Connection

from watchdog.clock import Clock
from watchdog.errors import StoreError
from watchdog.storage.database import Database


class StoredReceiverState:
    """The state of one receiver, safe from crashes. Every method is one transaction."""

    def __init__(self, database: Database, receiver: str, clock: Clock) -> None:
        """Keep the values of `receiver` in `database`."""
        self._database = database
        self._receiver = receiver
        self._clock = clock

    def get(self, key: str) -> str | None:
        """Return the value of `key`, None if there is none.

        Raises:
            StoreError: the file cannot be read.
        """
        with self._database.transaction() as connection:
            row = read_value(connection, self._receiver, key)
        return None if row is None else row[0]

    def put(self, key: str, value: str | None) -> None:
        """Set `key` to `value`, None to delete it; it is on disk when this returns.

        Raises:
            StoreError: the file cannot be written.
        """
        with self._database.transaction() as connection:
            if value is None:
                connection.execute("DELETE FROM receiver_state WHERE receiver = ? AND key = ?", (self._receiver, key))
            else:
                write_value(connection, self._receiver, key, value, self._clock.wall())


class ReceiverStates:
    """The states of all receivers, in the state file.

    Receivers are built when the configuration is read, before the state file is opened. Until `attach`, each access
    fails with `StoreError`.
    """

    def __init__(self, clock: Clock) -> None:
        """Start without a state file."""
        self._clock = clock
        self._database: Database | None = None

    def attach(self, database: Database) -> None:
        """Use `database` from now on."""
        self._database = database

    def open(self, receiver: str) -> AttachedReceiverState:
        """Return the state of `receiver`."""
        return AttachedReceiverState(self, receiver)

    def stored(self, receiver: str) -> StoredReceiverState:
        """Return the stored state of `receiver`.

        Raises:
            StoreError: no state file is attached.
        """
        if self._database is None:
            raise StoreError(f"cannot use the receiver state: the state file is not open: receiver={receiver}")
        return StoredReceiverState(self._database, receiver, self._clock)


class AttachedReceiverState:
    """The state of one receiver, in the state file that is attached to `ReceiverStates` at that time."""

    def __init__(self, states: ReceiverStates, receiver: str) -> None:
        """Use the entries of `receiver`."""
        self._states = states
        self._receiver = receiver

    def get(self, key: str) -> str | None:
        """Return the value stored under `key`, None if there is none.

        Raises:
            StoreError: the state file cannot be read, or is not open.
        """
        return self._states.stored(self._receiver).get(key)

    def put(self, key: str, value: str | None) -> None:
        """Store `value` under `key`; None deletes the entry. The change is on disk when this returns.

        Raises:
            StoreError: the state file cannot be written, or is not open.
        """
        self._states.stored(self._receiver).put(key, value)


def read_value(connection: Connection, receiver: str, key: str) -> tuple[str, float] | None:
    """Return the value of `key` and the wall-clock second of its last change, None if there is none."""
    row = connection.execute(
        "SELECT value, updated FROM receiver_state WHERE receiver = ? AND key = ?", (receiver, key)
    ).fetchone()
    return None if row is None else (str(row[0]), float(row[1]))


def write_value(connection: Connection, receiver: str, key: str, value: str, wall: float) -> None:
    """Set `key` to `value`, changed at the wall-clock second `wall`."""
    connection.execute(
        "INSERT INTO receiver_state (receiver, key, value, updated) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (receiver, key) DO UPDATE SET value = excluded.value, updated = excluded.updated",
        (receiver, key, value, wall),
    )
