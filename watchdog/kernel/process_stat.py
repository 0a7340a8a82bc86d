"""The fields of /proc/PID/stat that the daemon reads, proc_pid_stat(5)."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from watchdog.clock import SECOND_NS, boottime_offset_ns

PROC: Final = Path("/proc")

_INITIAL_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO, include/linux/proc_ns.h
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PARENT, _START = 1, 19  # index among the fields after the name: field 4, ppid, and field 22, starttime


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """One process. `comm`: with any bytes, as surrogates; `start_ticks`: start time in ticks of USER_HZ since boot.

    The start is by the clock of this time namespace (proc_pid_stat(5)).
    """

    comm: str
    parent_pid: int
    start_ticks: int

    def has_start(self, start_ns: int) -> bool:
        """Return whether it started at `start_ns`, CLOCK_BOOTTIME of the host. If not, its pid was used again."""
        return self.start_ticks == (start_ns + boottime_offset_ns()) * _TICKS_PER_SECOND // SECOND_NS


@functools.cache
def has_host_pids() -> bool:
    """Return whether pids here are those of the kernel half; in other namespaces they are other processes."""
    try:
        return os.readlink("/proc/self/ns/pid") == _INITIAL_PID_NAMESPACE
    except OSError:
        return True


def may_be_alive(pid: int) -> bool:
    """Return whether a process that /proc does not show can be alive: hidden by `hidepid`, or in another namespace.

    Signal 0 only asks for the process, and `hidepid` does not apply to kill(2).
    """
    if not has_host_pids():
        return True
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def read_process_stat(pid: int, proc: Path = PROC) -> ProcessStat | None:
    """Return the stat of the process; None when it has ended or is hidden, or the text has another form.

    `proc`: folder in place of /proc.
    """
    try:
        text = (proc / str(pid) / "stat").read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return None
    # The name can contain spaces and parentheses: it ends at the last one.
    comm, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    if len(fields) <= _START or not (fields[_PARENT].isdecimal() and fields[_START].isdecimal()):
        return None
    return ProcessStat(comm, int(fields[_PARENT]), int(fields[_START]))
