"""The one SQLite file: opening it safely, one daemon at a time, and transactions that are on disk when they end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from watchdog.errors import StoreError
from watchdog.store.schema import APPLICATION_ID, MIGRATIONS

BUSY_SECONDS = 2.0  # somebody may look into the file with the sqlite3 shell
START_ANEW = "move it away to start anew (alerts that fire are then announced once more)"


class Database:
    """An open state file, for any number of threads: one transaction at a time.

    WAL with synchronous=FULL: a transaction that has ended survives a crash of the process, the kernel and the machine.
    """

    def __init__(self, path: Path) -> None:
        """Open `path`, made when missing (mode 0600), and bring its tables up to date.

        Raises:
            StoreError: the folder is in use by another daemon, or the file can't be used; names it and the remedy.
        """
        self.path = path
        self._lock = threading.RLock()
        self._folder_fd = _lock_folder(path.parent)
        try:
            self._connection = _connect(path)
        except BaseException:
            os.close(self._folder_fd)
            raise
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the block in one write transaction: all of it is on disk after the block, or nothing.

        Raises:
            StoreError: the disk is full, the file is damaged or locked; nothing of the block was kept.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise StoreError(f"cannot write {self.path}: {_text(error)}") from error
            finally:
                # After some errors SQLite has rolled back by itself, after others (COMMIT on a full disk) it has not.
                self._roll_back()

    def close(self) -> None:
        """Close the file and let the next daemon have the folder."""
        with self._lock:
            self._connection.close()
            if self._folder_fd >= 0:
                os.close(self._folder_fd)
                self._folder_fd = -1

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # closed meanwhile, or the disk is gone: nothing was committed
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _prepare(self) -> None:
        try:
            version = self._version()
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            verdict = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self.path} is damaged or no state file ({_text(error)}); {START_ANEW}") from error
        if verdict != "ok":
            raise StoreError(f"{self.path} is damaged ({verdict.splitlines()[-1]}); {START_ANEW}")
        with self.transaction() as connection:
            for step in MIGRATIONS[version:]:
                for statement in step:
                    connection.execute(statement)
            if version < len(MIGRATIONS):
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _version(self) -> int:
        application: int = self._connection.execute("PRAGMA application_id").fetchone()[0]
        version: int = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            tables = self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if application or version or tables:
                raise StoreError(f"{self.path} belongs to another program; move it away or give another folder")
        if version > len(MIGRATIONS):
            raise StoreError(
                f"{self.path} was written by a newer bpf-watchdog (version {version} of the file, this one knows "
                f"{len(MIGRATIONS)}); install that one again, or {START_ANEW}"
            )
        return version


def _lock_folder(folder: Path) -> int:
    # The folder is locked, not the file: closing a second descriptor of the file would drop SQLite's own locks on it
    # (fcntl(2), POSIX record locks).
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(
            f"cannot use the state folder {folder}: {_text(error)}: give another by --state-dir"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise StoreError(
            f"another bpf-watchdog uses {folder}; stop it first, or give this one its own folder (--state-dir)"
        ) from error
    return descriptor


def _connect(path: Path) -> sqlite3.Connection:
    try:
        _make_private(path)
        return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"cannot open {path}: {_text(error)}") from error


def _make_private(path: Path) -> None:
    # SQLite gives the WAL beside it the same mode.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StoreError(f"{path} is no regular file; {START_ANEW}")
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _text(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
