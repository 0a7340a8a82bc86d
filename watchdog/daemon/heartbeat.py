"""Heartbeat: a regular message to an external monitor that ticks succeed. Without it the monitor raises the alarm."""

from __future__ import annotations

import contextlib
import json
import logging
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from watchdog import __version__
from watchdog.clock import SECOND_NS, Clock
from watchdog.config.durations import format_duration
from watchdog.daemon.host_name import HostName
from watchdog.errors import DeliveryError, error_location

DEADLINE_SECONDS = 10.0
_RETRIES = 4  # within one interval, while heartbeats fail
_MAX_TICKS_LATE = 3  # intervals without a tick until ticks count as late …
_MIN_LATE_NS = 10 * SECOND_NS  # … but at least this long, for a busy machine


class HeartbeatTarget(Protocol):
    """The monitor that gets the heartbeats, and the interval between them."""

    interval_ns: int

    def post(self, body: bytes, deadline_seconds: float, *, is_healthy: bool) -> None:
        """Send one heartbeat.

        Raises:
            DeliveryError: the monitor did not accept it.
        """
        ...


@dataclass(frozen=True, slots=True)
class RulesInForce:
    """The facts about the present rules that a heartbeat carries."""

    rule_count: int
    ruleset_hash: str


class Heartbeat:
    """Sends heartbeats from its own thread while ticks complete; sends nothing while the sampler hangs.

    It never waits for a receiver, a tick or the state file.
    """

    def __init__(
        self,
        host: HostName,
        problems: Callable[[], Sequence[str]],
        clock: Clock,
        log: logging.Logger,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Send for `host`; `problems` returns one line per problem outside ticks, such as a receiver that is down.

        `draw`: a random number between two.
        """
        self._host = host
        self._problems = problems
        self._clock = clock
        self._log = log
        self._draw = draw
        # A phase of its own: all hosts of a fleet start, reload and lose the monitor at the same moment.
        self._has_phase = False
        self._target: HeartbeatTarget | None = None
        self._rules = RulesInForce(0, "")
        self._tick_ns = SECOND_NS
        self._good_ns: int | None = None  # end of the newest tick that succeeded
        self._ended_ns: int | None = None  # end of the newest tick
        self._failures = 0  # in a row
        self._suppressed = False
        self._wake_up = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._lacks_thread = False

    def set_target(self, target: HeartbeatTarget | None, rules: RulesInForce) -> None:
        """Send to `target` from now on, with the facts of `rules`; None: send nothing."""
        self._target, self._rules = target, rules
        self._has_phase = False
        if self._thread.ident is None and target is not None:
            self._start()
        self._wake_up.set()

    def record_tick(self, *, succeeded: bool, interval_ns: int) -> None:
        """Record that a tick has ended; the next one is due `interval_ns` after its start."""
        if self._lacks_thread:
            self._start()
        first, now_ns = self._ended_ns is None, self._clock.boottime_ns()
        self._tick_ns = interval_ns
        if succeeded:
            self._good_ns = now_ns
        self._ended_ns = now_ns
        if first or self._suppressed:
            self._wake_up.set()

    def last_good_tick_age_seconds(self) -> float | None:
        """Return the seconds since the newest tick that succeeded, None before the first."""
        good_ns = self._good_ns
        return None if good_ns is None else (self._clock.boottime_ns() - good_ns) / SECOND_NS

    def stop(self) -> None:
        """Send no further heartbeat, without waiting for one under way."""
        self._stopping = True
        self._wake_up.set()

    def _start(self) -> None:
        self._lacks_thread = True
        with contextlib.suppress(RuntimeError):  # any user can use up the host's threads: the next tick tries again
            self._thread.start()
            self._lacks_thread = False

    def _run(self) -> None:
        while not self._stopping:
            self._wake_up.clear()
            self._wake_up.wait(self.send_if_due())

    def send_if_due(self) -> float | None:
        """Send a heartbeat unless ticks are late.

        Return the seconds until the next one, None to wait for a target or a tick: one that was due while ticks were
        late is sent at the end of the next tick. The first one, and the first one after failures, is followed by a
        random part of the interval.
        """
        target = self._target
        if target is None or self._ended_ns is None:
            return None
        interval_seconds = target.interval_ns / SECOND_NS
        try:
            sent = self._send(target)
        except DeliveryError as error:
            return self._failed(f"{error.reason}: {error}", interval_seconds)
        except Exception as error:  # noqa: BLE001 - the edge of this thread: only type and location are safe to log
            return self._failed(f"{type(error).__name__} in {error_location(error)}", interval_seconds)
        if not sent:
            return None
        if self._failures:
            self._log.warning("heartbeat works again: failures=%d", self._failures)
            self._failures = 0
            self._has_phase = False
        if self._has_phase:
            return interval_seconds
        self._has_phase = True
        return self._draw(0.0, interval_seconds)

    def _send(self, target: HeartbeatTarget) -> bool:
        # Returns whether a heartbeat was sent.
        now_ns = self._clock.boottime_ns()
        late_ns = max(_MAX_TICKS_LATE * self._tick_ns, _MIN_LATE_NS)
        is_late = self._ended_ns is None or now_ns - self._ended_ns > late_ns
        self._log_suppression(is_late, late_ns)
        if is_late:
            return False
        age_ns = None if self._good_ns is None else now_ns - self._good_ns
        problems = [] if age_ns is not None and age_ns <= late_ns else ["ticks fail"]
        problems += self._problems()
        document = {
            "host": self._host.current,
            "version": __version__,
            "status": "fail" if problems else "ok",
            "trouble": problems,
            "rule_count": self._rules.rule_count,
            "ruleset_sha256": self._rules.ruleset_hash,
            "last_good_tick_age_seconds": None if age_ns is None else round(age_ns / SECOND_NS, 3),
        }
        target.post(json.dumps(document).encode(), DEADLINE_SECONDS, is_healthy=not problems)
        return True

    def _failed(self, reason: str, interval_seconds: float) -> float:
        # Logged once, not at every try.
        self._failures += 1
        if self._failures == 1:
            self._log.error(
                "heartbeat failed, retrying without further log lines: retry=%gs reason=%s",
                interval_seconds / _RETRIES,
                reason,
            )
        retry_seconds = interval_seconds / _RETRIES
        return self._draw(retry_seconds / 2, retry_seconds)

    def _log_suppression(self, suppressed: bool, late_ns: int) -> None:  # noqa: FBT001 - the new state
        if suppressed == self._suppressed:
            return
        self._suppressed = suppressed
        if suppressed:
            self._log.error("heartbeat suppressed: no tick completed within %s", format_duration(late_ns))
        else:
            self._log.warning("heartbeat resumed: ticks complete again")
