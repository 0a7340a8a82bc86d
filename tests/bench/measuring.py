"""What all benchmarks share: rows of the table, what the kernel says of programs and processes."""

import contextlib
import os
import re
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from watchdog.kernel import libbpf

BPF_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
SUBJECTS = ("bpf-watchdog", "with --messages", "obvious program", "bpftrace")
"""The columns: the daemon, the same with its programs for messages attached, and what one could use instead."""


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, what the design asks of us, and the figure of each subject."""

    what: str
    reach: str = ""
    figures: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"| {self.what} | {self.reach} | {' | '.join(self.figures.get(name, '') for name in SUBJECTS)} |"


def print_table(rows: Iterable[Row]) -> None:
    """Print the rows as they come."""
    print(f"| what | to reach | {' | '.join(SUBJECTS)} |")
    print("|---|---|" + "---|" * len(SUBJECTS), flush=True)
    for row in rows:
        print(row, flush=True)


def note(text: str) -> None:
    """Tell a waiting person what is going on."""
    print(f"   … {text}", file=sys.stderr, flush=True)


def ratio(ratios: list[float]) -> str:
    """Write a median and its range."""
    return f"{statistics.median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f})"


@contextlib.contextmanager
def counted_runs() -> Iterator[None]:
    """Let the kernel account for run time and runs of programs; it costs some 40 ns a run, which are in the figures."""
    before = BPF_STATS.read_text()
    BPF_STATS.write_text("1")
    try:
        yield
    finally:
        BPF_STATS.write_text(before)


@dataclass(frozen=True)
class Program:
    """A BPF program, with run time and runs since it was loaded, as far as they were counted."""

    name: str
    run_time_ns: int
    runs: int


def programs_of(pid: int) -> dict[int, Program]:
    """Return the BPF programs that a process holds, by id; other processes' are none of our business."""
    found = {}
    for fd in Path(f"/proc/{pid}/fdinfo").iterdir():
        number = re.search(r"^prog_id:\s+(\d+)", fd.read_text(), re.MULTILINE)
        if number:
            found[int(number[1])] = _program(int(number[1]))
    return found


def _program(number: int) -> Program:
    fd = libbpf.check_result(libbpf.library().bpf_prog_get_fd_by_id(number), "opening a program")
    try:
        info = libbpf.program_info(fd)
    finally:
        os.close(fd)
    return Program(info.name.decode(), info.run_time_ns, info.run_cnt)


def threads(pid: int) -> Iterator[Path]:
    """Return the folders of a process's threads and of those of its children."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        yield thread
        for child in (thread / "children").read_text().split():
            yield from threads(int(child))


def cpu_seconds(pid: int) -> float:
    """Return how long a process and its children ran, to the ns (proc(5), schedstat)."""
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads(pid)) / 1e9


def resident_mb(pid: int) -> float:
    """Return a process's resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)
