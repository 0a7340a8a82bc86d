"""When to look: the job of the scheduler that ticks, at the pace that the settings ask for and the host allows."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from watchdog.clock import SECOND_NS, Clock
from watchdog.config.durations import format_duration
from watchdog.scheduling.adaptive_interval import AdaptiveInterval
from watchdog.scheduling.scheduler import ScheduledTick, Scheduler
from watchdog.systemd import Systemd

_JOB = "tick"


class TickLoop:
    """Runs the ticks; where they take too long for their interval, less often, and says so."""

    def __init__(self, scheduler: Scheduler, systemd: Systemd, clock: Clock, log: logging.Logger) -> None:
        """Keep who is to be told of the interval; nothing runs before `start`."""
        self._scheduler = scheduler
        self._systemd = systemd
        self._clock = clock
        self._log = log
        self._changing = threading.Lock()  # a reload comes from another thread than ticks
        self._pace = AdaptiveInterval(SECOND_NS)
        self._configured_ns = 0

    @property
    def interval_ns(self) -> int:
        """Return how far ticks are apart now."""
        return self._pace.interval_ns

    def start(self, tick: Callable[[ScheduledTick], None], configured_ns: int) -> None:
        """Run `tick` every `configured_ns`, the first time when the scheduler starts."""
        self._pace, self._configured_ns = AdaptiveInterval(configured_ns), configured_ns
        self._scheduler.add_job(_JOB, configured_ns, lambda due: self._run(tick, due))
        self._systemd.set_watchdog_timeout(configured_ns / SECOND_NS)

    def change_interval(self, configured_ns: int) -> None:
        """Tick every `configured_ns` from now on, whatever ticks took before: rules and settings are new."""
        with self._changing:
            in_force_ns = self._pace.interval_ns
            self._pace, self._configured_ns = AdaptiveInterval(configured_ns), configured_ns
            if configured_ns != in_force_ns:
                self._set(configured_ns)

    def _run(self, tick: Callable[[ScheduledTick], None], due: ScheduledTick) -> None:
        pace, began_ns = self._pace, self._clock.boottime_ns()
        tick(due)
        took_seconds = (self._clock.boottime_ns() - began_ns) / SECOND_NS
        with self._changing:
            before_ns = pace.interval_ns
            # A tick that began before a reset says nothing of the rules after it.
            if pace is self._pace and pace.record_tick_duration(took_seconds):
                self._set(pace.interval_ns)
                self._tell(before_ns, took_seconds)

    def _set(self, interval_ns: int) -> None:
        # No tick counts as missed by this: the new grid begins now.
        self._systemd.set_watchdog_timeout(interval_ns / SECOND_NS)
        self._scheduler.set_interval(_JOB, interval_ns)

    def _tell(self, before_ns: int, took_seconds: float) -> None:
        interval_ns = self._pace.interval_ns
        before, now, wanted = map(format_duration, (before_ns, interval_ns, self._configured_ns))
        if interval_ns > before_ns:
            why = f"this host is too large to look every {before}: that took {took_seconds:.2f} s"
        else:
            why = f"looking takes {took_seconds:.2f} s again"
        asked = "as the settings ask for" if interval_ns == self._configured_ns else f"not every {wanted} as set"
        self._log.warning("%s; looking every %s from now on, %s", why, now, asked)
