"""The fields of /proc/PID/stat that the daemon reads, proc_pid_stat(5)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from watchdog.clock import SECOND_NS

PROC: Final = Path("/proc")

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PARENT, _START = 1, 19  # index among the fields after the name: field 4, ppid, and field 22, starttime


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """One process. `comm`: with any bytes, as surrogates; `start_ticks`: start time in ticks of USER_HZ since boot."""

    comm: str
    parent_pid: int
    start_ticks: int

    def has_start(self, start_ns: int) -> bool:
        """Return whether the process started at `start_ns`, CLOCK_BOOTTIME. If not, its pid was used again."""
        return self.start_ticks == start_ns * _TICKS_PER_SECOND // SECOND_NS


def read_process_stat(pid: int, proc: Path = PROC) -> ProcessStat | None:
    """Return the stat of the process, None when it has ended. `proc`: folder in place of /proc."""
    try:
        text = (proc / str(pid) / "stat").read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return None
    # The name can contain spaces and parentheses: it ends at the last one.
    comm, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    if len(fields) <= _START:
        return None
    return ProcessStat(comm, int(fields[_PARENT]), int(fields[_START]))
