"""Opening the state file: whose it is, that it is whole, and its tables brought up to date."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
from pathlib import Path
from urllib.parse import quote

from watchdog import sanitize
from watchdog.errors import StoreError
from watchdog.storage.damage import DamagedFileError, is_content_error
from watchdog.storage.schema import APPLICATION_ID, BALLAST, SCHEMA_STEPS, apply_step
from watchdog.storage.wal import commits_behind

BUSY_TIMEOUT_SECONDS = 2.0  # somebody may look into the file with the sqlite3 shell
RESET_HINT = "move it away to start anew (alerts that fire are then announced once more)"

PAGE_BYTES = 4096
MAX_FILE_PAGES = 8192  # 32 MiB: what the file grows to at most, and takes from the disk at once (`reserve.py`)
MAX_WAL_PAGES = 2048  # 8 MiB, likewise
# From this on the log is carried over into the file at the next commit: what is left of it is room for one commit.
_CHECKPOINT_PAGES = 256

_LIKELY_VERSIONS = 100  # what is above is no newer version but a header that is damaged

_SETTINGS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
    f"max_page_count = {MAX_FILE_PAGES}",
    "secure_delete = FAST",  # Debian's default writes every page that is let go of once more
    "temp_store = MEMORY",  # no file elsewhere, whose disk may be full too
    "cell_size_check = ON",
)

_log = logging.getLogger("watchdog")


def open_state_file(path: Path) -> sqlite3.Connection:
    """Open the state file `path`, made when missing (mode 0600), and bring its tables up to date.

    Raises:
        Damaged: its content can't be used; nothing was changed.
        StoreError: it is another's, or can't be used just now; names it and the remedy.
    """
    try:
        _make_private(path)
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"cannot open {path}: {error_text(error)}") from error
    try:
        _prepare(connection, path)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        connection.close()
        if is_content_error(error):
            raise DamagedFileError(error_text(error)) from error
        raise StoreError(f"cannot open {path}: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def open_read_only(path: Path) -> sqlite3.Connection:
    """Open what is there for reading alone; what is no UTF-8 any more is read with replacements.

    While such a connection is open, and when it is the last to be closed, the log beside the file stays (SQLite needs
    a write lock to remove it).
    """
    uri = f"file:{quote(str(path))}?mode=ro"
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.text_factory = _lenient
    return connection


def error_text(error: Exception) -> str:
    """Return what went wrong, without the number and the path that `OSError` tells; safe to log."""
    if isinstance(error, UnicodeDecodeError):
        return "database disk image is malformed"  # the module could not read SQLite's own words, which quote the file
    return sanitize.escape_unprintable(error.strerror or str(error) if isinstance(error, OSError) else str(error))


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.text_factory = _lenient
    version = _version(connection, path)
    for setting in _SETTINGS:
        connection.execute(f"PRAGMA {setting}")
    # The whole check, for an index that does not fit its table hides notices; 0.2 s for a file that is full.
    verdict = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
    if verdict != "ok":
        raise DamagedFileError(sanitize.escape_unprintable(verdict.splitlines()[-1]))
    _tell_damaged_log(connection, path)
    connection.execute("BEGIN IMMEDIATE")
    for step in SCHEMA_STEPS[version:]:
        apply_step(connection, step)
    if version < len(SCHEMA_STEPS):
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(SCHEMA_STEPS)}")
    connection.execute("COMMIT")


def _tell_damaged_log(connection: sqlite3.Connection, path: Path) -> None:
    # The checkpoint is what says how much was read.
    frames: int = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
    behind = commits_behind(path.with_name(f"{path.name}-wal"), max(0, frames), PAGE_BYTES)
    if behind > 1:
        _log.error("%s-wal is damaged: %d transactions at its end are lost, and what they told of", path, behind - 1)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # so that it is not told again


def _version(connection: sqlite3.Connection, path: Path) -> int:
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    schema = _schema(connection)
    foreign = application != APPLICATION_ID and (application or version or schema)
    if not foreign and 0 <= version <= len(SCHEMA_STEPS):
        return version
    if _is_ours(schema) and (foreign or not 0 <= version <= _LIKELY_VERSIONS):
        raise DamagedFileError("its header names a program or a version that its tables are not of")
    if foreign:
        raise StoreError(f"{path} belongs to another program; move it away or give another folder")
    raise StoreError(
        f"{path} was written by a newer bpf-watchdog (version {version} of the file, this one knows "
        f"{len(SCHEMA_STEPS)}); install that one again, or {RESET_HINT}"
    )


def _schema(connection: sqlite3.Connection) -> set[tuple[str, ...]]:
    rows = connection.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_schema WHERE name != ?", (BALLAST,))
    return set(rows.fetchall())


def _is_ours(schema: set[tuple[str, ...]]) -> bool:
    # Tables exactly as one of our versions makes them.
    scratch = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for step in SCHEMA_STEPS:
            apply_step(scratch, step)
            if _schema(scratch) == schema:
                return True
    finally:
        scratch.close()
    return False


def _make_private(path: Path) -> None:
    # SQLite gives the WAL beside it the same mode.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StoreError(f"{path} is no regular file; {RESET_HINT}")
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _lenient(raw: bytes) -> str:
    # One row that is no UTF-8 any more must not hide those behind it; checksums tell that it is not what it was.
    return raw.decode("utf-8", "replace")
