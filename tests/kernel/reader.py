"""A process that collects like the daemon and prints its measurements on request, for the kernel tests.

Reads commands from stdin: `read` prints all measurements since the beginning as one JSON object, `pass` only measures,
`begin` detaches the message probes and makes now the beginning, `enable` and `disable` attach and detach them, `enable
with N` attaches them while N descriptors are free, `status` prints /proc/self/status. Argument: capacity of the ledger.
"""

import json
import sys
from pathlib import Path

import numpy as np
from leftovers import descriptors_left

from watchdog.clock import SECOND_NS, SystemClock
from watchdog.config.map_sizes import MapSizes
from watchdog.kernel import live_sockets
from watchdog.kernel.collector import Collector
from watchdog.kernel.startup import start_collector
from watchdog.measure.catalogue import ABSENT_CODE, DIMENSIONS, IMPOSSIBLE_PAIRS, METRICS
from watchdog.measure.deltas import Changes
from watchdog.measure.meter import Meter
from watchdog.measure.sample_connections import ConnectionAggregate
from watchdog.measure.sample_groups import GroupAggregate
from watchdog.measure.snapshot import Snapshot

QUALITY = (
    "ledger_full",
    "sums_full",
    "storage_failed",
    "missed_events",
    "responses_unassigned",
    "sockmap_connections",
)


def contradictions(snapshot: Snapshot) -> list[str]:
    """Return the values of the snapshot that the catalogue calls impossible for their metric."""
    found = []
    for metric in METRICS.values():
        values = np.nan_to_num(snapshot.metrics[metric.name])
        codes = {}
        for name in {"direction", "state", "failure"}.difference(metric.missing_dimensions):
            codes[name] = snapshot.dimensions[name]
            choices = DIMENSIONS[name].choices
            seen = {choices[code] for code in codes[name][values != 0].tolist() if code < ABSENT_CODE}
            found += [f"{metric.name}: {name} {value}" for value in seen.difference(metric.possible_values(name))]
        for one, ones, other, others in IMPOSSIBLE_PAIRS:
            if one in codes and other in codes:
                both = np.isin(codes[one], [DIMENSIONS[one].choices.index(value) for value in ones])
                both &= np.isin(codes[other], [DIMENSIONS[other].choices.index(value) for value in others])
                if (both & (values != 0)).any():
                    found.append(f"{metric.name}: {one} {ones} with {other} {others}")
    return found


class Measurements:
    """The measurements since the beginning."""

    def __init__(self) -> None:
        self.connections = ConnectionAggregate()
        self.by_port = GroupAggregate(["local_port", "state", "process"])
        self.by_process = GroupAggregate(["pid", "process", "direction", "family"])
        self.quality = dict.fromkeys(QUALITY, 0)
        self.impossible: list[str] = []
        self.snapshot: Snapshot | None = None  # of the last reading

    def add(self, changes: Changes, snapshot: Snapshot) -> None:
        for aggregate in (self.connections, self.by_port, self.by_process):
            aggregate.add(changes, snapshot)
        self.impossible += contradictions(snapshot)
        for name in QUALITY:
            self.quality[name] += getattr(snapshot.quality, name)
        self.snapshot = snapshot

    def answer(self) -> dict[str, object]:
        return {
            "rows": list(self.connections.rows()),
            "by_port": list(self.by_port.rows()),
            "by_process": list(self.by_process.rows()),
            "quality": self.quality,
            "impossible": self.impossible,
            "walk_unfinished": self.snapshot.quality.walk_unfinished,
            "elapsed_seconds": self.snapshot.elapsed_ns / SECOND_NS,
        }


def enable(collector: Collector, descriptors: int) -> dict[str, object]:
    """Attach the message probes while so many descriptors are free."""
    with descriptors_left(descriptors):
        enabled = collector.enable_message_probes()
    return {"message_probes_enabled": enabled, "problem": collector.message_probes_problem}


def main() -> None:
    """Answer commands until the end of stdin."""
    live_sockets._ROUND_PAUSES = 0  # a walk over files in each tick: the tests do not wait for owners
    clock = SystemClock()
    collector = start_collector(clock, MapSizes(ledger=int(sys.argv[1])))
    meter, measurements = Meter(), Measurements()

    def read() -> tuple[Changes, Snapshot]:
        return meter.advance_with_changes(collector.read(complete=True), clock.wall())

    def say(**answer: object) -> None:
        print(json.dumps(answer), flush=True)

    read()
    say()
    for line in sys.stdin:
        match line.strip():
            case command if command.startswith("enable"):
                say(**enable(collector, int(command.partition(" with ")[2] or 100)))
            case "disable":
                collector.disable_message_probes()
                say()
            case "status":
                say(status=Path("/proc/self/status").read_text(encoding="utf-8"))
            case "begin":
                read()
                collector.disable_message_probes()
                measurements = Measurements()
                say()
            case "pass":
                measurements.add(*read())
                say()
            case "read":
                measurements.add(*read())
                say(**measurements.answer())
    collector.close()


if __name__ == "__main__":
    main()
