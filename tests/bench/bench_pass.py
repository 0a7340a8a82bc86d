"""Duration of one tick: the pass over live sockets, the reading of closed connections, and the measurement.

Run with `python tests/bench/bench_pass.py`, as root. Wall time in a collecting process like the daemon, median of
several ticks. Before each tick, a share of the connections carries a byte; the others are idle.
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

# Sockets, percent of them active: most for pass and measurement together.
LOADS = {
    (1_000, 0): "",
    (10_000, 1): "≤ 3 ms",
    (10_000, 10): "",
    (10_000, 100): "",
    (100_000, 1): "≤ 25 ms",
    (100_000, 10): "",
    (100_000, 100): "≤ 100 ms",
}
# What the shipped rules use.
USED_DIMENSIONS = ("process", "unit", "user", "direction", "state")
USED_METRICS = ("connects", "established", "bytes_sent", "bytes_received", "retransmits", "packets_sent", "open")
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
        for (size, percent), target in LOADS.items():
            note(f"a tick over {size:,} sockets, {percent} % active")
            with held(program, size, percent) as send, _collecting(65_536) as ask:
                ticks = []
                for _ in range(TICKS):
                    send()
                    ticks.append(ask())
            what = f"{size:,} live sockets, {percent} % active"
            yield Row(f"tick over {what}", target, _ours(ticks, "tick_ms"))
            yield Row("  of this, the pass", "", _ours(ticks, "pass_ms"))
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
        snapshot = meter.advance(reading, clock.wall())
        for columns, names in ((snapshot.dimensions, USED_DIMENSIONS), (snapshot.metrics, USED_METRICS)):
            _ = [columns[name] for name in names]  # made at their first use
        ended = time.perf_counter()
        durations = {
            "pass_ms": reading.quality.pass_seconds * 1e3,
            "read_ms": (read - began - reading.quality.pass_seconds) * 1e3,
            "measure_ms": (ended - read) * 1e3,
            "tick_ms": (ended - began) * 1e3,
        }
        print(json.dumps({"live": len(reading.live), "closed": len(reading.closed), **durations}), flush=True)
    collector.close()


if __name__ == "__main__":
    main()
