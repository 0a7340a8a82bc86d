"""Room taken from the disk at once, so that the state file goes on when the disk is full.

Pages are written once and let go of: SQLite keeps them in the file and uses them before it would grow it. The log
beside it (WAL) is made as long as it will be; it stays (`Database`). On file systems that never write to the same
place twice (btrfs, zfs) nothing can be reserved this way.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from sqlite3 import Connection

from watchdog.errors import StoreError
from watchdog.storage.database import Database
from watchdog.storage.opening import MAX_FILE_PAGES, MAX_WAL_PAGES, PAGE_BYTES
from watchdog.storage.schema import BALLAST

_CHUNK_PAGES = MAX_WAL_PAGES - 64  # within the log, with what else a transaction writes
MIN_FREE_BYTES = 2 * 1024 * 1024  # kept free in a file that can't grow

_FEW_PAGES = 8  # that a row of a single page needs around it


def reserve_space(database: Database) -> None:
    """Let the file and its log take all the room that they may ever need; nothing is done when they have it.

    Raises:
        StoreError: the disk has not enough. What was taken stays the file's.
    """
    try:
        if _bytes_of(Path(f"{database.path}-wal")) < MAX_WAL_PAGES * PAGE_BYTES:
            _add(database, MAX_WAL_PAGES)
        while (missing := _missing(database)) > _FEW_PAGES:
            _add(database, min(_CHUNK_PAGES, missing - _FEW_PAGES // 2))
    finally:
        with contextlib.suppress(StoreError), database.transaction() as connection:
            connection.execute(f"DROP TABLE IF EXISTS {BALLAST}")
    database.checkpoint()


def free_bytes(connection: Connection) -> int:
    """Return how much more goes into the file."""
    return _free_pages(connection) * PAGE_BYTES


def preallocated_bytes(connection: Connection) -> int:
    """Return how much goes into the file without another byte of the disk."""
    return _number(connection, "freelist_count") * PAGE_BYTES


def is_fully_reserved(connection: Connection) -> bool:
    """Tell whether what is free in the file is the file's already."""
    return _number(connection, "page_count") + _FEW_PAGES >= MAX_FILE_PAGES


def _missing(database: Database) -> int:
    with database.transaction() as connection:
        return MAX_FILE_PAGES - _number(connection, "page_count")


def _add(database: Database, pages: int) -> None:
    # To the end of the file: whatever is free in it is used up by the first row already.
    with database.transaction() as connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS {BALLAST} (padding BLOB)")
        pages = min(pages, _free_pages(connection) - _FEW_PAGES // 2)
        connection.execute(
            f"INSERT INTO {BALLAST} VALUES (zeroblob(?))",  # noqa: S608 - a constant
            (max(1, pages) * (PAGE_BYTES - 4),),
        )
    database.checkpoint()


def _free_pages(connection: Connection) -> int:
    grows = max(0, _number(connection, "max_page_count") - _number(connection, "page_count"))
    return grows + _number(connection, "freelist_count")


def _number(connection: Connection, pragma: str) -> int:
    value: int = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    return value


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
