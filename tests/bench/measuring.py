"""What all benchmarks share: rows of the table, alternated pairs, what the kernel says of programs and processes."""

import contextlib
import ctypes
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from watchdog.kernel import libbpf
from watchdog.kernel.libbpf import ProgramInfo

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


def paired(pairs: int, without: Callable[[], float], with_it: Callable[[], float]) -> list[float]:
    """Return the ratios with : without of so many pairs, measured in turn, each second pair in reverse order."""
    ratios = []
    for number in range(pairs):
        if number % 2:
            second, first = with_it(), without()
        else:
            first, second = without(), with_it()
        ratios.append(second / first)
    return ratios


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

    number: int
    name: str
    run_time_ns: int
    runs: int


def programs() -> dict[int, Program]:
    """Return every BPF program of this kernel by its id."""
    lib, number, found = libbpf.library(), ctypes.c_uint32(0), {}
    while lib.bpf_prog_get_next_id(number, ctypes.byref(number)) == 0:
        fd = lib.bpf_prog_get_fd_by_id(number)
        if fd < 0:
            continue  # gone meanwhile
        info, size = ProgramInfo(), ctypes.c_uint32(ctypes.sizeof(ProgramInfo))
        libbpf.checked(lib.bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)), "asking about a program")
        os.close(fd)
        found[number.value] = Program(number.value, info.name.decode(), info.run_time_ns, info.run_cnt)
    return found


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
