"""The silences and acknowledgements of people, in the state file: they survive restarts and reboots."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from sqlite3 import Connection
from typing import Final

from watchdog.alerts.alert import Alert
from watchdog.errors import DocumentError, StoreError, UsageError
from watchdog.routing.silencing import Silence
from watchdog.routing.suppression import Suppression
from watchdog.state.documents import dump_document, load_document
from watchdog.storage.checksum import checksum
from watchdog.storage.database import Database

MAX_SILENCES: Final = 500
_ID_CHARACTERS: Final = 8


class Silences:
    """All silences in force. Any thread may call every method; a change is on disk when its call returns."""

    def __init__(self, database: Database, save_clocks: Callable[[Connection], None]) -> None:
        """Read the silences of a former daemon.

        `save_clocks`: records the clocks of this boot in the transaction of a silence: its end is by CLOCK_BOOTTIME.

        Raises:
            StoreError: the file cannot be read.
        """
        self._database = database
        self._save_clocks = save_clocks
        self._lock = threading.Lock()  # held while one of them changes
        with database.transaction() as connection:
            self._silences = {silence.id: silence for silence in _read(connection)}

    @property
    def current(self) -> tuple[Silence, ...]:
        """Return the silences in force, oldest first. Never blocks."""
        return tuple(self._silences.values())

    def add(self, silence: Silence) -> Silence:
        """Store `silence` under a new id; return it with this id.

        Raises:
            UsageError: there are `MAX_SILENCES` already.
            StoreError: the file cannot be written.
        """
        with self._lock:
            if len(self._silences) >= MAX_SILENCES:
                raise UsageError(f"there are {MAX_SILENCES} silences already", remedy="expire some of them")
            added = replace(silence, id=self._new_id())
            with self._database.transaction() as connection:
                _write(connection, added)
                self._save_clocks(connection)
            self._silences = {**self._silences, added.id: added}
            return added

    def expire(self, silence_id: str) -> Silence | None:
        """End a silence now; return it, None if there is no such one.

        Raises:
            StoreError: the file cannot be written.
        """
        with self._lock:
            silence = self._silences.get(silence_id)
            if silence is not None:
                with self._database.transaction() as connection:
                    _delete(connection, silence_id)
                self._forget(silence_id)
            return silence

    def end_due(self, firing: Mapping[str, Alert], now_ns: int) -> list[Silence]:
        """End the silences past their time, and acknowledgements of alerts that are not in `firing`; return them.

        `firing`: the firing alerts, by fingerprint. If the file cannot be written, the next daemon ends them again.
        """
        ended = [silence for silence in self._silences.values() if silence.has_ended(firing, now_ns)]
        if ended:
            with self._lock:
                self._forget(*(silence.id for silence in ended))
                with contextlib.suppress(StoreError), self._database.transaction() as connection:
                    for silence in ended:
                        _delete(connection, silence.id)
        return ended

    def add_withheld(self, counts: Mapping[Suppression, int]) -> None:
        """Add to the numbers of withheld notifications. After a failure the file has them with the next change."""
        with self._lock:
            changed = [
                replace(silence, withheld=silence.withheld + counts[silence.suppression])
                for silence in self._silences.values()
                if silence.suppression in counts
            ]
            if not changed:
                return
            self._silences = {**self._silences, **{silence.id: silence for silence in changed}}
            with contextlib.suppress(StoreError), self._database.transaction() as connection:
                for silence in changed:
                    _write(connection, silence)

    def write_all(self) -> None:
        """Write all silences again, for a recreated state file. A failure is reported elsewhere, by the commit."""
        with self._lock, contextlib.suppress(StoreError), self._database.transaction() as connection:
            for silence in self._silences.values():
                _write(connection, silence)

    def _forget(self, *ids: str) -> None:
        self._silences = {key: silence for key, silence in self._silences.items() if key not in ids}

    def _new_id(self) -> str:
        while (new := uuid.uuid4().hex[:_ID_CHARACTERS]) in self._silences:
            pass
        return new


def shift_silences(connection: Connection, boottime_shift_ns: int) -> None:
    """Move the ends of all silences to another boot."""
    connection.execute("UPDATE silences SET ends_ns = ends_ns + ? WHERE ends_ns IS NOT NULL", (boottime_shift_ns,))


def _read(connection: Connection) -> Iterator[Silence]:
    rows = connection.execute("SELECT document, checksum, ends_ns, withheld FROM silences ORDER BY rowid").fetchall()
    for text, expected, ends_ns, withheld in rows:
        with contextlib.suppress(DocumentError):  # damaged: its alerts are notified of again
            yield Silence.from_json(load_document(text, expected), ends_ns, withheld)


def _write(connection: Connection, silence: Silence) -> None:
    text = dump_document(silence.to_json())
    connection.execute(
        "INSERT INTO silences (id, ends_ns, withheld, document, checksum) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET ends_ns = excluded.ends_ns, withheld = excluded.withheld",
        (silence.id, silence.ends_ns, silence.withheld, text, checksum(text)),
    )


def _delete(connection: Connection, silence_id: str) -> None:
    connection.execute("DELETE FROM silences WHERE id = ?", (silence_id,))
