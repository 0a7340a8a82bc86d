"""The tick loop: runs the ticks as a job of the scheduler, at the configured or the adapted interval."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from watchdog.clock import SECOND_NS, Clock
from watchdog.config.durations import format_duration
from watchdog.scheduling.adaptive_interval import AdaptiveInterval
from watchdog.scheduling.scheduler import ScheduledTick, Scheduler
from watchdog.systemd import Systemd

_JOB = "tick"


class TickLoop:
    """Runs the ticks. If they take too long for the interval, it raises the interval and logs that."""

    def __init__(self, scheduler: Scheduler, systemd: Systemd, clock: Clock, log: logging.Logger) -> None:
        """Run nothing before `start`; `systemd` gets the watchdog timeout for each interval."""
        self._scheduler = scheduler
        self._systemd = systemd
        self._clock = clock
        self._log = log
        self._changing = threading.Lock()  # reloads come from another thread than ticks
        self._adaptive = AdaptiveInterval(SECOND_NS)
        self._configured_ns = 0
        self.newest_tick_seconds: float | None = None
        """Duration of the newest tick that ended without an error."""

    @property
    def configured_ns(self) -> int:
        """Return the configured time between two ticks."""
        return self._configured_ns

    @property
    def interval_ns(self) -> int:
        """Return the present time between two ticks."""
        return self._adaptive.interval_ns

    def start(self, tick: Callable[[ScheduledTick], None], configured_ns: int) -> None:
        """Run `tick` every `configured_ns`, the first time when the scheduler starts."""
        self._adaptive, self._configured_ns = AdaptiveInterval(configured_ns), configured_ns
        self._scheduler.add_job(_JOB, configured_ns, lambda due: self._run(tick, due))
        self._systemd.set_watchdog_timeout(configured_ns / SECOND_NS)

    def change_interval(self, configured_ns: int) -> None:
        """Tick every `configured_ns` from now on and forget earlier durations: rules and settings are new."""
        with self._changing:
            former_ns = self._adaptive.interval_ns
            self._adaptive, self._configured_ns = AdaptiveInterval(configured_ns), configured_ns
            if configured_ns != former_ns:
                self._set(configured_ns)

    def _run(self, tick: Callable[[ScheduledTick], None], due: ScheduledTick) -> None:
        adaptive, began_ns = self._adaptive, self._clock.boottime_ns()
        tick(replace(due, configured_ns=self._configured_ns))
        self.newest_tick_seconds = took_seconds = (self._clock.boottime_ns() - began_ns) / SECOND_NS
        with self._changing:
            before_ns = adaptive.interval_ns
            # The duration of a tick that began before a reload does not apply to the new rules.
            if adaptive is self._adaptive and adaptive.record_tick_duration(took_seconds):
                self._set(adaptive.interval_ns)
                self._log_change(before_ns, took_seconds)

    def _set(self, interval_ns: int) -> None:
        # No tick counts as missed because of the change: the new grid begins now.
        self._systemd.set_watchdog_timeout(interval_ns / SECOND_NS)
        self._scheduler.set_interval(_JOB, interval_ns)

    def _log_change(self, before_ns: int, took_seconds: float) -> None:
        interval_ns = self._adaptive.interval_ns
        before, interval, configured = map(format_duration, (before_ns, interval_ns, self._configured_ns))
        self._log.warning(
            "sampling took %.2f s of a %s interval: interval %s to %s (configured: %s)",
            took_seconds,
            before,
            "raised" if interval_ns > before_ns else "lowered",
            interval,
            configured,
        )
