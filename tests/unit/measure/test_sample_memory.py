"""Memory of `sample`: a period needs no more of it when it is long, and its totals stay exact."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sample_period import SECOND, Period, make_connections

from watchdog.measure.sample_connections import ConnectionAggregate
from watchdog.measure.sample_groups import GroupAggregate

MIB = 2**20
PEER = ("remote", "remote_port", "local_port")


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Traffic:
    """Short connections, each to another peer, and their own counts."""

    def __init__(self, per_tick, seed=1):
        self.per_tick, self.random = per_tick, np.random.default_rng(seed)
        self.counts = Counter(connects=0)
        self.first = 1

    def tick(self, period):
        """Let `per_tick` connections begin and end within one tick, and every seventh be a sum without details."""
        at_ns = (period.second + 1) * SECOND
        rows = make_connections(self.per_tick, self.first, born_ns=at_ns - SECOND // 2, ended_ns=at_ns, state=7)
        self.first += self.per_tick
        for name, highest in {"bytes_sent": 2**34, "bytes_received": 2**20, "packets_received": 9}.items():
            rows[name] = self.random.integers(0, highest, self.per_tick)
            self.counts[name] += int(rows[name].sum())
        rows["established_ns"], rows["srtt_us"] = at_ns - SECOND // 3, self.random.integers(10, 10**6, self.per_tick)
        rows["local_port"], rows["remote_port"] = self.random.integers(1, 2**16, self.per_tick), 443
        rows["remote"][:, 10:12] = 255
        rows["remote"][:, 12:] = self.random.integers(0, 256, (self.per_tick, 4))
        rows["owner"]["tgid"][::7] = 0
        period.tick(closed=[rows])
        self.counts["closes"] += self.per_tick


@pytest.mark.parametrize(
    ("aggregate", "count", "per_tick"),
    [
        (ConnectionAggregate(limit=50), 1_000_000, 10_000),
        (GroupAggregate(["process"], limit=50), 1_000_000, 10_000),
        (ConnectionAggregate(), 25_000, 1_000),
        (GroupAggregate(PEER, limit=50), 25_000, 1_000),
        (GroupAggregate(PEER), 25_000, 1_000),
        (ConnectionAggregate(limit=50, sort="rtt_us"), 50_000, 2_000),
        (ConnectionAggregate(sort="remote"), 25_000, 1_000),
        (GroupAggregate(PEER, sort="rtt.p99"), 25_000, 1_000),
    ],
    ids=["connections", "processes", "all connections", "peers", "all peers", "by rtt", "by address", "peers by rtt"],
)
def test_a_long_period_needs_no_more_memory_than_a_short_one(aggregate, count, per_tick):
    period, traffic, ticks = Period(aggregate), Traffic(per_tick), count // per_tick
    for tick in range(ticks):
        traffic.tick(period)
        if tick == 3:
            before = resident_bytes()
    rows, sums = 0, Counter()
    for row in aggregate.rows():
        rows += 1
        sums.update({name: row[name] for name in traffic.counts})

    assert resident_bytes() - before < 20 * MIB
    totals = aggregate.totals()
    assert {name: totals[name] for name in traffic.counts} == traffic.counts
    assert rows == 50 or (rows, sums) == (aggregate.row_count(), traffic.counts)


def test_unattributed_connections_are_a_group_of_their_own():
    period, traffic = Period(GroupAggregate(["process"])), Traffic(700)
    for _ in range(30):
        traffic.tick(period)

    closes = {row["process"]: row["closes"] for row in period.aggregate.rows()}
    assert closes == {"culprit": 30 * 600, "(unattributed)": 30 * 100}
