"""Clocks: durations are measured by CLOCK_BOOTTIME; the wall clock is for display and calendars only.

Code that needs the time takes a `Clock`, so that tests can advance it.
"""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

SECOND_NS = 1_000_000_000


class Clock(Protocol):
    """The two clocks that the daemon reads."""

    def boottime_ns(self) -> int:
        """Return CLOCK_BOOTTIME in ns: monotonic, counts suspend, starts at boot."""
        ...

    def wall(self) -> float:
        """Return the wall clock in seconds since 1970, UTC. It may step either way at any time."""
        ...


class SystemClock:
    """The kernel's clocks."""

    def boottime_ns(self) -> int:
        """Return CLOCK_BOOTTIME in ns, of the host: the kernel half knows no time namespace."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - boottime_offset_ns()

    def wall(self) -> float:
        """Return CLOCK_REALTIME in seconds."""
        return time.time()


@dataclass(frozen=True, slots=True)
class Now:
    """One moment on both clocks.

    `boottime_ns`: CLOCK_BOOTTIME in ns, for durations. `wall`: seconds since 1970, UTC, for display only.
    """

    boottime_ns: int
    wall: float

    @classmethod
    def read(cls, clock: Clock) -> Self:
        """Return the present moment of `clock`."""
        return cls(clock.boottime_ns(), clock.wall())


def local_seconds(wall: float) -> float:
    """Return the seconds of local time since 1970-01-01 00:00, local time, at the wall-clock time `wall`."""
    time.tzset()  # the zone of the host may have changed
    return wall + time.localtime(wall).tm_gmtoff


@functools.cache
def boottime_offset_ns(proc: Path = Path("/proc/self")) -> int:
    """Return the offset of CLOCK_BOOTTIME in this process's time namespace, time_namespaces(7); 0 in the host's."""
    try:
        # timens_offsets is of the namespace for children: this process's own, if it did not call unshare itself.
        if os.readlink(proc / "ns/time") != os.readlink(proc / "ns/time_for_children"):
            return 0
        lines = (proc / "timens_offsets").read_text(encoding="ascii").splitlines()
    except OSError:  # a kernel without time namespaces
        return 0
    offsets = {name: int(seconds) * SECOND_NS + int(ns) for name, seconds, ns in map(str.split, lines)}
    return offsets.get("boottime", 0)


@functools.cache
def boot_id() -> str:
    """Return the kernel's id of this boot: CLOCK_BOOTTIME values compare only within one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
