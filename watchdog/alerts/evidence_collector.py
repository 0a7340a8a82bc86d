"""The taking of evidence: of which instances, and for how long at most.

It is taken in the tick in which the condition became true, for the process may not live until `for` is over, and again
when the alert fires or gets worse. A tick has room for the worst few; the others say that they have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from watchdog.alerts.alert import Transition
from watchdog.alerts.evidence import NOT_TAKEN, Evidence, build_evidence
from watchdog.alerts.instance import AlertInstance
from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import SECOND_NS, Clock
from watchdog.measure.procfs import Process
from watchdog.measure.snapshot import Snapshot
from watchdog.rules.engine.engine import Engine
from watchdog.rules.language.rule import OVERFLOW_LABELS

MAX_PER_TICK: Final = 20
_MOST_NS = SECOND_NS // 10

StartTimeLookup = Callable[[int], int | None]
ProcessReader = Callable[[int, int | None], Process | None]


class EvidenceCollector:
    """Takes the evidence of what is new in each tick."""

    def __init__(self, engine: Engine, start_time_of: StartTimeLookup, read: ProcessReader, clock: Clock) -> None:
        """Ask `start_of` when a pid's process began, by CLOCK_BOOTTIME, and `read` what the process is."""
        self.with_command = True
        self._engine = engine
        self._start_of = start_time_of
        self._read = read
        self._clock = clock
        self._failures: list[Exception] = []

    def collect(self, snapshot: Snapshot, lifecycle: Lifecycle, transitions: Sequence[Transition]) -> list[Transition]:
        """Give the instances that are new in this tick their evidence; return `transitions` with it.

        Where it cannot be taken, alerts go without: `take_failures` has the reason.
        """
        began_ns = self._clock.boottime_ns()
        for number, instance in enumerate(_worst_first(lifecycle.instances_needing_evidence())):
            if number >= MAX_PER_TICK or self._clock.boottime_ns() - began_ns > _MOST_NS:
                instance.add_evidence(Evidence(snapshot.wall, missing_reason=NOT_TAKEN))
                continue
            try:
                evidence = self._evidence(snapshot, instance)
            except Exception as error:  # noqa: BLE001 - the edge of one alert's evidence: it must be told without
                error.add_note(f"in the evidence of an alert of rule {instance.rule}")
                self._failures.append(error)
            else:
                if evidence is not None:
                    instance.add_evidence(evidence)
        return lifecycle.with_current_alerts(transitions)

    def take_failures(self) -> list[Exception]:
        """Return what went wrong since the last call."""
        failures, self._failures = self._failures, []
        return failures

    def _evidence(self, snapshot: Snapshot, instance: AlertInstance) -> Evidence | None:
        found = self._engine.find_contributors(snapshot, instance.rule, instance.labels)
        if found is None:
            return None
        rule, trace = found

        def look(pid: int) -> tuple[float | None, Process | None]:
            start_ns = self._start_of(pid)
            started = None if start_ns is None else snapshot.wall - (snapshot.at_ns - start_ns) / SECOND_NS
            return started, self._read(pid, start_ns)

        return build_evidence(rule, trace, look, snapshot.wall, with_command=self.with_command)


def _worst_first(instances: Iterable[AlertInstance]) -> list[AlertInstance]:
    wanted = [instance for instance in instances if instance.labels != OVERFLOW_LABELS]
    return sorted(wanted, key=lambda one: (one.severity or 0, one.threshold_ratio), reverse=True)
