"""Collection of evidence: for selected instances, within a limited time per tick.

Evidence is taken in the tick in which the condition becomes true, since the process may exit before `for` has passed,
and again when the alert fires or rises in severity. A tick has time for the worst instances only; the evidence of the
others is marked as not taken. Command lines, for which a process can make the reader wait, are requested here and added
when they come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from watchdog.alerts.alert import Transition
from watchdog.alerts.command_request import CommandRequest
from watchdog.alerts.evidence import NOT_TAKEN, Evidence, ProgramLookup, build_evidence
from watchdog.alerts.instance import AlertInstance
from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import SECOND_NS, Clock
from watchdog.measure.procfs import Process
from watchdog.measure.snapshot import Snapshot
from watchdog.rules.engine.engine import Engine
from watchdog.rules.language.rule import OVERFLOW_LABELS

MAX_PER_TICK: Final = 20
_MAX_NS = SECOND_NS // 10
_LOSS_METRICS = frozenset(("lost_connections", "missed_ticks", "failed_ticks", "unknown_ticks", "tick_interval"))

StartTimeLookup = Callable[[int], int | None]
ProcessReader = Callable[[int, int | None], Process | None]


class EvidenceCollector:
    """Takes the evidence of the instances that each tick makes new or worse."""

    def __init__(
        self,
        engine: Engine,
        start_time_of: StartTimeLookup,
        read: ProcessReader,
        clock: Clock,
        find_program: ProgramLookup | None = None,
    ) -> None:
        """Use `start_time_of(pid)`, ns of CLOCK_BOOTTIME, and `read(pid, start_ns)` to look up processes.

        `find_program`: None where executables are not known.
        """
        self._find_program = find_program
        self.with_command = True
        self._engine = engine
        self._start_time_of = start_time_of
        self._read = read
        self._clock = clock
        self._failures: list[Exception] = []
        self._requests: list[CommandRequest] = []

    def collect(self, snapshot: Snapshot, lifecycle: Lifecycle, transitions: Sequence[Transition]) -> list[Transition]:
        """Add evidence to the instances that need it in this tick; return `transitions` with it.

        If taking evidence fails, the alert goes on without; `take_failures` returns the error.
        """
        started_ns = self._clock.boottime_ns()
        for number, instance in enumerate(_worst_first(lifecycle.instances_needing_evidence())):
            if number >= MAX_PER_TICK or self._clock.boottime_ns() - started_ns > _MAX_NS:
                instance.add_evidence(Evidence(snapshot.wall, missing_reason=NOT_TAKEN))
                continue
            try:
                evidence = self._evidence(snapshot, instance)
            except Exception as error:  # noqa: BLE001 - the edge of one alert's evidence: the alert must be sent without
                error.add_note(f"in the evidence of an alert of rule {instance.rule}")
                self._failures.append(error)
            else:
                if evidence is not None:
                    instance.add_evidence(evidence)
                    self._request_command(instance)
        return lifecycle.with_current_alerts(transitions)

    def take_requests(self) -> list[CommandRequest]:
        """Return the requests since the last call, those of the worst instances first."""
        requests, self._requests = self._requests, []
        return requests

    def take_failures(self) -> list[Exception]:
        """Return the errors since the last call."""
        failures, self._failures = self._failures, []
        return failures

    def _request_command(self, instance: AlertInstance) -> None:
        pid = instance.unread_pid
        if pid is not None:
            start_ns = self._start_time_of(pid)
            request = CommandRequest(instance.rule, instance.labels, instance.fingerprint, pid, start_ns)
            self._requests.append(request)

    def _evidence(self, snapshot: Snapshot, instance: AlertInstance) -> Evidence | None:
        found = self._engine.find_contributors(snapshot, instance.rule, instance.labels)
        if found is None:
            return None
        rule, contributors = found

        def look_up_process(pid: int) -> tuple[float | None, Process | None]:
            start_ns = self._start_time_of(pid)
            started = None if start_ns is None else snapshot.wall - (snapshot.at_ns - start_ns) / SECOND_NS
            return started, self._read(pid, start_ns)

        about_losses = contributors.metric in _LOSS_METRICS
        return build_evidence(
            rule,
            contributors,
            look_up_process,
            snapshot.wall,
            with_command=self.with_command,
            unknown_rules=self._engine.unknown_rules if about_losses else (),
            find_program=self._find_program,
        )


def _worst_first(instances: Iterable[AlertInstance]) -> list[AlertInstance]:
    """Return the instances in the order of their evidence: overflows, at most one a rule, before all others.

    The worst of each rule stand before the second worst of any: many alerts of one rule take no evidence from others.
    """

    def weight(one: AlertInstance) -> tuple[bool, int, float]:
        return one.labels == OVERFLOW_LABELS, one.severity or 0, one.threshold_ratio

    seen: Counter[str] = Counter()
    ranked: list[tuple[int, AlertInstance]] = []
    for one in sorted(instances, key=weight, reverse=True):
        ranked.append((seen[one.rule], one))
        seen[one.rule] += one.labels != OVERFLOW_LABELS
    return [one for _, one in sorted(ranked, key=lambda pair: pair[0])]
