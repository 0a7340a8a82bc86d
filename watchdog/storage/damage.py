"""Damaged state files: distinguish damage from a temporary error, and move a damaged file aside.

Nothing is deleted except the oldest of the files that were moved aside before.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from watchdog.errors import TEMPORARY_ERRNOS

MAX_QUARANTINED_FILES = 2  # each is as large as the state file itself

# Result codes of SQLite (https://www.sqlite.org/rescode.html) that do not concern the content of the file: a lock, a
# full disk, missing permissions. Of the I/O errors only those of reading concern the content.
_NO_DAMAGE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOLFS,
}
_READ_ERRORS = {sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_CORRUPTFS}
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
PRIMARY_CODE_MASK = 0xFF  # an extended code holds its primary one in the lowest byte
_SHORTAGES = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM}
_UNIQUE_TIME = "%Y%m%dT%H%M%SZ"


class DamagedFileError(Exception):
    """The content of the file cannot be used; the text gives the reason."""


@dataclass(frozen=True, slots=True)
class QuarantinedFile:
    """A damaged state file: its new path, the reason, and the number of pending notifications in it.

    `salvaged`: those copied to the new file. `lost`: those found but unreadable. Rows that were not found count in
    neither.
    """

    path: Path
    reason: str
    salvaged: int = 0
    lost: int = 0


def is_corruption(error: Exception) -> bool:
    """Return whether SQLite reports a malformed file, also if its message is unreadable because of the damage."""
    if isinstance(error, UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", None)  # errors raised by the Python module itself have none
    return code is not None and code & PRIMARY_CODE_MASK in _CORRUPT


def is_content_error(error: Exception) -> bool:
    """Return whether `error`, raised while a file is opened, comes from its content and would recur at each start."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None or code in _READ_ERRORS:
        return True
    # Read-only by its own header is damage (write permission was checked before); read-only for other causes is not.
    return code & PRIMARY_CODE_MASK not in _NO_DAMAGE and (
        code & PRIMARY_CODE_MASK != sqlite3.SQLITE_READONLY or code == sqlite3.SQLITE_READONLY
    )


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether the cause is a full disk, or a file at its maximum size."""
    return getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE_MASK == sqlite3.SQLITE_FULL


def is_shortage(error: BaseException | None) -> bool:
    """Return whether disk space, memory or descriptors are used up, or the file is in use: a later try can succeed."""
    if isinstance(error, OSError):
        return error.errno in TEMPORARY_ERRNOS
    return getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE_MASK in _SHORTAGES


def quarantine_file(path: Path, wall: float) -> Path:
    """Rename the file `path` and its WAL; return the new name.

    Raises:
        OSError: it cannot be renamed.
    """
    stem = f"{path.name}.damaged-{time.strftime(_UNIQUE_TIME, time.gmtime(wall))}"
    number, target = 1, path.with_name(stem)
    while target.exists():  # another one of the same second
        number += 1
        target = path.with_name(f"{stem}-{number}")
    path.rename(target)
    # Under matching names the two can still be opened together. SQLite recreates the index (-shm).
    with contextlib.suppress(FileNotFoundError):
        _beside(path, "-wal").rename(_beside(target, "-wal"))
    _beside(path, "-shm").unlink(missing_ok=True)
    return target


def delete_oldest_quarantined(path: Path, max_kept: int) -> None:
    """Delete the oldest files that were moved aside from `path`, until at most `max_kept` remain."""
    # Ordered by the time of renaming (ctime): the wall clock in their names may have been set.
    newest_first = sorted(quarantined_files(path), key=lambda old: old.stat().st_ctime_ns, reverse=True)
    for old in newest_first[max_kept:]:
        for ending in ("", "-wal", "-shm"):
            _beside(old, ending).unlink(missing_ok=True)


def quarantined_files(path: Path) -> list[Path]:
    """Return all damaged files that were moved aside from `path`."""
    return [entry for entry in path.parent.iterdir() if is_quarantined_name(entry.name, path.name, endings="")]


def is_quarantined_name(name: str, file_name: str, endings: str = "(-wal|-shm)?") -> bool:
    """Return whether `name` is the name of a damaged file that was moved aside from `file_name`."""
    return re.fullmatch(rf"{re.escape(file_name)}\.damaged-\d{{8}}T\d{{6}}Z(-\d+)?{endings}", name) is not None


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
