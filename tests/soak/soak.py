"""Watch a mixed load for minutes, and compare the watchdog's counts with the load's own counts.

Arguments: seconds (default 600), connections per second (default 10000), number of busy programs that use the rest of
the CPU (default 0: the load only). Exit code 1 when a count differs, or when resident memory still grows after the
first minute.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "peers"))

from hidden_events import count_hidden_events  # noqa: E402

NAME = "soak-load"
DEFAULTS = [600, 10_000, 0]
BUSY = "while True: pass"
SETTLE_SECONDS = 3
# Growth allowed after the first minute: windows and name tables are still filling.
MAX_GROWTH_KIB = 4096


def main():
    """Run the soak; return the exit code."""
    given = [int(word) for word in sys.argv[1:]]
    seconds, rate, others = [*given, *DEFAULTS[len(given) :]]
    with tempfile.TemporaryDirectory() as folder, count_hidden_events() as unseen, busy(others):
        load = Path(folder) / NAME
        subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-o", load, HERE / "load.c"], check=True)
        watcher = subprocess.Popen(
            [sys.executable, HERE / "watch.py", NAME], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        watcher.stdout.readline()  # the baseline is read
        with tempfile.TemporaryFile("w+") as output:
            worker = subprocess.Popen([load, str(seconds), str(rate)], stdout=output)
            lines = collect_lines(watcher, worker)
            if worker.returncode != 0:
                raise SystemExit("the load failed")
            output.seek(0)
            expected = json.loads(output.read())
        return report(expected, lines, seconds, unseen.count())


@contextlib.contextmanager
def busy(count):
    """Run `count` busy programs within the block."""
    programs = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def collect_lines(watcher, worker):
    """Collect the watcher's lines until some seconds after the load's end."""
    lines, end = [], None
    for line in watcher.stdout:
        lines.append(json.loads(line))
        if end is None and worker.poll() is not None:
            end = time.monotonic() + SETTLE_SECONDS
        elif end is not None and time.monotonic() > end and not watcher.stdin.closed:
            watcher.stdin.close()
    watcher.wait(10)
    return lines


def report(expected, lines, seconds, unseen):
    """Print the comparison as a table; return the exit code. `unseen`: events invisible to every program."""
    last = lines[-1]
    print(f"| count over {seconds} s | load | watchdog | difference |\n|---|---|---|---|")
    good = True
    for name, number in expected.items():
        difference = last["totals"].get(name, 0) - number
        # An event that no program sees hides at most one connection, with all its bytes.
        hidden = sys.maxsize if unseen and name.startswith("bytes") else unseen
        good &= -hidden <= difference <= 0
        print(f"| {name} | {number:,} | {last['totals'].get(name, 0):,} | {difference:,} |")
    residents = [line["resident_kib"] for line in lines]
    after_a_minute = residents[min(60, len(residents) - 1)]
    growth = residents[-1] - after_a_minute
    good &= growth <= MAX_GROWTH_KIB
    passes = sorted(line["pass_ms"] for line in lines)
    print(f"\nlosses counted: { {name: number for name, number in last['lost'].items() if number} or 'none' }")
    print(f"resident: {after_a_minute / 1024:.1f} MiB after a minute, {residents[-1] / 1024:.1f} MiB at the end")
    print(f"pass: median {passes[len(passes) // 2]:.2f} ms, maximum {passes[-1]:.2f} ms")
    print(f"state transitions that this kernel shows to no program (tests/peers/hidden_events.py): {unseen}")
    print("no difference" if good else "DIFFERENT from the load, or growing memory")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
