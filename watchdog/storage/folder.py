"""The state folder: created, and given to the account that the daemon runs as."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Collection
from pathlib import Path

from watchdog.config.trusted_files import data_owners, flaw_of_open_folder, flaws_on_path
from watchdog.errors import StoreError, TemporaryFailure
from watchdog.storage.damage import is_quarantined_name, is_shortage
from watchdog.storage.database import NEW_SUFFIX

STATE_FILE_NAME = "state.sqlite3"
LAST_GOOD_FILE_NAME = "last-good.json"
LAST_GOOD_FOLDER_NAME = "last-good"
# Files that SQLite creates beside it: https://www.sqlite.org/tempfiles.html
_OURS = {f"{STATE_FILE_NAME}{part}{ending}" for part in ("", NEW_SUFFIX) for ending in ("", "-wal", "-shm", "-journal")}
_OURS |= {LAST_GOOD_FILE_NAME, LAST_GOOD_FOLDER_NAME}
_OTHER_FOLDER = "use another folder: --state-dir DIR"
_SOCKET = "control.sock"  # a killed daemon may leave it here; its owner is not changed


def prepare_folder(folder: Path, account: pwd.struct_passwd | None) -> None:
    """Create `folder` if it is missing; with `account`, for which root gives up its rights, make it the owner.

    The owner is changed only if the folder contains nothing but state: by mistake it could be /tmp or /etc.

    Raises:
        StoreError: it cannot be created or given, or others can change or replace it; with the remedy.
        TemporaryFailure: the disk is full.
    """
    owners = data_owners() | ({account.pw_uid} if account is not None else set())
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_trusted(folder, owners)
        if account is not None:
            _give(folder, account)
    except FileExistsError:
        raise StoreError(f"{folder} is not a folder", remedy=_OTHER_FOLDER) from None
    except OSError as error:
        if is_shortage(error):
            raise TemporaryFailure(f"cannot create the state folder {folder}: {error.strerror}") from error
        raise StoreError(f"cannot use the state folder {folder}: {error.strerror}", remedy=_OTHER_FOLDER) from error


def _require_trusted(folder: Path, owners: Collection[int]) -> None:
    # Who can replace the state decides which alerts count as notified or silenced.
    for flaw in [*flaws_on_path(str(folder), owners), flaw_of_open_folder(str(folder))]:
        if flaw is not None:
            raise StoreError(f"state folder: {flaw.path}: {flaw.reason}", remedy=flaw.remedy)


def _give(folder: Path, account: pwd.struct_passwd) -> None:
    if folder.is_symlink():
        raise StoreError(f"{folder} is a symbolic link", remedy=f"use its target: --state-dir {folder.resolve()}")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # Read through the descriptor: another folder may have the name by now.
        names = [name for name in os.listdir(descriptor) if name != _SOCKET]  # noqa: PTH208
        given = os.fstat(descriptor).st_uid == account.pw_uid
        others = [name for name in names if not _is_ours(name)]
        if not given and others:
            raise StoreError(
                f"{folder} contains more than state, such as {min(others)}",
                remedy=f"{_OTHER_FOLDER}, or make {account.pw_name} its owner: chown {account.pw_name}: {folder}",
            )
        for name in sorted(set(names).difference(others)):
            _give_file(name, descriptor, account)
        if not given:
            os.fchown(descriptor, account.pw_uid, account.pw_gid)
    finally:
        os.close(descriptor)


def _is_ours(name: str) -> bool:
    return name in _OURS or is_quarantined_name(name, STATE_FILE_NAME)


def _give_file(name: str, folder: int, account: pwd.struct_passwd) -> None:
    # A link could lead to any file of this host: another account may have owned the folder.
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid != account.pw_uid:
            os.fchown(descriptor, account.pw_uid, account.pw_gid)
    finally:
        os.close(descriptor)
