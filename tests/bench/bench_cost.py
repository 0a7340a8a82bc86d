"""Kernel cost of a message and of a connection, by BPF statistics.

Run with `python tests/bench/bench_cost.py`, as root. The cost is the run time of all programs of the subject, divided
by the messages or connections of a generator; it includes some 50 ns per run of the statistics' own bookkeeping. The
cost of perf tracepoints, which bpftrace uses, is not in it; the ratios of bench_rates.py include it.
"""

import statistics
from collections.abc import Iterator
from pathlib import Path

from measuring import Row, counted_runs, note, print_table, programs_of
from subjects import SUBJECTS, built, traffic

MESSAGES, CONNECTIONS, SIZE = 100_000, 10_000, 64
ROUNDS = 5


def main() -> None:
    """Print the table."""
    print_table(rows())


def rows() -> Iterator[Row]:
    """Yield the rows."""
    names, message, connection = {}, {}, {}
    with built() as program:
        for name, subject in SUBJECTS.items():
            note(f"cost: {name}")
            with subject() as watching, counted_runs():
                names[name] = ", ".join(_running(program, watching.pid)) or "none"
                message[name] = f"{_ns(program, 'messages', MESSAGES, watching.pid) / 2:.0f} ns"
                connection[name] = f"{_ns(program, 'connections', CONNECTIONS, watching.pid) / 1e3:.2f} µs"
    yield Row("programs that run at messages", "none", names)
    yield Row("kernel cost per message", "0", message)
    yield Row(f"kernel cost per connection, both ends, {SIZE} bytes sent", "≤ 1.5 µs", connection)


def _running(program: Path, pid: int) -> list[str]:
    # A program that runs for few of the messages belongs to other events: the pass over sockets, the connection.
    before = programs_of(pid)
    traffic(program, "messages", MESSAGES, SIZE)
    after = programs_of(pid)
    return sorted(after[key].name for key in after if after[key].runs - before[key].runs >= MESSAGES)


def _ns(program: Path, kind: str, count: int, pid: int) -> float:
    """Return the run time in ns per message or connection, without the pass over sockets: the median of rounds."""
    figures = []
    for _ in range(ROUNDS):
        before = programs_of(pid)
        traffic(program, kind, count, SIZE)
        after = programs_of(pid)
        spent = [
            after[key].run_time_ns - before[key].run_time_ns
            for key in after
            if after[key].name not in ("task_file", "bpf_sk_storage_map")
        ]
        figures.append(sum(spent) / count)
    return statistics.median(figures)


if __name__ == "__main__":
    main()
