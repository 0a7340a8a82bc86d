"""Descriptors and children that a call leaves behind, and a process without free descriptors."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path


def open_descriptors():
    """Return the names of the open descriptors, that of the listed folder among them."""
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


def child_processes():
    """Return the pids of all children, those that have ended and were not reaped too."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if int(status.read_bytes().rpartition(b")")[2].split()[1]) == os.getpid():
                found.add(int(status.parent.name))
    return found


@contextlib.contextmanager
def descriptors_left(count):
    """Let this process open at most `count` further descriptors at a time."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.open(os.devnull, os.O_RDONLY) for _ in range(count + 1)]  # the kernel gives the lowest numbers first
    for descriptor in free:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
