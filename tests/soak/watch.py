"""The watchdog's part of the soak: reads and evaluates once a second like the daemon, and sums one executable's counts.

Argument: name of the executable. Prints one JSON object per second: totals, losses, resident memory. Ends with stdin.
"""

import json
import select
import sys
from collections import Counter
from dataclasses import fields
from pathlib import Path

from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import Now, SystemClock
from watchdog.daemon.malloc import configure_malloc
from watchdog.kernel.quality import Quality
from watchdog.kernel.startup import start_collector
from watchdog.measure.meter import Meter
from watchdog.resources import shipped_rules_folder
from watchdog.rules.engine.engine import Engine
from watchdog.rules.language.load import load_rules

COUNTED = ("connects", "accepts", "closes", "connect_failures", "resets_sent", "bytes_sent", "bytes_received")


def resident_kib():
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0])


def main():
    """Watch until stdin ends."""
    configure_malloc()
    clock = SystemClock()
    rules = load_rules([shipped_rules_folder()], receivers=None).rules
    collector = start_collector(clock)
    meter, engine, lifecycle = Meter(), Engine(rules), Lifecycle("soak")
    meter.advance(collector.read(), clock.wall())
    totals, lost = Counter(), Counter()
    while True:
        ended = bool(select.select([sys.stdin], [], [], 1)[0])
        snapshot = meter.advance(collector.read(), clock.wall())
        code = snapshot.names.find_code("exe", sys.argv[1])
        selected = slice(0) if code is None else snapshot.dimensions["exe"] == code
        totals.update({name: int(snapshot.metrics[name][selected].sum()) for name in COUNTED})
        lost.update({part.name: getattr(snapshot.quality, part.name) for part in fields(Quality) if part.type == "int"})
        lifecycle.advance(engine.evaluate(snapshot, lifecycle.active_keys()), Now(snapshot.at_ns, clock.wall()))
        lifecycle.take_changes()
        pass_ms = snapshot.quality.pass_seconds * 1e3
        line = {"totals": totals, "lost": lost, "resident_kib": resident_kib(), "pass_ms": pass_ms}
        print(json.dumps(line), flush=True)
        if ended:
            break
    collector.close()


if __name__ == "__main__":
    main()
