"""Events that a kernel shows to no program: what a host that guards its own supervisor leaves out of any count.

Some sandboxes' kernels run no BPF program in the context of their own process 1. When a packet's softirq lands there,
what it does to other processes' sockets is unseen, and no counter of the kernel tells of it. Stock kernels do not do
this. Trace events are recorded there all the same, and tell a test how much it cannot ask for.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

TRACEFS = Path("/sys/kernel/tracing")


class Unseen:
    """A count that goes on: changes of the state of sockets in the context of process 1."""

    def __init__(self, instance: Path) -> None:
        self._instance = instance

    def count(self) -> int:
        """Return how many there were since the start."""
        statistics = (file.read_text() for file in self._instance.glob("per_cpu/cpu*/stats"))
        lines = (line.split(": ") for text in statistics for line in text.splitlines())
        return sum(int(value) for name, value in lines if name in ("entries", "overrun", "dropped events"))


@contextlib.contextmanager
def counting_unseen() -> Iterator[Unseen]:
    """Count within the block; needs root."""
    mounted = not any(TRACEFS.iterdir())
    if mounted:
        subprocess.run(["mount", "-t", "tracefs", "nodev", TRACEFS], check=True)
    instance = TRACEFS / "instances" / f"bpf-watchdog-{os.getpid()}"
    instance.mkdir()
    try:
        tasks = " ".join(task.name for task in Path("/proc/1/task").iterdir())
        (instance / "set_event_pid").write_text(tasks)
        (instance / "events/sock/inet_sock_set_state/enable").write_text("1")
        yield Unseen(instance)
    finally:
        instance.rmdir()
        if mounted:
            subprocess.run(["umount", TRACEFS], check=True)
