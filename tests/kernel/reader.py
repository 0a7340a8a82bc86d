"""A process that collects like the daemon and prints its measurements on request, for the kernel tests.

Reads commands from stdin: `read` prints all measurements since the start as one JSON object, `pass` only measures,
`enable` and `disable` attach and detach the message probes, `status` prints /proc/self/status. Argument: capacity of
the ledger.
"""

import json
import sys
from pathlib import Path

import numpy as np

from watchdog.clock import SECOND_NS, SystemClock
from watchdog.config.map_sizes import MapSizes
from watchdog.kernel import live_sockets
from watchdog.kernel.startup import start_collector
from watchdog.measure.catalogue import ABSENT_CODE, DIMENSIONS, IMPOSSIBLE_PAIRS, METRICS
from watchdog.measure.meter import Meter
from watchdog.measure.sample_connections import ConnectionAggregate
from watchdog.measure.sample_groups import GroupAggregate
from watchdog.measure.snapshot import Snapshot


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


def main() -> None:
    """Answer commands until the end of stdin."""
    live_sockets._ROUND_PAUSES = 0  # a walk over files in each tick: the tests do not wait for owners
    clock = SystemClock()
    collector = start_collector(clock, MapSizes(ledger=int(sys.argv[1])))
    meter, connections = Meter(), ConnectionAggregate()
    by_port, by_process = (
        GroupAggregate(["local_port", "state", "process"]),
        GroupAggregate(["pid", "process", "direction", "family"]),
    )
    quality = dict.fromkeys(
        (
            "ledger_full",
            "sums_full",
            "storage_failed",
            "missed_events",
            "responses_unassigned",
            "sockmap_connections",
        ),
        0,
    )
    impossible: list[str] = []
    _, baseline = meter.advance_with_changes(collector.read(complete=True), clock.wall())
    print(json.dumps({"baseline": int(baseline.metrics["open"].sum())}), flush=True)
    for line in sys.stdin:
        if line.strip() == "enable":
            print(json.dumps({"message_probes_enabled": collector.enable_message_probes()}), flush=True)
            continue
        if line.strip() == "disable":
            collector.disable_message_probes()
            print("{}", flush=True)
            continue
        if line.strip() == "status":
            print(json.dumps({"status": Path("/proc/self/status").read_text(encoding="utf-8")}), flush=True)
            continue
        changes, snapshot = meter.advance_with_changes(collector.read(complete=True), clock.wall())
        for aggregate in (connections, by_port, by_process):
            aggregate.add(changes, snapshot)
        impossible += contradictions(snapshot)
        for name in quality:
            quality[name] += getattr(snapshot.quality, name)
        if line.strip() == "pass":
            print("{}", flush=True)
            continue
        answer = {
            "rows": list(connections.rows()),
            "by_port": list(by_port.rows()),
            "by_process": list(by_process.rows()),
            "quality": quality,
            "impossible": impossible,
            "walk_unfinished": snapshot.quality.walk_unfinished,
            "elapsed_seconds": snapshot.elapsed_ns / SECOND_NS,
        }
        print(json.dumps(answer), flush=True)
    collector.close()


if __name__ == "__main__":
    main()
