"""Resident memory and CPU at rest: all sockets are idle.

Run with `python tests/bench/bench_rest.py [SOCKETS…]`, as root. The daemon runs 50 rules at an interval of 1 s.
"""

import sys
import time
from collections.abc import Iterator, Sequence

from measuring import Row, cpu_seconds, note, print_table, resident_mb
from subjects import SUBJECTS, built, daemon, held

SIZES = (1_000, 10_000, 100_000)
RULES = 50
SETTLE_SECONDS, SECONDS = 4, 10


def main() -> None:
    """Print the table."""
    print_table(rows([int(word) for word in sys.argv[1:]] or SIZES))


def rows(sizes: Sequence[int] = SIZES) -> Iterator[Row]:
    """Yield the rows."""
    subjects = SUBJECTS | {
        "bpf-watchdog": lambda: daemon(RULES),
        "with --messages": lambda: daemon(RULES, with_message_probes=True),
    }
    with built() as program:
        for size in sizes:
            memory, cpu = {}, {}
            with held(program, size):
                for name, subject in subjects.items():
                    note(f"at rest: {name}, {size:,} sockets")
                    with subject() as watching:
                        time.sleep(SETTLE_SECONDS)
                        before = cpu_seconds(watching.pid)
                        time.sleep(SECONDS)
                        cpu[name] = f"{(cpu_seconds(watching.pid) - before) / SECONDS:.2%}"
                        memory[name] = f"{resident_mb(watching.pid):.0f} MB"
            first = size == min(sizes)
            yield Row(f"resident memory, {size:,} sockets, {RULES} rules", "≤ 60 MB" if first else "", memory)
            yield Row(f"CPU of one core, {size:,} sockets, {RULES} rules", "≤ 1 %" if first else "", cpu)


if __name__ == "__main__":
    main()
