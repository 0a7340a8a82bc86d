"""The file that a process executes, as the kernel knows it: path, device, inode, and who can change it."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from watchdog.errors import NotPermitted
from watchdog.kernel import libbpf
from watchdog.kernel.layout import EXECUTABLE

_DELETED = b" (deleted)"  # d_path appends it (fs/d_path.c)
_MINOR_BITS = 20  # of s_dev (include/linux/kdev_t.h)
_WRITABLE_BY_OTHERS = 0o002


@dataclass(frozen=True, slots=True)
class Executable:
    """The executable of one process.

    `path`: in the mount namespace of the process, "" if it is longer than 4,095 bytes. `device`: "major:minor" of the
    file system. `is_deleted`: no folder has the file any more. `owners`: users besides root who own the file, or the
    nearest folder above it that root does not own or that every user can write to, as far up as its mount.
    `is_writable`, `is_in_shared_folder`: every user can write to the file, to that folder.
    """

    path: str
    device: str
    inode: int
    is_deleted: bool
    owners: frozenset[int] = frozenset()
    is_writable: bool = False
    is_in_shared_folder: bool = False


class ExecutableReader:
    """Reads the executables of live processes by an iterator over tasks, without a lock of the process."""

    def __init__(self, program: int | None) -> None:
        """Read by the iterator `program`; None: this kernel cannot run it, and nothing is known."""
        self._program = program

    def read(self, pid: int, start_ns: int) -> Executable | None:
        """Return the executable of the process with this start, CLOCK_BOOTTIME; None: it has ended or is not known."""
        if self._program is None:
            return None
        try:
            data = _read_iterator(self._program, pid)
        except (OSError, NotPermitted):  # it has ended, or the kernel allows no new link
            return None
        if len(data) != EXECUTABLE.itemsize:
            return None
        record = np.frombuffer(data, EXECUTABLE)[0]
        if (int(record["tgid"]), int(record["start_ns"])) != (pid, start_ns):
            return None
        return _executable(record)


def _read_iterator(program: int, pid: int) -> bytes:
    link = libbpf.link_task_iterator(program, pid)
    try:
        iterator = libbpf.open_iterator(link)
    finally:
        os.close(link)
    try:
        data = b""
        while part := os.read(iterator, EXECUTABLE.itemsize):
            data += part
    finally:
        os.close(iterator)
    return data


def _executable(record: np.void) -> Executable:
    path = bytes(record["path"]).partition(b"\0")[0]  # behind it, the kernel leaves a part of a former text
    device = int(record["device"])
    return Executable(
        path=os.fsdecode(path.removesuffix(_DELETED)),
        device=f"{device >> _MINOR_BITS}:{device & ((1 << _MINOR_BITS) - 1)}",
        inode=int(record["inode"]),
        is_deleted=path.endswith(_DELETED),
        owners=frozenset((int(record["uid"]), int(record["folder_uid"]))) - {0},
        is_writable=bool(int(record["mode"]) & _WRITABLE_BY_OTHERS),
        is_in_shared_folder=bool(int(record["folder_mode"]) & _WRITABLE_BY_OTHERS),
    )
