"""The stages of a tick: how long each may take, and the sign of life after each."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from watchdog.clock import SECOND_NS, Clock

HANGING_NS: Final = 10 * SECOND_NS
_PROGRESS_NS = 5 * SECOND_NS  # of a tick, after which the end of each stage is a sign of life
_LOG_INTERVAL_NS = 60 * SECOND_NS  # between two log lines about one stage


class Stage(enum.StrEnum):
    """A stage of a tick, in their order."""

    KERNEL = "kernel"  # live sockets, ledger
    MEASURE = "measure"  # changes, names of owners, snapshot
    RULES = "rules"
    ALERTS = "alerts"
    EVIDENCE = "evidence"
    ROUTING = "routing"
    STATE = "state"  # commit to the disk


LIMITS_NS: Final = {
    Stage.KERNEL: SECOND_NS // 2,
    Stage.MEASURE: SECOND_NS // 2,
    Stage.RULES: SECOND_NS // 2,
    Stage.ALERTS: SECOND_NS // 5,
    Stage.EVIDENCE: SECOND_NS // 5,
    Stage.ROUTING: SECOND_NS // 5,
    Stage.STATE: SECOND_NS // 2,
}
"""A stage that takes longer is counted and named in the log.

Work whose amount strangers choose is cut within its stage: the walk over files, the look-up of units, the rules that
are judged, evidence.
"""


class Stages:
    """Times the stages of each tick."""

    def __init__(self, clock: Clock, log: logging.Logger) -> None:
        """Log slow stages to `log`."""
        self._clock = clock
        self._log = log
        self._slow_count = 0
        self._logged_ns: dict[Stage, int] = {}
        self._report_progress: Callable[[], object] = lambda: None
        self._began_ns = clock.boottime_ns()
        self._running: tuple[Stage, int] | None = None  # and its begin

    def begin_tick(self, report_progress: Callable[[], object]) -> None:
        """Begin a tick; `report_progress` is called after stages of a long one. A stage that hangs reports nothing."""
        self._began_ns = self._clock.boottime_ns()
        self._report_progress = report_progress

    def take_slow_count(self) -> int:
        """Return the number of stages over their limit since the last call."""
        count, self._slow_count = self._slow_count, 0
        return count

    def hanging(self) -> tuple[Stage, int] | None:
        """Return the stage that has run for `HANGING_NS`, and its ns so far. Any thread may ask; never blocks."""
        running = self._running
        if running is None:
            return None
        took_ns = self._clock.boottime_ns() - running[1]
        return (running[0], took_ns) if took_ns >= HANGING_NS else None

    @contextmanager
    def run(self, stage: Stage) -> Iterator[None]:
        """Time the block, one stage; a stage that fails is not counted, and no progress."""
        began_ns = self._clock.boottime_ns()
        self._running = stage, began_ns
        try:
            yield
        finally:
            self._running = None
        now_ns = self._clock.boottime_ns()
        if now_ns - began_ns > LIMITS_NS[stage]:
            self._slow_count += 1
            self._log_slow(stage, now_ns - began_ns, now_ns)
        if now_ns - self._began_ns > _PROGRESS_NS:
            self._report_progress()

    def _log_slow(self, stage: Stage, took_ns: int, now_ns: int) -> None:
        if now_ns - self._logged_ns.get(stage, now_ns - _LOG_INTERVAL_NS) < _LOG_INTERVAL_NS:
            return
        self._logged_ns[stage] = now_ns
        took, limit = took_ns / SECOND_NS, LIMITS_NS[stage] / SECOND_NS
        self._log.warning("stage of a tick over its limit: stage=%s took=%.2fs limit=%.2fs", stage, took, limit)
