"""Check: if more connections end in a tick than the ledger holds, totals stay exact and rules become unknown.

It loads the real BPF programs, beside those of a running daemon, with the smallest possible ledger.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from watchdog.clock import SECOND_NS, Clock, SystemClock
from watchdog.config.map_sizes import MapSizes
from watchdog.kernel.collector import Collector, Reading
from watchdog.kernel.startup import start_collector
from watchdog.measure.meter import Meter
from watchdog.rules.engine.engine import Engine
from watchdog.rules.language.expression import MetricReference
from watchdog.rules.language.rule import Condition, Rule, Severity, Stat, StatKind, Thresholds
from watchdog.rules.language.template import Template
from watchdog.selftest.context import CheckContext, run_in_child
from watchdog.selftest.result import require

LEDGER_ENTRIES = 8
CONNECTION_COUNT = 100  # a running daemon sees them too: too few for its shipped rules to fire

_REQUEST, _ANSWER = b"ask", b"answer"
_EXPECTED = {
    "connects": CONNECTION_COUNT,
    "accepts": CONNECTION_COUNT,
    "established": 2 * CONNECTION_COUNT,
    "closes": 2 * CONNECTION_COUNT,
    "bytes_sent": CONNECTION_COUNT * len(_REQUEST + _ANSWER),
    "bytes_received": CONNECTION_COUNT * len(_REQUEST + _ANSWER),
}
_MAX_READINGS = 50
_PAUSE_SECONDS = 0.1


@dataclass(slots=True)
class LedgerCounts:
    """Counts of one process (total, with detail, folded into sums) and of the host (reported as folded, as lost)."""

    totals: Counter[str] = field(default_factory=Counter)
    detailed: int = 0
    folded: int = 0
    reported_folded: int = 0
    reported_lost: int = 0


def run_check(context: CheckContext) -> str:
    """Open and close connections at once and check their counts; return the figures.

    Raises:
        CheckFailed: a count is wrong, or a rule is not unknown although the lost detail can make it fire.
        KernelUnfit, NotPermitted: the BPF programs cannot be loaded on this host.
    """
    clock = SystemClock()
    collector = start_collector(clock, MapSizes(ledger=LEDGER_ENTRIES))
    try:
        return overflow_ledger(collector, clock, context.configuration.rules)
    finally:
        collector.close()


def overflow_ledger(collector: Collector, clock: Clock, rules: Sequence[Rule]) -> str:
    """Overflow the ledger of `collector`; return the figures."""
    meter, engine, counts = Meter(), Engine([*rules, _DETAIL_RULE, _OTHER_RULE]), LedgerCounts()
    engine.evaluate(meter.advance(collector.read(), clock.wall()), [])
    pid = run_in_child(lambda: open_and_close_connections(CONNECTION_COUNT))
    unknown: set[str] = set()
    for _ in range(_MAX_READINGS):
        reading = collector.read()
        changes, snapshot = meter.advance_with_changes(reading, clock.wall())
        _count(counts, reading, pid)
        own = changes.rows["owner"]["tgid"] == pid
        counts.totals += Counter({name: int(changes.metrics[name][own].sum()) for name in _EXPECTED})
        engine.evaluate(snapshot, [])
        unknown.update(engine.unknown_rules)
        if counts.totals["closes"] >= 2 * CONNECTION_COUNT:
            break
        time.sleep(_PAUSE_SECONDS)
    return _check_totals(counts) + _check_unknown(len(rules), unknown)


def open_and_close_connections(count: int) -> None:
    """Open and close connections of this process to itself, one by one, with a request and an answer each.

    To be called in a child process: the collector leaves its own process out.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(count):
            with socket.create_connection(server.getsockname()) as client:
                accepted = server.accept()[0]
                with accepted:
                    client.sendall(_REQUEST)
                    accepted.recv(len(_REQUEST), socket.MSG_WAITALL)
                    accepted.sendall(_ANSWER)
                client.recv(len(_ANSWER), socket.MSG_WAITALL)


def _count(counts: LedgerCounts, reading: Reading, pid: int) -> None:
    counts.detailed += int(np.count_nonzero(reading.closed["owner"]["tgid"] == pid))
    sums = reading.sums.values
    counts.folded = int(sums["closes"][sums["owner"]["tgid"] == pid].sum())  # since the start
    counts.reported_folded += reading.quality.ledger_full
    counts.reported_lost += reading.quality.sums_full + reading.quality.storage_failed


def _check_totals(counts: LedgerCounts) -> str:
    wrong = [
        f"{name} {counts.totals[name]:,} of {right:,}"
        for name, right in _EXPECTED.items()
        if counts.totals[name] != right
    ]
    require(not wrong, f"{CONNECTION_COUNT} connections through a ledger of {LEDGER_ENTRIES}: {', '.join(wrong)}")
    folded = f"{counts.folded} of {2 * CONNECTION_COUNT} ends folded, {counts.reported_folded} reported for the host"
    require(counts.folded and counts.folded <= counts.reported_folded, f"totals are exact, but {folded}")
    require(not counts.reported_lost, f"totals are exact, but {counts.reported_lost} connections of the host were lost")
    return f"{CONNECTION_COUNT} connections counted exactly, {folded}"


def _check_unknown(configured: int, unknown: set[str]) -> str:
    """Check the ids of the rules that were unknown after the overflow; return their number among `configured` rules."""
    require(_DETAIL_RULE.id in unknown, "a rule on the lost detail is not unknown")
    require(_OTHER_RULE.id not in unknown, "a rule on a process that lost nothing is unknown")
    return f"; {len(unknown) - 1} of {configured} rules need the lost detail, and are unknown"


def _lifetime_rule(name: str, where: tuple[Condition, ...] = ()) -> Rule:
    limits = {Severity.WARNING: 3600.0}
    return Rule(
        id=name,
        summary=Template("", ()),
        metric=MetricReference("lifetime"),
        stat=Stat("p50", StatKind.PERCENTILE, 50),
        window_ns=60 * SECOND_NS,
        by=(),
        where=where,
        only_if=None,
        thresholds=Thresholds(above=True, fire=limits, clear=limits),
        for_ns=0,
        keep_firing_for_ns=0,
        receivers=None,
        runbook=None,
        file="",
        line=0,
    )


# No id of a rule file contains a space.
_DETAIL_RULE = _lifetime_rule("selftest detail")
_OTHER_RULE = _lifetime_rule("selftest other", (Condition("process", any_of=("no-such-process",)),))
