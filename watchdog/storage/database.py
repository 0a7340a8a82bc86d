"""The one SQLite file: one daemon at a time, transactions that are on disk when they end, and no damage that stays."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from watchdog.clock import Clock, SystemClock
from watchdog.errors import StoreError
from watchdog.storage.damage import (
    MAX_QUARANTINED_FILES,
    DamagedFileError,
    QuarantinedFile,
    delete_oldest_quarantined,
    is_corruption,
    is_disk_full,
    quarantine_file,
)
from watchdog.storage.opening import error_text, open_read_only, open_state_file
from watchdog.storage.salvage import NO_CHECKS, SalvageChecks, SalvageResult, salvage

NEW_SUFFIX = ".new"  # behind the file's name: one that is begun anew, until it takes the place of a damaged one

_SYSTEM_CLOCK = SystemClock()
_log = logging.getLogger("watchdog")


class Database:
    """An open state file, for any number of threads: one transaction at a time.

    WAL with synchronous=FULL: a transaction that has ended survives a crash of the process, the kernel and the machine.

    A file that is damaged is moved aside and begun anew with what can be read of it, at the start and whenever SQLite
    finds it damaged later; `quarantined` names those of this process.
    """

    def __init__(self, path: Path, clock: Clock = _SYSTEM_CLOCK, checks: SalvageChecks = NO_CHECKS) -> None:
        """Open `path`, made when missing (mode 0600), and bring its tables up to date; `checks` are for a damaged one.

        Raises:
            StoreError: the folder is in use by another daemon, or the file can't be used; names it and the remedy.
        """
        self.path = path
        self.quarantined: tuple[QuarantinedFile, ...] = ()
        self._clock = clock
        self._checks = checks
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._keeper: sqlite3.Connection | None = None
        self._folder_fd = _lock_folder(path.parent)
        try:
            with self._lock:
                self._open()
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the block in one write transaction: all of it is on disk after the block, or nothing.

        Raises:
            StoreError: the disk is full, the file is damaged or locked; nothing of the block was kept. After damage the
                next transaction works on a new file.
        """
        with self._lock:
            connection = self._connected()
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except (sqlite3.Error, UnicodeDecodeError) as error:
                _roll_back(connection)
                if is_corruption(error):
                    self._begin_anew(error_text(error))
                raise StoreError(f"cannot write {self.path}: {error_text(error)}") from error
            finally:
                # After some errors SQLite has rolled back by itself, after others (COMMIT on a full disk) it has not.
                _roll_back(connection)

    def checkpoint(self) -> None:
        """Carry the log over into the file, so that it is written from its beginning again.

        Raises:
            StoreError: that is not possible; nothing is lost by it.
        """
        with self._lock:
            try:
                self._connected().execute("PRAGMA wal_checkpoint(RESTART)")
            except sqlite3.Error as error:
                raise StoreError(f"cannot write {self.path}: {error_text(error)}") from error

    def close(self) -> None:
        """Close the file and let the next daemon have the folder."""
        with self._lock:
            self._disconnect()
            if self._folder_fd >= 0:
                os.close(self._folder_fd)
                self._folder_fd = -1

    def _connected(self) -> sqlite3.Connection:
        if self._folder_fd < 0:
            raise StoreError(f"cannot write {self.path}: it is closed")
        return self._connection or self._open()  # it is closed when it could not be begun anew

    def _open(self) -> sqlite3.Connection:
        _take_over_fresh(self.path)
        try:
            self._connection = open_state_file(self.path)
        except DamagedFileError as damage:
            return self._begin_anew(str(damage))
        self._keep_log()
        return self._connection

    def _begin_anew(self, reason: str) -> sqlite3.Connection:
        self._disconnect()
        try:
            salvaged, aside = self._exchange()
            connection = self._connection = open_state_file(self.path)
        except OSError as error:
            raise StoreError(f"cannot move {self.path} aside, which is damaged: {error_text(error)}") from error
        except DamagedFileError as damage:  # what was written a moment ago: no file will do
            raise StoreError(f"cannot write {self.path}: {damage}") from damage
        self._keep_log()
        found = QuarantinedFile(aside, reason, salvaged.notifications, salvaged.unreadable)
        self.quarantined += (found,)
        _log.error(
            "%s is damaged (%s): moved to %s and begun anew; taken over: %d alerts, %d notices to be sent;"
            " %d notices cannot be read any more",
            self.path,
            reason,
            aside,
            salvaged.alerts,
            found.salvaged,
            found.lost,
        )
        return connection

    def _exchange(self) -> tuple[SalvageResult, Path]:
        # Each step can be the last: the new file takes the place of the damaged one when all is in it.
        fresh = _fresh(self.path)
        for most in range(MAX_QUARANTINED_FILES - 1, -1, -1):
            try:
                salvaged = salvage(self.path, fresh, self._checks)
                break
            except StoreError as error:
                _remove(fresh)
                if not is_disk_full(error.__cause__):
                    raise
                delete_oldest_quarantined(self.path, most)
        else:
            salvaged = SalvageResult()
        aside = quarantine_file(self.path, self._clock.wall())
        delete_oldest_quarantined(
            self.path, MAX_QUARANTINED_FILES if fresh.exists() else 0
        )  # a disk that is full has no room for a keepsake
        _take_over_fresh(self.path)
        return salvaged, aside

    def _keep_log(self) -> None:
        # The log's room on the disk is given back when the file is closed, unless a reader is the last to leave.
        with contextlib.suppress(sqlite3.Error):
            self._keeper = open_read_only(self.path)
            self._keeper.execute("SELECT count(*) FROM sqlite_schema").fetchone()

    def _disconnect(self) -> None:
        for connection in (self._connection, self._keeper):
            if connection is not None:
                connection.close()
        self._connection = self._keeper = None


def _roll_back(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):  # closed meanwhile, or the disk is gone: nothing was committed
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _fresh(path: Path) -> Path:
    return path.with_name(path.name + NEW_SUFFIX)


def _remove(path: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _take_over_fresh(path: Path) -> None:
    # A new file that is still beside a damaged one may be half written; one that is alone is whole.
    fresh = _fresh(path)
    try:
        if fresh.exists() and not path.exists():
            fresh.rename(path)
        _remove(fresh)
    except OSError as error:
        raise StoreError(f"cannot use {fresh}: {error_text(error)}") from error


def _lock_folder(folder: Path) -> int:
    # The folder is locked, not the file: closing a second descriptor of the file would drop SQLite's own locks on it
    # (fcntl(2), POSIX record locks).
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(
            f"cannot use the state folder {folder}: {error_text(error)}: give another by --state-dir"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise StoreError(
            f"another bpf-watchdog uses {folder}; stop it first, or give this one its own folder (--state-dir)"
        ) from error
    return descriptor
