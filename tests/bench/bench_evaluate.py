"""Time and memory of one tick of the engine: 100 rules over 1,000, 10,000 and 100,000 groups. All groups change.

Run with `python tests/bench/bench_evaluate.py [GROUPS]`. Each size runs in its own process, so that each has its own
peak of memory. Prints a Markdown table.

Every tick has one row per group, in a new order, and every group changes in every metric. The rules: 10 (metric, stat,
window) of rates, sums, a gated ratio, a mean, a maximum and percentiles; each with 2 `by` (equal numbers of groups) and
2 `where`; variants with other thresholds complete the 100. The first 40 fire for some of the groups.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from watchdog.kernel.quality import Quality
from watchdog.measure.snapshot import Snapshot
from watchdog.rules.engine.engine import OVERFLOW_LABELS, Engine
from watchdog.rules.language.expression import Comparison, MetricReference, Operation
from watchdog.rules.language.rule import Condition, Rule, Severity, Stat, StatKind, Thresholds
from watchdog.rules.language.template import Template

SIZES = (1_000, 10_000, 100_000)
RULES = 100
TICKS = 30  # measured, after the same number of ticks that fill the windows
SECOND_NS = 1_000_000_000

RATE, SUM, MEAN, MAX = (Stat(name, StatKind(name)) for name in ("rate", "sum", "mean", "max"))
P95, P99 = Stat("p95", StatKind.PERCENTILE, 95), Stat("p99", StatKind.PERCENTILE, 99)
SHARE = Operation("/", MetricReference("retransmits"), MetricReference("packets_sent"))
# metric, stat, window in s, threshold that few of the groups exceed
KINDS = (
    (MetricReference("connects"), RATE, 10, 995),
    (MetricReference("connects"), SUM, 30, 29_850),
    (MetricReference("accepts"), RATE, 10, 995),
    (MetricReference("bytes_sent"), RATE, 10, 9.95e6),
    (MetricReference("bytes_received"), RATE, 10, 9.95e6),
    (SHARE, RATE, 10, 0.09),
    (MetricReference("open"), MEAN, 10, 99),
    (MetricReference("connects"), MAX, 10, 999),
    (MetricReference("connect_latency"), P95, 10, 0.0995),
    (MetricReference("rtt"), P99, 10, 0.0995),
)
BYS = (("process", "remote"), ("pid",))
WHERES = ((), (Condition("direction", any_of=("out",)), Condition("remote", none_of=("10.0.0.0/8",))))


class Names:
    """Name lookup where each name is its code."""

    def text(self, dimension, code):
        return str(code)

    def find_code(self, dimension, text):
        return int(text)


def rules():
    found = []
    for number in range(RULES):
        metric, stat, window, limit = KINDS[number % len(KINDS)]
        by, where = BYS[number // 10 % 2], WHERES[number // 20 % 2]
        fire = limit if number < 40 else limit * (2 + number)
        gate = Comparison(">=", MetricReference("packets_sent"), 100) if metric is SHARE else None
        thresholds = Thresholds(above=True, fire={Severity.WARNING: fire}, clear={Severity.WARNING: fire * 0.6})
        found.append(
            Rule(
                f"r{number}", Template("", ()), metric, stat, window * SECOND_NS, by, where, gate, thresholds,
                for_ns=0, keep_firing_for_ns=0, receivers=None, runbook=None, file="", line=0,
            )
        )  # fmt: skip
    return found


class Host:
    """Groups with a constant level; the order of rows changes each tick."""

    def __init__(self, groups):
        self.random = np.random.default_rng(1)
        self.groups = groups
        self.level = np.linspace(0, 1, groups)  # per group: all its metrics are proportional to it
        self.at_ns = 1_000 * SECOND_NS

    def snapshot(self, elapsed_ns):
        self.at_ns += elapsed_ns
        order = self.random.permutation(self.groups).astype(np.uint32)
        level = self.level[order]
        noise = self.random.integers(0, 3, self.groups)
        halves = np.zeros((self.groups, 2), dtype=np.uint64)
        halves[:, 1] = (0xFFFF << 32) + (0x0A000000 - self.groups // 2) + order.astype(np.uint64)
        dimensions = {
            "pid": order,
            "process": order % 50,
            "remote": order,
            "direction": np.full(self.groups, 1, dtype=np.uint32),
        }
        whole = {
            "connects": np.floor(level * 998) + noise,
            "accepts": np.floor(level * 998) + noise,
            "bytes_sent": np.floor(level * 1e7) + noise,
            "bytes_received": np.floor(level * 1e7) + noise,
            "retransmits": np.floor(level * 90) + noise,
            "packets_sent": np.full(self.groups, 1000.0),
            "open": np.floor(level * 100),
        }
        latency = level * 0.1 + noise / 1e6
        metrics = whole | {"connect_latency": latency, "rtt": latency}
        return Snapshot(self.at_ns, elapsed_ns, 0.0, dimensions, metrics, {"remote": halves}, Names(), Quality())


def measure(groups):
    """Print the row of one size."""
    host, engine = Host(groups), Engine(rules())
    engine.evaluate(host.snapshot(0), [])
    watched, durations = [], []
    for number in range(2 * TICKS):
        snapshot = host.snapshot(SECOND_NS)
        before = time.process_time()
        verdicts = engine.evaluate(snapshot, watched)
        if number >= TICKS:
            durations.append((time.process_time() - before) * 1e3)
        watched = [(verdict.rule.id, verdict.labels) for verdict in verdicts]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    overflow = sum(int(verdict.value) - 1 for verdict in verdicts if verdict.labels == OVERFLOW_LABELS)
    figures = f"{statistics.median(durations):.1f} | {max(durations):.1f} | {peak:.0f} | {len(verdicts) + overflow:,}"
    print(f"| {groups:,} | {figures} |", flush=True)


def main():
    if len(sys.argv) == 2:
        measure(int(sys.argv[1]))
        return
    print(
        "| groups | ms per tick, median | maximum | MB resident, peak | instances firing |\n|---|---|---|---|---|",
        flush=True,
    )
    for size in SIZES:
        subprocess.run([sys.executable, __file__, str(size)], check=True)


if __name__ == "__main__":
    main()
