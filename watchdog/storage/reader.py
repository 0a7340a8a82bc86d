"""Read the state file without blocking the daemon that writes it, or without a daemon."""

from __future__ import annotations

import contextlib
import sqlite3
import urllib.parse
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from watchdog.errors import StoreError

_BUSY_SECONDS = 2.0


class ReadableDatabase(Protocol):
    """Anything that can be read in a transaction: a `Database` or a `StateReader`."""

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Run the block in one transaction."""
        ...


class StateReader:
    """A state file that is only read; it is opened for each transaction, and holds no lock in between."""

    def __init__(self, path: Path) -> None:
        """Read the file at `path`."""
        self._path = path

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the block on one consistent state of the file, also while it is written.

        Raises:
            StoreError: it is missing, or cannot be read.
        """
        try:
            if not self._path.is_file():
                raise StoreError(f"there is no state file {self._path}")
            connection = sqlite3.connect(self._address(), uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                connection.close()
        except (OSError, sqlite3.Error) as error:
            text = error.strerror if isinstance(error, OSError) else error
            raise StoreError(f"cannot read {self._path}: {text}") from error

    def _address(self) -> str:
        # Without a WAL beside it no process has the file open. `immutable` then creates no files and needs no write
        # permission. A process that opens the file now writes its first transactions to the WAL.
        alone = "" if self._path.with_name(f"{self._path.name}-wal").exists() else "&immutable=1"
        return f"file:{urllib.parse.quote(str(self._path))}?mode=ro{alone}"
