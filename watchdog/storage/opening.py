"""Open the state file: check its owner and integrity, and update its schema."""

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

BUSY_TIMEOUT_SECONDS = 2.0  # a user may read the file with the sqlite3 shell
RESET_HINT = "move it away to start with a new one (firing alerts are then sent again)"

PAGE_BYTES = 4096
MAX_FILE_PAGES = 8192  # 32 MiB: maximum size of the file, reserved on the disk at start (`reserve.py`)
MAX_WAL_PAGES = 2048  # 8 MiB, likewise
# With more pages in the WAL the next commit copies them into the file; the rest of the WAL is space for one commit.
_CHECKPOINT_PAGES = 256

_LIKELY_VERSIONS = 100  # a higher number is no newer version but a damaged header

_SETTINGS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
    f"max_page_count = {MAX_FILE_PAGES}",
    "secure_delete = FAST",  # Debian's default writes each freed page once more
    "temp_store = MEMORY",  # no file on another disk, which may be full too
    "cell_size_check = ON",
)

_log = logging.getLogger("watchdog")


def open_state_file(path: Path) -> sqlite3.Connection:
    """Open the state file `path` and update its schema; create it if missing (mode 0600).

    Raises:
        DamagedFileError: its content cannot be used; nothing was changed.
        StoreError: it belongs to another program, or cannot be used now; with the remedy.
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
    """Open the state file for reading only; invalid UTF-8 is read with replacement characters.

    The WAL beside the file stays while such a connection is open, and when it is closed last: SQLite needs a write lock
    to delete the WAL.
    """
    uri = f"file:{quote(str(path))}?mode=ro"
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.text_factory = _lenient
    return connection


def copy_open_file(connection: sqlite3.Connection, path: Path) -> None:
    """Write all that `connection` has committed to a new file `path` (mode 0600), also if its own file has no name.

    Raises:
        OSError, sqlite3.Error: it cannot be written.
    """
    _make_private(path)
    copy = sqlite3.connect(path, isolation_level=None)
    try:
        connection.backup(copy)
    finally:
        copy.close()


def error_text(error: Exception) -> str:
    """Return the text of `error`, without the number and path of an `OSError`; safe to log."""
    if isinstance(error, UnicodeDecodeError):
        return "database disk image is malformed"  # the message of SQLite quotes invalid text of the file
    return sanitize.escape_unprintable(error.strerror or str(error) if isinstance(error, OSError) else str(error))


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.text_factory = _lenient
    version = _version(connection, path)
    for setting in _SETTINGS:
        connection.execute(f"PRAGMA {setting}")
    # The complete check: an index that does not match its table hides notifications. It takes 0.2 s for a full file.
    verdict = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
    if verdict != "ok":
        raise DamagedFileError(sanitize.escape_unprintable(verdict.splitlines()[-1]))
    if not _schema_of(version) <= _schema(connection):  # in a trigger, say: SQLite parses it at its first write
        raise DamagedFileError("its tables and triggers are not those of its version")
    _log_damaged_wal(connection, path)
    if version < len(SCHEMA_STEPS):
        # Converted rows can need more pages than a full file has left. It then stays larger than its maximum.
        connection.execute(f"PRAGMA max_page_count = {2 * MAX_FILE_PAGES}")
    connection.execute("BEGIN IMMEDIATE")
    for step in SCHEMA_STEPS[version:]:
        apply_step(connection, step)
    if version < len(SCHEMA_STEPS):
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(SCHEMA_STEPS)}")
    connection.execute("COMMIT")
    connection.execute(f"PRAGMA max_page_count = {MAX_FILE_PAGES}")


def _log_damaged_wal(connection: sqlite3.Connection, path: Path) -> None:
    # Only the checkpoint returns the number of frames that were read.
    frames: int = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
    behind = commits_behind(path.with_name(f"{path.name}-wal"), max(0, frames), PAGE_BYTES)
    if behind > 1:
        _log.error("WAL damaged, transactions at its end are lost: file=%s-wal lost=%d", path, behind - 1)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # so that it is logged only once


def _version(connection: sqlite3.Connection, path: Path) -> int:
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    schema = _schema(connection)
    foreign = application != APPLICATION_ID and (application or version or schema)
    if not foreign and 0 <= version <= len(SCHEMA_STEPS):
        return version
    if _is_ours(schema) and (foreign or not 0 <= version <= _LIKELY_VERSIONS):
        raise DamagedFileError("its header does not match its tables")
    if foreign:
        raise StoreError(f"{path} belongs to another program", remedy="move it away, or use another folder")
    raise StoreError(
        f"{path} was written by a newer bpf-watchdog (file version {version}, this program knows up to "
        f"{len(SCHEMA_STEPS)})",
        remedy=f"install that version again, or {RESET_HINT}",
    )


def _schema(connection: sqlite3.Connection) -> set[tuple[str, ...]]:
    rows = connection.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_schema WHERE name != ?", (BALLAST,))
    return {(kind, name, " ".join(sql.split())) for kind, name, sql in rows}


def _schema_of(version: int) -> set[tuple[str, ...]]:
    """Return the schema that files of `version` have."""
    scratch = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for step in SCHEMA_STEPS[:version]:
            apply_step(scratch, step)
        return _schema(scratch)
    finally:
        scratch.close()


def _is_ours(schema: set[tuple[str, ...]]) -> bool:
    # The tables are exactly those of one of our versions.
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
    # SQLite creates the WAL with the same mode.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StoreError(f"{path} is not a regular file", remedy=RESET_HINT)
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _lenient(raw: bytes) -> str:
    # A row with invalid UTF-8 must not hide the rows behind it; its checksum shows the damage.
    return raw.decode("utf-8", "replace")
