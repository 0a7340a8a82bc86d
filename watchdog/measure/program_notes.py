"""Notes on the executable of a process: how it differs from a program that root has installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from watchdog.kernel.executables import Executable
from watchdog.measure.program_file import ProgramFile

_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def describe_executable(
    executable: Executable,
    user_name: Callable[[int], str],
    *,
    is_in_container: bool,
    folders: Sequence[str] = _SYSTEM_FOLDERS,
) -> ProgramFile:
    """Return `executable` with its notes. Files of a container are not compared with the host's, in `folders`."""
    notes = _notes(executable, user_name, () if is_in_container else folders)
    return ProgramFile(executable.path, executable.device, executable.inode, tuple(notes))


def _notes(executable: Executable, user_name: Callable[[int], str], folders: Sequence[str]) -> Iterator[str]:
    if executable.is_deleted:
        yield "deleted"
    if executable.is_writable:
        yield "every user can write to it"
    if executable.is_in_shared_folder:
        yield "below a folder that every user can write to"
    if executable.owners:
        yield f"user {' and '.join(user_name(uid) for uid in sorted(executable.owners))} can replace it"
    if host_file := _host_file(executable.path, folders):
        yield f"not the host's {host_file}"


def _host_file(path: str, folders: Sequence[str]) -> str | None:
    """Return the host's program with the file name of `path`; None without one, or if `path` is that program."""
    name = path.rpartition("/")[2]
    candidates = [f"{folder}/{name}" for folder in folders] if name else []
    if any(path in (one, os.path.realpath(one)) for one in candidates):
        return None
    return next((one for one in candidates if os.path.isfile(one)), None)  # noqa: PTH113 - a path of text
