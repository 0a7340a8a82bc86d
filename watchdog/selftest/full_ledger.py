"""More connections end in a tick than the kernel half has room for: totals stay exact, rules know what they lack.

The programs are the real ones, beside those of a daemon that runs; their ledger is the smallest that there is.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from watchdog.clock import Clock, SystemClock
from watchdog.config.map_sizes import MapSizes
from watchdog.kernel.collector import Collector, Reading
from watchdog.kernel.startup import start_collector
from watchdog.measure.meter import Meter
from watchdog.rules.engine.engine import Engine, Verdict
from watchdog.rules.engine.judge import INPUT_INCOMPLETE, reads_connection_detail
from watchdog.rules.language.rule import Rule
from watchdog.selftest.context import CheckContext, run_in_child
from watchdog.selftest.result import CheckFailed, require

LEDGER_ENTRIES = 8
CONNECTION_COUNT = 100  # a daemon that runs sees them too: not so many that it would tell of them

_REQUEST, _ANSWER = b"ask", b"answer"
_EXPECTED = {
    "connects": CONNECTION_COUNT,
    "accepts": CONNECTION_COUNT,
    "established": 2 * CONNECTION_COUNT,
    "closes": 2 * CONNECTION_COUNT,
    "bytes_sent": CONNECTION_COUNT * len(_REQUEST + _ANSWER),
    "bytes_received": CONNECTION_COUNT * len(_REQUEST + _ANSWER),
}
_MOST_READINGS = 50
_PAUSE_SECONDS = 0.1


@dataclass(slots=True)
class LedgerCounts:
    """What was counted of one process: all, with detail, folded; of the host, how many were folded, and lost."""

    totals: Counter[str] = field(default_factory=Counter)
    detailed: int = 0
    folded: int = 0
    reported_folded: int = 0
    reported_lost: int = 0


def run_check(stage: CheckContext) -> str:
    """Open and close connections in one go, and judge what was seen of them; return what was seen.

    Raises:
        Failed: a count is wrong, or a rule takes for known what it could not see.
        KernelUnfit, NotPermitted: this host cannot be guarded.
    """
    clock = SystemClock()
    collector = start_collector(clock, MapSizes(ledger=LEDGER_ENTRIES))
    try:
        return overflow_ledger(collector, clock, stage.configuration.rules)
    finally:
        collector.close()


def overflow_ledger(collector: Collector, clock: Clock, rules: Sequence[Rule]) -> str:
    """Overflow the ledger of `collector`."""
    meter, engine, seen = Meter(), Engine(rules), LedgerCounts()
    engine.evaluate(meter.advance(collector.read(), clock.wall()), [])
    pid = run_in_child(lambda: open_and_close_connections(CONNECTION_COUNT))
    verdicts: list[Verdict] = []
    for _ in range(_MOST_READINGS):
        reading = collector.read()
        changes, snapshot = meter.advance_with_changes(reading, clock.wall())
        _count(seen, reading, pid)
        own = changes.rows["owner"]["tgid"] == pid
        seen.totals += Counter({name: int(changes.metrics[name][own].sum()) for name in _EXPECTED})
        judged = engine.evaluate(snapshot, [(rule.id, _anybody(rule)) for rule in rules])
        if reading.quality.ledger_full:
            verdicts = judged
        if seen.totals["closes"] >= 2 * CONNECTION_COUNT:
            break
        time.sleep(_PAUSE_SECONDS)
    return _judged(seen) + _judged_by_rules(rules, verdicts)


def open_and_close_connections(count: int) -> None:
    """Open and close connections to ourselves, one after the other, with a request and an answer each.

    In a process that does not read what the kernel half has seen: such a one is nobody to it.
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


def _count(seen: LedgerCounts, reading: Reading, pid: int) -> None:
    seen.detailed += int(np.count_nonzero(reading.closed["owner"]["tgid"] == pid))
    sums = reading.sums.values
    seen.folded = int(sums["closes"][sums["owner"]["tgid"] == pid].sum())  # since the start
    seen.reported_folded += reading.quality.ledger_full
    seen.reported_lost += reading.quality.sums_full + reading.quality.storage_failed


def _judged(seen: LedgerCounts) -> str:
    wrong = [
        f"{name} {seen.totals[name]:,} of {right:,}" for name, right in _EXPECTED.items() if seen.totals[name] != right
    ]
    require(not wrong, f"{CONNECTION_COUNT} connections through a ledger of {LEDGER_ENTRIES}: {', '.join(wrong)}")
    told = f"{seen.folded} of {2 * CONNECTION_COUNT} ends folded, {seen.reported_folded} told of the host"
    require(seen.folded and seen.folded <= seen.reported_folded, f"totals are exact, but {told}")
    require(not seen.reported_lost, f"totals are exact, but {seen.reported_lost} connections of the host were lost")
    return f"{CONNECTION_COUNT} connections counted exactly, {told}"


def _judged_by_rules(rules: Sequence[Rule], verdicts: Sequence[Verdict]) -> str:
    readers = {rule.id for rule in rules if reads_connection_detail(rule)}
    said = {verdict.rule.id: verdict for verdict in verdicts if verdict.labels == _anybody(verdict.rule)}
    if missing := sorted(readers - said.keys()):
        raise CheckFailed(f"no verdict of {', '.join(missing)}")
    wrong = sorted(rule for rule in readers if said[rule].complete or said[rule].reason != INPUT_INCOMPLETE)
    require(not wrong, f"these rules take folded detail for known: {', '.join(wrong)}")
    return f"; {len(readers)} of {len(rules)} rules read the detail that is gone, and say unknown"


def _anybody(rule: Rule) -> tuple[tuple[str, str], ...]:
    # Labels that nobody has: all that is asked is whether the rule knows.
    return tuple((dimension, "selftest") for dimension in rule.by)
