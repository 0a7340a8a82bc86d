"""The outbound heartbeat: word now and then that all is well, or is not; silence says that nobody is there to tell."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from watchdog import __version__
from watchdog.clock import SECOND_NS, Clock
from watchdog.delivery.worker import error_location
from watchdog.errors import DeliveryError, StoreError

DEADLINE_SECONDS = 10.0
_RETRIES = 4  # in the time of one interval, when a beat did not get through
_TIMES_LATE = 3  # as many intervals without a good tick are too many …
_LEAST_LATE_NS = 10 * SECOND_NS  # … but a busy machine is given this long


class HeartbeatTarget(Protocol):
    """Whom to tell, and how often."""

    interval_ns: int

    def post(self, body: bytes, deadline_seconds: float, *, is_healthy: bool) -> None:
        """Tell.

        Raises:
            DeliveryError: it was not heard.
        """
        ...


@dataclass(frozen=True, slots=True)
class RulesInForce:
    """What is said of the rules in force."""

    rule_count: int
    ruleset_hash: str


class Heartbeat:
    """Beats in a thread of its own, as long as ticks go well; a sampler that hangs lets it go silent."""

    def __init__(self, host: str, problems: Callable[[], Sequence[str]], clock: Clock, log: logging.Logger) -> None:
        """Tell for `host`; `trouble` says what else is wrong, such as a receiver that is not reached."""
        self._host = host
        self._trouble = problems
        self._clock = clock
        self._log = log
        self._target: HeartbeatTarget | None = None
        self._rules = RulesInForce(0, "")
        self._tick_ns = SECOND_NS
        self._good_ns: int | None = None  # when the newest good tick ended
        self._ended_ns: int | None = None  # when the newest tick ended, good or not
        self._failures = 0  # in a row
        self._silent = False
        self._news = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def set_target(self, target: HeartbeatTarget | None, rules: RulesInForce) -> None:
        """Tell `target` of `rules` from now on; None: nobody."""
        self._target, self._rules = target, rules
        if self._thread.ident is None and target is not None:
            self._thread.start()
        self._news.set()

    def record_tick(self, *, succeeded: bool, interval_ns: int) -> None:
        """Note that a tick has ended; the next is due `interval_ns` after it began."""
        first, now_ns = self._ended_ns is None, self._clock.boottime_ns()
        self._tick_ns = interval_ns
        if succeeded:
            self._good_ns = now_ns
        self._ended_ns = now_ns
        if first:
            self._news.set()

    def stop(self) -> None:
        """Beat no more; a beat under way is left behind."""
        self._stopping = True
        self._news.set()

    def _run(self) -> None:
        while not self._stopping:
            self._news.clear()
            self._news.wait(self.send_if_due())

    def send_if_due(self) -> float | None:
        """Tell how it is, if there is something to tell; return in how many seconds the next is due (None: on news)."""
        target = self._target
        if target is None or self._ended_ns is None:
            return None
        interval_seconds = target.interval_ns / SECOND_NS
        try:
            sent = self._send(target)
        except DeliveryError as error:
            return self._failed(f"{error.reason}: {error}", interval_seconds)
        except Exception as error:  # noqa: BLE001 - the edge of this thread: only kind and place are safe to log
            return self._failed(f"{type(error).__name__} in {error_location(error)}", interval_seconds)
        if sent and self._failures:
            self._log.warning("heartbeat: works again after %d failures", self._failures)
            self._failures = 0
        return interval_seconds

    def _send(self, target: HeartbeatTarget) -> bool:
        # Tell whether anything was sent: a sampler that hangs has nothing to say.
        now_ns = self._clock.boottime_ns()
        late_ns = max(_TIMES_LATE * self._tick_ns, _LEAST_LATE_NS)
        silent = self._ended_ns is None or now_ns - self._ended_ns > late_ns
        self._tell_silence(silent)
        if silent:
            return False
        age_ns = None if self._good_ns is None else now_ns - self._good_ns
        trouble = [] if age_ns is not None and age_ns <= late_ns else ["ticks fail"]
        try:
            trouble += self._trouble()
        except StoreError as error:
            trouble.append(str(error))
        document = {
            "host": self._host,
            "version": __version__,
            "status": "fail" if trouble else "ok",
            "trouble": trouble,
            "rules": self._rules.rule_count,
            "rules_sha256": self._rules.ruleset_hash,
            "last_tick_age_seconds": None if age_ns is None else round(age_ns / SECOND_NS, 3),
        }
        target.post(json.dumps(document).encode(), DEADLINE_SECONDS, is_healthy=not trouble)
        return True

    def _failed(self, reason: str, interval_seconds: float) -> float:
        # Told once, not at every try.
        self._failures += 1
        if self._failures == 1:
            self._log.error("heartbeat: not delivered: %s; tried on, silently", reason)
        return interval_seconds / _RETRIES

    def _tell_silence(self, silent: bool) -> None:  # noqa: FBT001 - what it tells
        if silent != self._silent:
            self._silent = silent
            words = "withheld, for no tick has ended in time" if silent else "ticks end again"
            self._log.error("heartbeat: %s", words)
