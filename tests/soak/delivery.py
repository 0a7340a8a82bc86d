"""Kill a delivering process thousands of times at random moments, and hold what arrived against what was promised.

Argument: how many kills (default 5000). Each two hundred live on a state folder of their own;
see tests/fault/killing.py.
Exit code 1 when a notice is missing, came again without need or out of order, or when an end was not told once.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

KILLING = Path(__file__).parents[1] / "fault/killing.py"
KILLS = 5_000
ROUND = 200
PROMISED = {
    "missing": "notices missing",
    "copies": "copies beyond what was under way at a kill",
    "disorder": "notices out of order",
    "ends": "alerts whose end was not told exactly once",
}


def main():
    """Run it; return the exit code."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else KILLS
    began = time.monotonic()
    total, slowest = Counter(), 0.0
    for seed in range(-(-kills // ROUND)):
        figures = kill(min(ROUND, kills - seed * ROUND), seed)
        slowest = max(slowest, figures.pop("start_seconds")["p99"])
        total.update(figures)
    print(f"| over {total['kills']:,} kills in {time.monotonic() - began:,.0f} s | |\n|---|---|")
    print(f"| notices made / arrived (the rest were merged into these) | {total['notices']:,} / {total['arrived']:,} |")
    print(f"| copies of what was under way at a kill, or had been refused | {total['repeated']:,} |")
    for kind, words in PROMISED.items():
        print(f"| {words} | {total[kind]:,} |")
    print(f"| from start to guarding again, 99th percentile of the worst round | {slowest * 1e3:.0f} ms |")
    good = not any(total[kind] for kind in PROMISED)
    print("\nthe promise was kept" if good else "\nthe promise was BROKEN")
    return 0 if good else 1


def kill(kills, seed):
    with tempfile.TemporaryDirectory() as folder:
        finished = subprocess.run(
            [sys.executable, KILLING, folder, str(kills), str(seed)], stdout=subprocess.PIPE, check=True
        )
    return json.loads(finished.stdout)


if __name__ == "__main__":
    sys.exit(main())
