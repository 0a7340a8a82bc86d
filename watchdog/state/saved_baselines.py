"""Learnt baselines in the state file: parts of each rule, written one by one, and the secret of their keys.

They have their own transactions, and less room than alerts and notifications: a full disk costs learnt limits first.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from sqlite3 import Connection
from typing import Final

from watchdog.clock import Clock
from watchdog.rules.engine.baseline_blobs import BaselinePart
from watchdog.storage.database import Database

MAX_BYTES: Final = 8 * 1024 * 1024  # of all parts; 250,000 groups
_MAX_SECONDS = 28 * 24 * 3600  # a part that no daemon wrote for so long is deleted: its rule is gone


class SavedBaselines:
    """The tables of baselines."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Use `database`."""
        self._database = database
        self._clock = clock

    def load(self) -> tuple[bytes | None, list[BaselinePart]]:
        """Return the secret, None without one, and the intact parts made with it.

        Raises:
            StoreError: the file cannot be read.
        """
        with self._database.transaction() as connection:
            secret = connection.execute("SELECT secret FROM baseline_secret").fetchone()
            rows = connection.execute(
                "SELECT rule, digest, part, parts, content, checksum FROM baselines ORDER BY rule, part"
            ).fetchall()
        if secret is None:
            return None, []
        parts = [BaselinePart(*values) for *values, checksum in rows if zlib.crc32(values[-1]) == checksum]
        return bytes(secret[0]), parts

    def save(self, secret: bytes, parts: Iterable[BaselinePart]) -> int:
        """Write `parts` in one transaction; return the number of those without room, which are deleted.

        Raises:
            StoreError: the disk is full, or the file cannot be written.
        """
        refused = 0
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO baseline_secret SELECT ? WHERE NOT EXISTS (SELECT * FROM baseline_secret)", (secret,)
            )
            connection.execute("DELETE FROM baselines WHERE saved < ?", (self._clock.wall() - _MAX_SECONDS,))
            for part in parts:
                refused += not self._write(connection, part)
        return refused

    def _write(self, connection: Connection, part: BaselinePart) -> bool:
        connection.execute(
            "DELETE FROM baselines WHERE rule = ? AND (part = ? OR part >= ?)", (part.rule, part.number, part.parts)
        )
        used = connection.execute("SELECT coalesce(sum(length(content)), 0) FROM baselines").fetchone()[0]
        if used + len(part.content) > MAX_BYTES:
            return False
        connection.execute(
            "INSERT INTO baselines (rule, part, parts, digest, saved, checksum, content) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                part.rule,
                part.number,
                part.parts,
                part.digest,
                self._clock.wall(),
                zlib.crc32(part.content),
                part.content,
            ),
        )
        return True
