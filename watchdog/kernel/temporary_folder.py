"""Temporary folders that are removed after a killed owner, too: by the next start.

A folder is in use as long as a process has its descriptor, which holds the lock of the folder (flock(2)); the kernel
releases the lock when the last of them has ended, however it ended. No other account can open the folder, and so none
can hold its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from watchdog.config.permissions import ACCOUNT

_PREFIX = "bpf-watchdog-tmp-"
_MAX_ENTRIES = 100_000  # that are looked at, about 50 ms: other users can fill the same place
_MAX_ATTEMPTS = 20  # of making a folder, each spoilt by another start at the same moment


@dataclass(frozen=True, slots=True)
class TemporaryFolder:
    """`path`; `lock_fd`: descriptor of the folder. It is in use as long as a process has this one."""

    path: Path
    lock_fd: int


@contextmanager
def temporary_folder(place: str) -> Iterator[TemporaryFolder]:
    """Make an empty folder in `place`, that of this account alone; remove it with its content at the end.

    A child process that uses it inherits `lock_fd`: it can survive this process.

    Raises:
        OSError: `place` does not allow it.
    """
    folder = _make(place)
    try:
        yield folder
    finally:
        shutil.rmtree(folder.path, ignore_errors=True)
        os.close(folder.lock_fd)


def _make(place: str) -> TemporaryFolder:
    for _ in range(_MAX_ATTEMPTS):
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        try:
            lock_fd = _lock(path)
        except OSError:
            shutil.rmtree(path, ignore_errors=True)
            raise
        if lock_fd is not None:
            return TemporaryFolder(path, lock_fd)
    raise BlockingIOError(f"other starts remove each new folder: place={place}")


def _lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock of the new folder; None if `remove_abandoned_folders` was faster."""
    try:
        lock_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists():
            return lock_fd
    except BlockingIOError:
        pass
    except OSError:
        os.close(lock_fd)
        raise
    os.close(lock_fd)
    return None


def remove_abandoned_folders(places: Iterable[str]) -> None:
    """Remove the folders in `places` that `temporary_folder` made in processes that have been killed.

    Only those of this account go; root also removes those of the service account. Links, folders in use, and what
    cannot be removed stay.
    """
    owners = {os.geteuid()}
    if 0 in owners:
        with contextlib.suppress(KeyError):
            owners.add(pwd.getpwnam(ACCOUNT).pw_uid)
    for place in places:
        with contextlib.suppress(OSError), os.scandir(place) as entries:
            names = [entry.name for entry in islice(entries, _MAX_ENTRIES) if entry.name.startswith(_PREFIX)]
            for name in names:
                _remove_if_abandoned(Path(place, name), owners)


def _remove_if_abandoned(path: Path, owners: Collection[int]) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        status = os.fstat(fd)
        if status.st_uid in owners and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)  # does not follow links
    except OSError:  # in use
        pass
    finally:
        os.close(fd)
