"""Duration of one tick: the pass over live sockets, the reading of closed connections, and the measurement.

Run with `python tests/bench/bench_pass.py`, as root. Wall time in a collecting process like the daemon, median of
several ticks; the sockets are idle.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from measuring import Row, note, print_table
from subjects import built, held, traffic

SIZES = {1_000: "", 10_000: "≤ 5 ms", 100_000: "≤ 60 ms"}
CLOSED = 100_000
TICKS = 7


def main() -> None:
    """Print the table, or run as its collecting process."""
    if len(sys.argv) > 1:
        collect(int(sys.argv[1]))
    else:
        print_table(rows())


def rows() -> Iterator[Row]:
    """Yield the rows."""
    with built() as program:
        for size, target in SIZES.items():
            note(f"a tick over {size:,} sockets")
            with held(program, size), _collecting(65_536) as ask:
                ticks = [ask() for _ in range(TICKS)]
            yield Row(f"pass over {size:,} live sockets", target, _ours(ticks, "pass_ms"))
            measure_target = "≤ 60 ms" if size == max(SIZES) else ""
            yield Row(f"differences, attribution, snapshot of {size:,}", measure_target, _ours(ticks, "measure_ms"))
        note(f"reading {CLOSED:,} closed connections")
        with _collecting(2 * CLOSED) as ask:
            readings = []
            for _ in range(3):
                traffic(program, "connections", CLOSED // 2)  # both ends of each are on this host
                readings.append(ask())
                if readings[-1]["closed"] < CLOSED:
                    raise RuntimeError(f"{readings[-1]['closed']} closed, not {CLOSED}")
        yield Row(f"reading {CLOSED:,} closed connections", "≤ 25 ms", _ours(readings, "read_ms"))
        yield Row(f"differences, attribution, snapshot of {CLOSED:,} closed", "", _ours(readings, "measure_ms"))


def _ours(ticks: list[dict], name: str) -> dict[str, str]:
    return {"bpf-watchdog": f"{statistics.median(tick[name] for tick in ticks):.1f} ms"}


@contextlib.contextmanager
def _collecting(capacity: int) -> Iterator[Callable[[], dict]]:
    command = [sys.executable, __file__, str(capacity)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask() -> dict:
            process.stdin.write("\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        ask()
        yield ask


def collect(capacity: int) -> None:
    """Collect and measure once for each line of standard input; print the durations."""
    from watchdog.clock import SystemClock
    from watchdog.config.map_sizes import MapSizes
    from watchdog.kernel.startup import start_collector
    from watchdog.measure.meter import Meter

    clock = SystemClock()
    collector, meter = start_collector(clock, MapSizes(ledger=capacity)), Meter()
    meter.advance(collector.read(), clock.wall())
    for _ in sys.stdin:
        began = time.perf_counter()
        reading = collector.read()
        read = time.perf_counter()
        meter.advance(reading, clock.wall())
        ended = time.perf_counter()
        durations = {
            "pass_ms": reading.quality.pass_seconds * 1e3,
            "read_ms": (read - began - reading.quality.pass_seconds) * 1e3,
            "measure_ms": (ended - read) * 1e3,
        }
        print(json.dumps({"live": len(reading.live), "closed": len(reading.closed), **durations}), flush=True)
    collector.close()


if __name__ == "__main__":
    main()
