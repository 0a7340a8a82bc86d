"""Duration of a tick while one user shares a full table of descriptors among many processes.

Run with `python tests/bench/bench_files.py`, as root. Wall time of ticks in a collecting process like the daemon; the
walk over files, which goes on between the ticks, takes longer with each process, the ticks must not.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from measuring import Row, note, print_table
from subjects import built, sharing

PROCESSES = (0, 300, 1_000, 3_000)
TICKS = 50


def main() -> None:
    """Print the table, or run as its collecting process."""
    if len(sys.argv) > 1:
        collect()
    else:
        print_table(rows())


def rows() -> Iterator[Row]:
    """Yield the rows."""
    with built() as program:
        for processes in PROCESSES:
            note(f"ticks beside {processes:,} processes with one table of descriptors")
            with sharing(program, processes) if processes else contextlib.nullcontext(0) as files:
                command = [sys.executable, __file__, "collect"]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            ticks = json.loads(output)
            figure = f"median {statistics.median(ticks):.1f} ms, longest of {TICKS} {max(ticks):.1f} ms"
            target = "≤ twice the first row" if processes else ""
            yield Row(f"tick beside {files:,} open files of one user", target, {"bpf-watchdog": figure})


def collect() -> None:
    """Print the durations of ticks, in ms."""
    from watchdog.clock import SystemClock
    from watchdog.kernel.startup import start_collector
    from watchdog.measure.meter import Meter

    clock = SystemClock()
    collector, meter = start_collector(clock), Meter()
    meter.advance(collector.read(), clock.wall())
    ticks = []
    for _ in range(TICKS):
        time.sleep(0.2)
        began = time.perf_counter()
        meter.advance(collector.read(), clock.wall())
        ticks.append((time.perf_counter() - began) * 1e3)
    print(json.dumps(ticks))
    collector.close()


if __name__ == "__main__":
    main()
