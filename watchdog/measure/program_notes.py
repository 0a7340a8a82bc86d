"""Notes on the executable of a process: how it differs from a program that root has installed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence

from watchdog.kernel.executables import Executable
from watchdog.measure.program_file import ProgramFile

_DYNAMIC_LINKER = re.compile(r"ld(?:64)?(?:-[\w.-]+)?\.so(?:\.\d+)?")  # ld.so(8): given a program, it runs that one
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
    if _DYNAMIC_LINKER.fullmatch(executable.path.rpartition("/")[2]):
        yield "runs a program that only its command line names"
    if host_file := _host_file(executable, folders):
        yield f"not the host's {host_file}"


def _host_file(executable: Executable, folders: Sequence[str]) -> str | None:
    """Return the host's program with the file name of the executable; None without one, or if that is the executable.

    A process can put another file at the path of a program, in a mount namespace of its own: the inode tells.
    """
    path = executable.path
    name = path.rpartition("/")[2]
    candidates = [f"{folder}/{name}" for folder in folders] if name else []
    programs = {one: status for one in candidates if (status := _program_status(one)) is not None}
    for one, status in programs.items():
        if path in (one, os.path.realpath(one)):
            return None if executable.is_deleted or status.st_ino == executable.inode else path
    return next(iter(programs), None)


def _program_status(path: str) -> os.stat_result | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - a path of text
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None
