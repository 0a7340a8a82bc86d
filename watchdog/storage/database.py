"""The state file: used by one daemon at a time; transactions are on disk when they end; damage is repaired."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from watchdog.clock import SECOND_NS, Clock, SystemClock
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
from watchdog.storage.opening import copy_open_file, error_text, open_read_only, open_state_file
from watchdog.storage.salvage import NO_CHECKS, SalvageChecks, SalvageResult, salvage

NEW_SUFFIX = ".new"  # appended to the file name of a new file until it replaces a damaged one

_ENDINGS = ("", "-wal", "-shm")
_RESTORE_PAUSE_NS = 60 * SECOND_NS

_FileId = tuple[int, int]  # device, inode
_SYSTEM_CLOCK = SystemClock()
_log = logging.getLogger("watchdog")


class Database:
    """An open state file, for any number of threads: one transaction at a time.

    WAL with synchronous=FULL: a transaction that has ended survives a crash of the process, the kernel and the machine.

    A damaged file is moved aside and recreated from its readable rows, at the start and whenever SQLite detects damage
    later; `quarantined` lists the files that this process moved aside. A file that somebody removes or replaces while
    it is open is written again, whole.
    """

    def __init__(self, path: Path, clock: Clock = _SYSTEM_CLOCK, checks: SalvageChecks = NO_CHECKS) -> None:
        """Open `path` and update its schema; create it if missing (mode 0600). `checks` are used if it is damaged.

        Raises:
            StoreError: another daemon uses the folder, or the file cannot be used; with the remedy.
        """
        self.path = path
        self.quarantined: tuple[QuarantinedFile, ...] = ()
        self._clock = clock
        self._checks = checks
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._keeper: sqlite3.Connection | None = None
        self._files: tuple[_FileId | None, ...] = ()  # of the open file, its WAL and its index
        self._next_restore_ns = 0
        self._folder_fd = _lock_folder(path.parent)
        try:
            with self._lock:
                self._open()
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the block in one write transaction: after the block all of it is on disk, or nothing.

        Raises:
            StoreError: the disk is full, the file is damaged or locked; nothing of the block was kept. After damage the
                next transaction uses a new file.
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
                    self._recreate(error_text(error))
                raise StoreError(f"cannot write {self.path}: {error_text(error)}") from error
            finally:
                # SQLite rolls back by itself after some errors, but not after others (COMMIT on a full disk).
                _roll_back(connection)

    def checkpoint(self) -> None:
        """Copy the WAL into the file, so that the WAL is written from its beginning again.

        Raises:
            StoreError: it failed; nothing is lost.
        """
        with self._lock:
            try:
                self._connected().execute("PRAGMA wal_checkpoint(RESTART)")
            except sqlite3.Error as error:
                raise StoreError(f"cannot write {self.path}: {error_text(error)}") from error

    def close(self) -> None:
        """Close the file and unlock the folder for the next daemon."""
        with self._lock:
            self._disconnect()
            if self._folder_fd >= 0:
                os.close(self._folder_fd)
                self._folder_fd = -1

    def _connected(self) -> sqlite3.Connection:
        if self._folder_fd < 0:
            raise StoreError(f"cannot write {self.path}: it is closed")
        connection = self._connection or self._open()  # closed if it could not be recreated
        if self._is_in_place() or self._clock.boottime_ns() < self._next_restore_ns:
            return connection
        return self._restore(connection)

    def _is_in_place(self) -> bool:
        return all(known in (None, found) for known, found in zip(self._files, _file_ids(self.path), strict=True))

    def _restore(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        """Write the open file, which somebody has removed or replaced, to its path again; return its connection.

        Where that is impossible, the open file without a name is used further, and lost at the end of the process.
        """
        fresh = _fresh(self.path)
        try:
            _remove(fresh)
            copy_open_file(connection, fresh)
        except (OSError, sqlite3.Error) as error:
            with contextlib.suppress(OSError):
                _remove(fresh)
            self._next_restore_ns = self._clock.boottime_ns() + _RESTORE_PAUSE_NS
            _log.error(
                "state file removed or replaced while in use, cannot be written again: file=%s reason=%s",
                self.path,
                error_text(error),
            )
            return connection
        is_ours = _file_ids(self.path)[0] in (None, self._files[0])
        self._disconnect()
        try:
            aside = None if is_ours else quarantine_file(self.path, self._clock.wall())
            _remove(self.path)
        except OSError as error:
            raise StoreError(f"cannot replace {self.path}: {error_text(error)}") from error
        connection = self._open()
        _log.error(
            "state file removed or replaced while in use, written again: file=%s other_file=%s", self.path, aside or "-"
        )
        return connection

    def _open(self) -> sqlite3.Connection:
        _take_over_fresh(self.path)
        try:
            self._connection = open_state_file(self.path)
        except DamagedFileError as damage:
            return self._recreate(str(damage))
        self._keep_wal()
        return self._connection

    def _recreate(self, reason: str) -> sqlite3.Connection:
        self._disconnect()
        try:
            salvaged, aside = self._exchange()
            connection = self._connection = open_state_file(self.path)
        except OSError as error:
            raise StoreError(f"cannot move the damaged {self.path} aside: {error_text(error)}") from error
        except DamagedFileError as damage:  # in a file written just now: give up
            raise StoreError(f"cannot write {self.path}: {damage}") from damage
        self._keep_wal()
        found = QuarantinedFile(aside, reason, salvaged.notifications, salvaged.unreadable)
        self.quarantined += (found,)
        _log.error(
            "state file damaged, moved aside and recreated: file=%s moved_to=%s reason=%s alerts=%d pending=%d lost=%d",
            self.path,
            aside,
            reason,
            salvaged.alerts,
            found.salvaged,
            found.lost,
        )
        return connection

    def _exchange(self) -> tuple[SalvageResult, Path]:
        # The process may stop after each step: the new file replaces the damaged one only when it is complete.
        fresh = _fresh(self.path)
        for max_kept in range(MAX_QUARANTINED_FILES - 1, -1, -1):
            try:
                salvaged = salvage(self.path, fresh, self._checks)
                break
            except StoreError as error:
                _remove(fresh)
                if not is_disk_full(error.__cause__):
                    raise
                delete_oldest_quarantined(self.path, max_kept)
        else:
            salvaged = SalvageResult()
        aside = quarantine_file(self.path, self._clock.wall())
        delete_oldest_quarantined(self.path, MAX_QUARANTINED_FILES if fresh.exists() else 0)
        _take_over_fresh(self.path)
        return salvaged, aside

    def _keep_wal(self) -> None:
        # SQLite deletes the WAL, and frees its reserved space, on close, unless the last connection is read-only.
        with contextlib.suppress(sqlite3.Error):
            self._keeper = open_read_only(self.path)
            self._keeper.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        self._files = _file_ids(self.path)

    def _disconnect(self) -> None:
        for connection in (self._connection, self._keeper):
            if connection is not None:
                connection.close()
        self._connection = self._keeper = None


def _file_ids(path: Path) -> tuple[_FileId | None, ...]:
    return tuple(_file_id(path.with_name(path.name + ending)) for ending in _ENDINGS)


def _file_id(path: Path) -> _FileId | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _roll_back(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):  # closed, or the disk is gone: nothing was committed
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _fresh(path: Path) -> Path:
    return path.with_name(path.name + NEW_SUFFIX)


def _remove(path: Path) -> None:
    for ending in _ENDINGS:
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _take_over_fresh(path: Path) -> None:
    # A new file beside a damaged one may be incomplete; a new file alone is complete.
    fresh = _fresh(path)
    try:
        if fresh.exists() and not path.exists():
            fresh.rename(path)
        _remove(fresh)
    except OSError as error:
        raise StoreError(f"cannot use {fresh}: {error_text(error)}") from error


def _lock_folder(folder: Path) -> int:
    # Lock the folder, not the file: closing a second descriptor of the file would drop SQLite's own locks on it
    # (fcntl(2), POSIX record locks).
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(
            f"cannot use the state folder {folder}: {error_text(error)}", remedy="use another folder: --state-dir DIR"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreError(  # without the cause: its errno would be that of a shortage
            f"another bpf-watchdog uses {folder}", remedy="stop it first, or use another folder: --state-dir DIR"
        ) from None
    return descriptor
