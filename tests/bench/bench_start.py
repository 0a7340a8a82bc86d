"""Waiting times of a user: until the daemon's first sample, and for `check` of many rules.

Run with `python tests/bench/bench_start.py`, as root.
"""

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from measuring import Row, note, print_table
from subjects import COMMAND, SUBJECTS, rules_text

RULES = 500
ROUNDS = 5


def main() -> None:
    """Print the table."""
    print_table(rows())


def rows() -> Iterator[Row]:
    """Yield the rows."""
    note("start")
    figures = {name: _seconds(lambda subject=subject: _start(subject)) for name, subject in SUBJECTS.items()}
    yield Row("start to first sample (others: to first count)", "≤ 2 s", figures)
    note("check")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rules.toml"
        file.write_text(rules_text(RULES))
        yield Row(f"`check` of {RULES} rules", "< 1 s", {"bpf-watchdog": _seconds(lambda: _check(file))})


def _seconds(action: Callable[[], float]) -> str:
    return f"{statistics.median(action() for _ in range(ROUNDS)):.2f} s"


def _start(subject: Callable[[], object]) -> float:
    began = time.perf_counter()
    with subject():  # entered when the subject reports that it runs: the daemon does so after its first sample
        return time.perf_counter() - began


def _check(file: Path) -> float:
    began = time.perf_counter()
    subprocess.run([COMMAND, "check", file], check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
