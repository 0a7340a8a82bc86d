"""Counts socket events that some kernels hide from every BPF program.

The kernels of some sandboxes run no BPF program in the context of their own process 1. When the softirq of a packet
runs there, changes of other processes' sockets are hidden, and no counter of the kernel shows it. Stock kernels do not
do this. Trace events are recorded nevertheless, so that a test knows how many events it cannot expect.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

TRACEFS = Path("/sys/kernel/tracing")


class HiddenEvents:
    """A running count of socket state changes in the context of process 1."""

    def __init__(self, instance: Path) -> None:
        self._instance = instance

    def count(self) -> int:
        """Return the number of events since the start."""
        statistics = (file.read_text() for file in self._instance.glob("per_cpu/cpu*/stats"))
        lines = (line.split(": ") for text in statistics for line in text.splitlines())
        return sum(int(value) for name, value in lines if name in ("entries", "overrun", "dropped events"))


@contextlib.contextmanager
def count_hidden_events() -> Iterator[HiddenEvents]:
    """Count inside the block; needs root."""
    mounted = not any(TRACEFS.iterdir())
    if mounted:
        subprocess.run(["mount", "-t", "tracefs", "nodev", TRACEFS], check=True)
    instance = TRACEFS / "instances" / f"bpf-watchdog-{os.getpid()}"
    instance.mkdir()
    try:
        tasks = " ".join(task.name for task in Path("/proc/1/task").iterdir())
        (instance / "set_event_pid").write_text(tasks)
        (instance / "events/sock/inet_sock_set_state/enable").write_text("1")
        yield HiddenEvents(instance)
    finally:
        instance.rmdir()
        if mounted:
            subprocess.run(["umount", TRACEFS], check=True)
