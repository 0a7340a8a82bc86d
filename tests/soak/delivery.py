"""Kill a delivering process thousands of times at random moments, and check the guarantees on the notifications.

Argument: number of kills (default 5000). Every two hundred kills have their own state folder; see
tests/fault/repeated_kills.py. Exit code 1 when a notification is missing, repeated without need or out of order, or
when an alert does not have exactly one resolved notification.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

KILLING = Path(__file__).parents[1] / "fault/repeated_kills.py"
KILLS = 5_000
ROUND = 200
GUARANTEES = {
    "missing": "notifications missing",
    "copies": "copies of notifications that were not in delivery at a kill",
    "disorder": "notifications out of order",
    "ends": "alerts without exactly one resolved notification",
}


def main():
    """Run the soak; return the exit code."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else KILLS
    started = time.monotonic()
    total, slowest = Counter(), 0.0
    for seed in range(-(-kills // ROUND)):
        figures = kill(min(ROUND, kills - seed * ROUND), seed)
        slowest = max(slowest, figures.pop("start_seconds")["p99"])
        total.update(figures)
    print(f"| over {total['kills']:,} kills in {time.monotonic() - started:,.0f} s | |\n|---|---|")
    print(
        f"| notifications created / received (others merged into these) | {total['notifications']:,} / "
        f"{total['arrived']:,} |"
    )
    print(f"| copies of notifications in delivery at a kill, or refused | {total['repeated']:,} |")
    for kind, description in GUARANTEES.items():
        print(f"| {description} | {total[kind]:,} |")
    print(f"| from start to the first tick, 99th percentile of the slowest round | {slowest * 1e3:.0f} ms |")
    good = not any(total[kind] for kind in GUARANTEES)
    print("\nall guarantees hold" if good else "\na guarantee is BROKEN")
    return 0 if good else 1


def kill(kills, seed):
    with tempfile.TemporaryDirectory() as folder:
        finished = subprocess.run(
            [sys.executable, KILLING, folder, str(kills), str(seed)], stdout=subprocess.PIPE, check=True
        )
    return json.loads(finished.stdout)


if __name__ == "__main__":
    sys.exit(main())
