"""One receiver's worker: takes what is due from the outbox, sends it, writes down how it went.

No thread in here: `run_due` does all that can be done now and returns. `delivery.py` calls it from the receiver's
thread.
"""

from __future__ import annotations

import logging
import random
import traceback
from collections import Counter
from pathlib import Path

from watchdog.clock import SECOND_NS, Clock
from watchdog.errors import DeliveryError
from watchdog.notify.gate import BudgetGate
from watchdog.notify.outbox import LONGEST_WAIT_NS, Attempt, Outbox, Outcome
from watchdog.notify.receiver import Receiver

ATTEMPT_SECONDS = 10.0
BACKOFF_BASE_SECONDS = 1.0
BACKOFF_CAP_SECONDS = 300.0


def backoff_seconds(number: int) -> float:
    """Return how long to wait after failed attempt `number` (from 1): anything up to 1, 2, 4, … 300 s.

    Full jitter: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    most = min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2.0 ** min(number - 1, 16))
    return random.uniform(0.0, most)  # noqa: S311 - spreads load, hides nothing


class Worker:
    """Delivers to one receiver.

    Since the start: `sent` counts notices, `failed` attempts by reason of `DeliveryError` (and "internal"), `lost`
    notices given up, by cause ("expired", "refused").
    """

    def __init__(self, receiver: Receiver, outbox: Outbox, clock: Clock, log: logging.Logger) -> None:
        """Take the receiver over: nobody else sends through it."""
        self.name = receiver.name
        self.sent = 0
        self.failed: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self._receiver = receiver
        self._outbox = outbox
        self._clock = clock
        self._log = log
        self._gate = BudgetGate(receiver.budget, clock) if receiver.budget else None
        self._unrecorded: Outcome | None = None
        self._held_until_ns = 0
        self._finish_by_ns: int | None = None

    def run_due(self) -> int | None:
        """Attempt every notice that is due; return the CLOCK_BOOTTIME of the next one, None when none waits.

        An outcome that could not be written is kept, and written before anything else is sent: a full disk holds
        notices back, it does not repeat them.

        Raises:
            StoreError: the outbox can't be written; call again later.
        """
        while True:
            self._record()
            for notice in self._outbox.expire(self.name):
                self._lose(notice, "expired", "not delivered for a day")
            if self._seconds_left() <= 0:
                return None
            if self._clock.boottime_ns() < self._held_until_ns:
                return self._held_until_ns
            attempt = self._outbox.begin(self.name, self._gate)
            if attempt is None:
                return self._outbox.next_due_ns(self.name)
            self._unrecorded = self._attempt(attempt)

    def finish_by(self, at_ns: int) -> None:
        """Begin no attempt after `at_ns` of CLOCK_BOOTTIME, and give those before it no more than the time left."""
        self._finish_by_ns = at_ns

    def close(self) -> None:
        """Give back the receiver's sockets."""
        self._receiver.close()

    def _record(self) -> None:
        if self._unrecorded is not None:
            self._outbox.end(self._unrecorded)
            self._unrecorded = None

    def _seconds_left(self) -> float:
        if self._finish_by_ns is None:
            return ATTEMPT_SECONDS
        return min(ATTEMPT_SECONDS, (self._finish_by_ns - self._clock.boottime_ns()) / SECOND_NS)

    def _attempt(self, attempt: Attempt) -> Outcome:
        try:
            self._receiver.send(attempt.notice, max(self._seconds_left(), 0.001))
        except DeliveryError as error:
            return self._failed(attempt, error)
        except Exception as error:  # noqa: BLE001 - one of the two edges: a bug in a receiver must not stop the others
            # Only the kind and the place: the text of a stranger's exception can hold a URL or a secret.
            text = f"{type(error).__name__} in {place_of(error)}"
            return self._failed(attempt, DeliveryError("internal", text, retryable=True))
        self.sent += 1
        return Outcome(attempt, "done", "ok")

    def _failed(self, attempt: Attempt, error: DeliveryError) -> Outcome:
        self.failed[error.reason] += 1
        result = f"{error.reason}: {error}"
        if not error.retryable:
            self._lose(attempt.notice.id, "refused", f"{result}; attempt {attempt.number}, the last")
            return Outcome(attempt, "dead", result)
        wait_seconds = backoff_seconds(attempt.number)
        if error.retry_after_seconds is not None:
            wait_seconds = min(max(wait_seconds, error.retry_after_seconds), LONGEST_WAIT_NS / SECOND_NS)
        due_ns = self._clock.boottime_ns() + round(wait_seconds * SECOND_NS)
        if error.retry_after_seconds is not None or error.reason == "rate_limited":
            self._held_until_ns = due_ns  # it asked us to wait, not this notice
        self._log.warning(
            "notice %s not delivered to %s: %s; attempt %d, next in %.1f s",
            attempt.notice.id,
            self.name,
            result,
            attempt.number,
            wait_seconds,
        )
        return Outcome(attempt, "pending", result, due_ns)

    def _lose(self, notice: str, cause: str, text: str) -> None:
        self.lost[cause] += 1
        self._log.error("notice %s given up for %s: %s", notice, self.name, text)


def place_of(error: Exception) -> str:
    """Return "file.py:line" of where `error` was raised: all of a stranger's exception that is safe to log."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"
