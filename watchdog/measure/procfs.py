"""Facts of a live process from /proc. An alert stores them, because the process can end before anyone reads the alert.

Every account can read them (proc(5)), except the link `exe`: that needs the right to trace the process, which the
daemon does not have. `read_process` reads only files for which the kernel takes no lock that a process can hold; the
command line is read by `process_reader.py`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from watchdog.kernel.process_stat import PROC, has_host_pids, may_be_alive, read_process_stat

MAX_PARENTS: Final = 5


@dataclass(frozen=True, slots=True)
class Process:
    """A live process. `is_hidden`: /proc does not show it to this account, so that nothing is known of it.

    `parents`: pid and name, the nearest first.
    """

    comm: str
    parents: tuple[tuple[int, str], ...]
    is_hidden: bool = False


HIDDEN: Final = Process("", (), is_hidden=True)


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The command line of a process.

    `arguments`: a single one where the process wrote its own title, none for kernel threads and zombies. `exe`: the
    path of the program, None where it is not readable.
    """

    arguments: tuple[str, ...]
    exe: str | None = None


class UnreadReason(enum.StrEnum):
    """Why the command line of a live process is not known. The values stand in saved documents."""

    HELD = "held"  # the process holds a lock that the reader needs, or memory that is slow to read
    LATE = "late"  # not read in time
    PAUSED = "paused"  # too many readers wait for such processes


def read_process(
    pid: int, start_ns: int | None = None, proc: Path = PROC, may_be_alive: Callable[[int], bool] = may_be_alive
) -> Process | None:
    """Return the facts of the process, None when it has ended.

    A process that can be alive although `proc` does not show it is `HIDDEN`.
    `start_ns`: its start, CLOCK_BOOTTIME; a process with another start only has the same pid. None: unknown.
    """
    stat = read_process_stat(pid, proc)
    if stat is None or (start_ns is not None and not stat.has_start(start_ns)):
        is_hidden = may_be_alive(pid) if stat is None else not has_host_pids()
        return HIDDEN if is_hidden else None
    return Process(stat.comm, tuple(_parents(proc, stat.parent_pid)))


def _parents(proc: Path, pid: int) -> Iterator[tuple[int, str]]:
    for _ in range(MAX_PARENTS):
        stat = read_process_stat(pid, proc) if pid else None
        if stat is None:
            return
        yield pid, stat.comm
        pid = stat.parent_pid
