"""The folder that state is kept in: made, and given to the account that the daemon becomes."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from watchdog.errors import StoreError
from watchdog.storage.damage import is_quarantined_name
from watchdog.storage.database import NEW_SUFFIX

STATE_FILE_NAME = "state.sqlite3"
# SQLite's own beside it: https://www.sqlite.org/tempfiles.html
_OURS = {f"{STATE_FILE_NAME}{part}{ending}" for part in ("", NEW_SUFFIX) for ending in ("", "-wal", "-shm", "-journal")}
_SOCKET = "control.sock"  # may be left beside it by a daemon that was killed; no file to give away


def prepare_folder(folder: Path, account: pwd.struct_passwd | None) -> None:
    """Make `folder` if need be and, if root is to give way to `account`, let it belong to that.

    Only a folder that holds nothing but state is given away: by a slip of the hand it could be /tmp or /etc.

    Raises:
        StoreError: it cannot be made or given; names the remedy.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if account is not None:
            _give(folder, account)
    except FileExistsError:
        raise StoreError(f"{folder} is no folder: give another by --state-dir") from None
    except OSError as error:
        raise StoreError(
            f"cannot use the state folder {folder}: {error.strerror}: give another by --state-dir"
        ) from error


def _give(folder: Path, account: pwd.struct_passwd) -> None:
    if folder.is_symlink():
        raise StoreError(f"{folder} is a symbolic link: give what it leads to by --state-dir {folder.resolve()}")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # Of the descriptor, not of what has the name by now.
        names = [name for name in os.listdir(descriptor) if name != _SOCKET]  # noqa: PTH208
        given = os.fstat(descriptor).st_uid == account.pw_uid
        others = [name for name in names if not _is_ours(name)]
        if not given and others:
            raise StoreError(
                f"{folder} holds more than state, such as {min(others)}: give another by --state-dir, or let it"
                f" belong to the account {account.pw_name} yourself: chown {account.pw_name}: {folder}"
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
    # A link could be to any file of this host: the folder may have been in other hands.
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid != account.pw_uid:
            os.fchown(descriptor, account.pw_uid, account.pw_gid)
    finally:
        os.close(descriptor)
