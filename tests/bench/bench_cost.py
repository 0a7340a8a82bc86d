"""What a message and a connection cost in the kernel while somebody watches, by the kernel's own account.

Run with `python tests/bench/bench_cost.py`, as root. The account is that of BPF statistics: the run time of every program
that the subject loaded, its own overhead included, over the messages or connections of a generator. bpftrace hangs on
perf tracepoints, whose cost is not in that account; the ratios of bench_rates.py hold it.
"""

import statistics
from collections.abc import Iterator
from pathlib import Path

from measuring import Row, counted_runs, note, print_table, programs
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
            others = set(programs())
            with subject(), counted_runs():
                names[name] = ", ".join(_running(program, others)) or "none"
                message[name] = f"{_ns(program, 'messages', MESSAGES, others) / 2:.0f} ns"
                connection[name] = f"{_ns(program, 'connections', CONNECTIONS, others) / 1e3:.2f} µs"
    yield Row("programs that ran at messages", "none", names)
    yield Row("kernel cost per message", "0", message)
    yield Row(f"kernel cost per connection, both ends, {SIZE} bytes sent", "≤ 1.5 µs", connection)


def _running(program: Path, others: set[int]) -> list[str]:
    # A program that runs for hardly any of the messages runs for something else: the pass over sockets, the connection.
    before = programs()
    traffic(program, "messages", MESSAGES, SIZE)
    after = programs()
    ran = {key: after[key].runs - (before[key].runs if key in before else 0) for key in set(after) - others}
    return sorted(after[key].name for key, runs in ran.items() if runs >= MESSAGES)


def _ns(program: Path, kind: str, count: int, others: set[int]) -> float:
    """Return the run time of all programs but `others` and iterators per unit of traffic, the median of rounds."""
    figures = []
    for _ in range(ROUNDS):
        before = programs()
        traffic(program, kind, count, SIZE)
        after = programs()
        ours = [key for key in after if key in before and key not in others and after[key].name != "task_file"]
        figures.append(sum(after[key].run_time_ns - before[key].run_time_ns for key in ours) / count)
    return statistics.median(figures)


if __name__ == "__main__":
    main()
