"""Looking into the state file without holding up who writes it, or when there is no daemon."""

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
    """What can be read in a transaction: a `Database`, or a `StateReader`."""

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Run the block in one transaction."""
        ...


class StateReader:
    """A state file that is read, never written; opened anew each time, so that it holds nothing in between."""

    def __init__(self, path: Path) -> None:
        """Read the file at `path`."""
        self._path = path

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the block on one state of the file, whatever is written meanwhile.

        Raises:
            StoreError: it is not there, or cannot be read.
        """
        try:
            if not self._path.is_file():
                raise StoreError(f"no state file {self._path}")
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
        # Without a log beside it nobody has the file open. To say so leaves no trace, and needs no right to write; of
        # who opens it right now, the first transactions go to the log.
        alone = "" if self._path.with_name(f"{self._path.name}-wal").exists() else "&immutable=1"
        return f"file:{urllib.parse.quote(str(self._path))}?mode=ro{alone}"
