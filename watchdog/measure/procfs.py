"""What /proc says of a process while it is there: an alert tells it, for the process will be gone when someone looks.

Everyone may read it (proc(5)), but for the link `exe`, which takes the right to trace the process: the daemon has none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from watchdog.clock import SECOND_NS

MAX_PARENTS: Final = 5

_MAX_CMDLINE_BYTES = 1_024  # of a command line: more than anyone is shown, for masked secrets make it shorter
_TICKS = os.sysconf("SC_CLK_TCK")
_PPID, _START = 1, 19  # of the fields behind the name, proc_pid_stat(5)


@dataclass(frozen=True, slots=True)
class Process:
    """A process that lives.

    `exe`: the path, None where it may not be read. `arguments`: one where the process has written its own title, none
    for kernel threads and zombies. `parents`: pid and name, the nearest first.
    """

    comm: str
    exe: str | None
    arguments: tuple[str, ...]
    parents: tuple[tuple[int, str], ...]


def read_process(pid: int, start_ns: int | None = None, proc: Path = Path("/proc")) -> Process | None:
    """Return what is known of the process, None where it is gone.

    `start_ns`: when it began, by CLOCK_BOOTTIME: one that began at another time is another's. None: not known.
    """
    stat = _stat(proc, pid)
    if stat is None or (start_ns is not None and stat[_START + 1] != str(start_ns * _TICKS // SECOND_NS)):
        return None
    return Process(stat[0], _exe(proc, pid), _arguments(proc, pid), tuple(_parents(proc, int(stat[_PPID + 1]))))


def _stat(proc: Path, pid: int) -> list[str] | None:
    """Return the name and the fields behind it; the name may hold anything."""
    try:
        text = (proc / str(pid) / "stat").read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    return [name, *fields] if len(fields) > _START else None


def _exe(proc: Path, pid: int) -> str | None:
    try:
        return os.readlink(proc / str(pid) / "exe")
    except OSError:
        return None


def _arguments(proc: Path, pid: int) -> tuple[str, ...]:
    with contextlib.suppress(OSError), (proc / str(pid) / "cmdline").open("rb") as file:
        text = file.read(_MAX_CMDLINE_BYTES).decode("utf-8", "surrogateescape")
        return tuple(text.rstrip("\0").split("\0")) if text.strip("\0") else ()
    return ()


def _parents(proc: Path, pid: int) -> Iterator[tuple[int, str]]:
    for _ in range(MAX_PARENTS):
        stat = _stat(proc, pid) if pid else None
        if stat is None:
            return
        yield pid, stat[0]
        pid = int(stat[_PPID + 1])
