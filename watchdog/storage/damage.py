"""What to do with a state file that is damaged: tell it from one that can't be used just now, and move it aside.

Nothing is destroyed but the oldest of what was moved aside before.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

MAX_QUARANTINED_FILES = 2  # damaged files; each takes as much room as the state file itself

# Result codes of SQLite (https://www.sqlite.org/rescode.html) that say nothing of the file's content: it is locked, its
# disk is full, somebody else's rights. Of errors of input and output only those of reading are about the content.
_CIRCUMSTANCES = {
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
_READING = {sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_CORRUPTFS}
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
PRIMARY_CODE_MASK = 0xFF  # an extended code holds its primary one in the lowest byte
_UNIQUE_TIME = "%Y%m%dT%H%M%SZ"


class DamagedFileError(Exception):
    """The file's content can't be used; the text says why."""


@dataclass(frozen=True, slots=True)
class QuarantinedFile:
    """A damaged state file: where it lies now, why, and what was taken over from it.

    `salvaged`: notices that were still to be sent and are, `lost`: those that were seen and can't be read. What could
    not even be seen is in neither.
    """

    path: Path
    reason: str
    salvaged: int = 0
    lost: int = 0


def is_corruption(error: Exception) -> bool:
    """Tell whether SQLite says itself that the file is malformed, if in words that are no text because of it."""
    if isinstance(error, UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", None)  # what the module raises by itself has none
    return code is not None and code & PRIMARY_CODE_MASK in _CORRUPT


def is_content_error(error: Exception) -> bool:
    """Tell whether `error`, raised while a file is opened, is the content's fault: then it is there at each start."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None or code in _READING:
        return True
    # Read-only by its own header (that the file may be written was seen before) is damage, by circumstances it is not.
    return code & PRIMARY_CODE_MASK not in _CIRCUMSTANCES and (
        code & PRIMARY_CODE_MASK != sqlite3.SQLITE_READONLY or code == sqlite3.SQLITE_READONLY
    )


def is_disk_full(error: BaseException | None) -> bool:
    """Tell whether `error` says that the disk is full, or the file as large as it may become."""
    return getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE_MASK == sqlite3.SQLITE_FULL


def quarantine_file(path: Path, wall: float) -> Path:
    """Rename the file `path` and its WAL; return the new name.

    Raises:
        OSError: that is not possible.
    """
    stem = f"{path.name}.damaged-{time.strftime(_UNIQUE_TIME, time.gmtime(wall))}"
    number, target = 1, path.with_name(stem)
    while target.exists():  # of the same second
        number += 1
        target = path.with_name(f"{stem}-{number}")
    path.rename(target)
    # Together, and under names that belong together, the two can still be looked into. The index is made anew.
    with contextlib.suppress(FileNotFoundError):
        _beside(path, "-wal").rename(_beside(target, "-wal"))
    _beside(path, "-shm").unlink(missing_ok=True)
    return target


def delete_oldest_quarantined(path: Path, max_kept: int) -> None:
    """Delete the oldest of what was moved aside from `path`, so that `most` stay."""
    # By when they were renamed: the clock in their names may have stepped.
    newest_first = sorted(quarantined_files(path), key=lambda old: old.stat().st_ctime_ns, reverse=True)
    for old in newest_first[max_kept:]:
        for ending in ("", "-wal", "-shm"):
            _beside(old, ending).unlink(missing_ok=True)


def quarantined_files(path: Path) -> list[Path]:
    """Return every damaged file that was moved aside from `path`."""
    return [entry for entry in path.parent.iterdir() if is_quarantined_name(entry.name, path.name, endings="")]


def is_quarantined_name(name: str, file_name: str, endings: str = "(-wal|-shm)?") -> bool:
    """Tell whether `name` is that of a damaged file that was moved aside from `file_name`."""
    return re.fullmatch(rf"{re.escape(file_name)}\.damaged-\d{{8}}T\d{{6}}Z(-\d+)?{endings}", name) is not None


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
