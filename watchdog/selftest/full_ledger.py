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
from watchdog.config.map_sizes import Capacities
from watchdog.kernel.collector import Collector, Reading
from watchdog.kernel.startup import start_collector
from watchdog.measure.meter import Meter
from watchdog.rules.engine.engine import Engine, Verdict
from watchdog.rules.engine.judge import INCOMPLETE, reads_detail
from watchdog.rules.language.rule import Rule
from watchdog.selftest.context import Stage, in_child
from watchdog.selftest.result import Failed, demand

LEDGER_ROWS = 8
CONNECTIONS = 100  # a daemon that runs sees them too: not so many that it would tell of them

_REQUEST, _ANSWER = b"ask", b"answer"
_EXPECTED = {
    "connects": CONNECTIONS,
    "accepts": CONNECTIONS,
    "established": 2 * CONNECTIONS,
    "closes": 2 * CONNECTIONS,
    "bytes_sent": CONNECTIONS * len(_REQUEST + _ANSWER),
    "bytes_received": CONNECTIONS * len(_REQUEST + _ANSWER),
}
_MOST_READINGS = 50
_PAUSE_SECONDS = 0.1


@dataclass(slots=True)
class Seen:
    """What was counted of one process: all, with detail, folded; of the host, how many were folded, and lost."""

    totals: Counter[str] = field(default_factory=Counter)
    detailed: int = 0
    folded: int = 0
    told_folded: int = 0
    told_lost: int = 0


def rehearse(stage: Stage) -> str:
    """Open and close connections in one go, and judge what was seen of them; return what was seen.

    Raises:
        Failed: a count is wrong, or a rule takes for known what it could not see.
        KernelUnfit, NotPermitted: this host cannot be guarded.
    """
    clock = SystemClock()
    collector = start_collector(clock, Capacities(ledger=LEDGER_ROWS))
    try:
        return overflow(collector, clock, stage.setup.rules)
    finally:
        collector.close()


def overflow(collector: Collector, clock: Clock, rules: Sequence[Rule]) -> str:
    """Overflow the ledger of `collector`."""
    meter, engine, seen = Meter(), Engine(rules), Seen()
    engine.observe(meter.advance(collector.read(), clock.wall()), [])
    pid = in_child(lambda: open_and_close(CONNECTIONS))
    verdicts: list[Verdict] = []
    for _ in range(_MOST_READINGS):
        reading = collector.read()
        changes, snapshot = meter.measure(reading, clock.wall())
        _count(seen, reading, pid)
        own = changes.rows["owner"]["tgid"] == pid
        seen.totals += Counter({name: int(changes.metrics[name][own].sum()) for name in _EXPECTED})
        judged = engine.observe(snapshot, [(rule.id, _anybody(rule)) for rule in rules])
        if reading.quality.ledger_full:
            verdicts = judged
        if seen.totals["closes"] >= 2 * CONNECTIONS:
            break
        time.sleep(_PAUSE_SECONDS)
    return _judged(seen) + _judged_by_rules(rules, verdicts)


def open_and_close(count: int) -> None:
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


def _count(seen: Seen, reading: Reading, pid: int) -> None:
    seen.detailed += int(np.count_nonzero(reading.closed["owner"]["tgid"] == pid))
    sums = reading.sums.values
    seen.folded = int(sums["closes"][sums["owner"]["tgid"] == pid].sum())  # since the start
    seen.told_folded += reading.quality.ledger_full
    seen.told_lost += reading.quality.sums_full + reading.quality.storage_failed


def _judged(seen: Seen) -> str:
    wrong = [
        f"{name} {seen.totals[name]:,} of {right:,}" for name, right in _EXPECTED.items() if seen.totals[name] != right
    ]
    demand(not wrong, f"{CONNECTIONS} connections through a ledger of {LEDGER_ROWS}: {', '.join(wrong)}")
    told = f"{seen.folded} of {2 * CONNECTIONS} ends folded, {seen.told_folded} told of the host"
    demand(seen.folded and seen.folded <= seen.told_folded, f"totals are exact, but {told}")
    demand(not seen.told_lost, f"totals are exact, but {seen.told_lost} connections of the host were lost")
    return f"{CONNECTIONS} connections counted exactly, {told}"


def _judged_by_rules(rules: Sequence[Rule], verdicts: Sequence[Verdict]) -> str:
    readers = {rule.id for rule in rules if reads_detail(rule)}
    said = {verdict.rule.id: verdict for verdict in verdicts if verdict.labels == _anybody(verdict.rule)}
    if missing := sorted(readers - said.keys()):
        raise Failed(f"no verdict of {', '.join(missing)}")
    wrong = sorted(rule for rule in readers if said[rule].known or said[rule].reason != INCOMPLETE)
    demand(not wrong, f"these rules take folded detail for known: {', '.join(wrong)}")
    return f"; {len(readers)} of {len(rules)} rules read the detail that is gone, and say unknown"


def _anybody(rule: Rule) -> tuple[tuple[str, str], ...]:
    # Labels that nobody has: all that is asked is whether the rule knows.
    return tuple((dimension, "selftest") for dimension in rule.by)
