"""All benchmarks in one run: one table of collecting, then the tables of the rule engine and of delivery.

Run with `make bench`, or `python tests/bench/everything.py` as root. A quarter of an hour.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bench_cost
import bench_error
import bench_files
import bench_pass
import bench_rates
import bench_rest
import bench_start
from measuring import Row, print_table

SEPARATE = ("bench_evaluate.py", "bench_latency.py")  # print their own tables


def main() -> None:
    """Print all tables."""
    print(f"{_cpu()}, {os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}\n")
    print_table(rows())
    for name in SEPARATE:
        print(f"\n`{name}`\n", flush=True)
        subprocess.run([sys.executable, Path(__file__).with_name(name)], check=True)


def rows() -> Iterator[Row]:
    """Yield the rows of all benchmarks of collecting."""
    for bench in (bench_cost, bench_rates, bench_pass, bench_files, bench_rest, bench_start, bench_error):
        yield from bench.rows()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


if __name__ == "__main__":
    main()
