"""Space reserved on the disk at start, so that the state can be saved when the disk is full.

Pages are written once and freed: SQLite keeps them in the file and uses them before it grows the file. The WAL is grown
to its maximum size and stays (`Database`). Copy-on-write file systems (btrfs, zfs) reserve no space this way.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from sqlite3 import Connection

from watchdog.errors import StoreError
from watchdog.storage.database import Database
from watchdog.storage.opening import MAX_FILE_PAGES, MAX_WAL_PAGES, PAGE_BYTES
from watchdog.storage.schema import BALLAST

_CHUNK_PAGES = MAX_WAL_PAGES - 64  # fits into the WAL together with the other pages of the transaction
MIN_FREE_BYTES = 2 * 1024 * 1024  # kept free in a file that cannot grow

_FEW_PAGES = 8  # that a row of one page needs besides its own


def reserve_space(database: Database) -> None:
    """Grow the file and its WAL to their maximum size; do nothing if they have it.

    Raises:
        StoreError: the disk has not enough space. Space taken so far stays in the file.
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
    """Return the number of bytes that still fit into the file."""
    return _free_pages(connection) * PAGE_BYTES


def preallocated_bytes(connection: Connection) -> int:
    """Return the number of bytes that fit into the file without growing it."""
    return _number(connection, "freelist_count") * PAGE_BYTES


def is_fully_reserved(connection: Connection) -> bool:
    """Return whether the file has its maximum size."""
    return _number(connection, "page_count") + _FEW_PAGES >= MAX_FILE_PAGES


def _missing(database: Database) -> int:
    with database.transaction() as connection:
        return MAX_FILE_PAGES - _number(connection, "page_count")


def _add(database: Database, pages: int) -> None:
    # Grows the file: its free pages are used up by the first row.
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
