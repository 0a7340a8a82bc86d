"""Shared by all benchmarks: rows of the table, and the kernel's figures of programs and processes."""

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
SUBJECTS = ("bpf-watchdog", "with --messages", "obvious program", "bpftrace", "tcplife")
"""The columns: the daemon, the daemon with its message probes attached, and three alternatives."""


@dataclass(frozen=True)
class Row:
    """One row of the table: the measurement, the target of the design, and the figure of each subject."""

    measurement: str
    target: str = ""
    figures: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"| {self.measurement} | {self.target} | {' | '.join(self.figures.get(name, '') for name in SUBJECTS)} |"


def print_table(rows: Iterable[Row]) -> None:
    """Print each row as soon as it is measured."""
    print(f"| measurement | target | {' | '.join(SUBJECTS)} |")
    print("|---|---|" + "---|" * len(SUBJECTS), flush=True)
    for row in rows:
        print(row, flush=True)


def note(text: str) -> None:
    """Show the progress on standard error."""
    print(f"   … {text}", file=sys.stderr, flush=True)


def ratio(ratios: list[float]) -> str:
    """Format a median and its range."""
    return f"{statistics.median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f})"


@contextlib.contextmanager
def counted_runs() -> Iterator[None]:
    """Enable BPF statistics: run time and runs of programs. They cost some 40 ns per run, included in the figures."""
    before = BPF_STATS.read_text()
    BPF_STATS.write_text("1")
    try:
        yield
    finally:
        BPF_STATS.write_text(before)


@dataclass(frozen=True)
class Program:
    """A BPF program, with run time and runs since its load, counted while BPF statistics were enabled."""

    name: str
    run_time_ns: int
    runs: int


def programs_of(pid: int) -> dict[int, Program]:
    """Return the BPF programs of one process, by id."""
    found = {}
    for fd in Path(f"/proc/{pid}/fdinfo").iterdir():
        number = re.search(r"^prog_id:\s+(\d+)", fd.read_text(), re.MULTILINE)
        if number:
            found[int(number[1])] = _program(int(number[1]))
    return found


def _program(number: int) -> Program:
    fd = libbpf.check_result(libbpf.library().bpf_prog_get_fd_by_id(number), "cannot open a program")
    try:
        info = libbpf.program_info(fd)
    finally:
        os.close(fd)
    return Program(info.name.decode(), info.run_time_ns, info.run_cnt)


def threads(pid: int) -> Iterator[Path]:
    """Return the folders of the threads of a process and of its children."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        yield thread
        for child in (thread / "children").read_text().split():
            yield from threads(int(child))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its children in seconds, exact to the ns (proc(5), schedstat)."""
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads(pid)) / 1e9


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)
