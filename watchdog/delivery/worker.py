"""One receiver's worker: takes what is due from the outbox, sends it, writes down how it went.

No thread in here: `deliver_due` does all that can be done now and returns. `delivery.py` calls it from the receiver's
thread.
"""

from __future__ import annotations

import logging
import random
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from watchdog.alerts.alert import Alert
from watchdog.clock import SECOND_NS, Clock
from watchdog.delivery.health import ReceiverHealth
from watchdog.delivery.receiver_down import Outage
from watchdog.errors import DeliveryError, DeliveryErrorReason, StoreError
from watchdog.receivers.base import Receiver, ReceiverState, VolatileReceiverState
from watchdog.state.losses import LossCause
from watchdog.state.outbox import MAX_RETRY_WAIT_NS, AttemptOutcome, DeliveryAttempt, Outbox
from watchdog.state.rate_limiter import RateLimiter

ATTEMPT_TIMEOUT_SECONDS = 10.0
HANG_TIMEOUT_SECONDS = 3 * ATTEMPT_TIMEOUT_SECONDS  # no attempt takes so long that keeps its deadline
MAX_DEFECT_ATTEMPTS = 65  # of a notice that a defect of ours keeps from being sent: half an hour
# So many failures in a row are the receiver's, not those of single notices. From then on it is asked seldom, however
# many wait: ten thousand that are each tried now and then would be tried at every moment.
FAILURES_BEFORE_HOLD = 5
MAX_HOLD_SECONDS = 30.0
BACKOFF_BASE_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 60.0


def backoff_seconds(attempt: int, max_seconds: float = MAX_BACKOFF_SECONDS) -> float:
    """Return how long to wait after failed attempt `number` (from 1): anything up to 1, 2, 4, … 60 s.

    Full jitter: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    most = min(max_seconds, BACKOFF_BASE_SECONDS * 2.0 ** min(attempt - 1, 16))
    return random.uniform(0.0, most)  # noqa: S311 - spreads load, hides nothing


class Worker:
    """Delivers to one receiver.

    Since the start: `delivered` counts notifications, `failed_attempts` counts attempts by reason of `DeliveryError`
    (and "internal"). Lost notifications are counted in the state file.
    """

    def __init__(
        self, receiver: Receiver, outbox: Outbox, clock: Clock, log: logging.Logger, memory: ReceiverState | None = None
    ) -> None:
        """Take the receiver over: nobody else sends through it. `memory` holds since when it fails, over restarts."""
        self.name = receiver.name
        self.health = ReceiverHealth(memory or VolatileReceiverState(), clock, HANG_TIMEOUT_SECONDS)
        self.delivered = 0
        self.failed_attempts: Counter[DeliveryErrorReason] = Counter()
        self._receiver = receiver
        self._outbox = outbox
        self._clock = clock
        self._log = log
        self._gate = RateLimiter(receiver.rate_limit, clock) if receiver.rate_limit else None
        self._unrecorded: AttemptOutcome | None = None
        self._held_until_ns = 0
        self._finish_by_ns: int | None = None
        self._failures_in_row = 0
        self._hurry = False
        self._refresh_trouble: str | None = None  # told once, not at every turn

    @property
    def outage(self) -> Outage | None:
        """Return since when and why nothing reaches the receiver, None while it takes what it is sent."""
        return self.health.outage

    @property
    def refresh_interval_seconds(self) -> float | None:
        """Return how often the receiver wants to be refreshed, None for never."""
        return self._receiver.refresh_interval_seconds

    def deliver_due(self) -> int | None:
        """Attempt every notice that is due; return the CLOCK_BOOTTIME of the next one, None when none waits.

        An outcome that could not be written is kept, and written before anything else is sent: a full disk holds
        notices back, it does not repeat them.

        Raises:
            StoreError: the outbox can't be written; call again later.
        """
        while True:
            self._record()
            for notification in self._outbox.expire_old(self.name):
                self._log_loss(notification, LossCause.EXPIRED, "not delivered for 24 hours")
            if self._seconds_left() <= 0:
                return None
            if self._clock.boottime_ns() < self._held_until_ns:
                return self._held_until_ns
            attempt = self._outbox.begin_attempt(self.name, self._gate)
            if attempt is None:
                return self._outbox.next_due_ns(self.name)
            self._unrecorded = self._attempt(attempt)

    def refresh(self, alerts: Sequence[Alert], host: str) -> None:
        """Have the receiver say again that `alerts` fire; a failure is counted and told, and makes up for nothing."""
        now_ns = self._clock.boottime_ns()
        if now_ns < self._held_until_ns or self._finish_by_ns is not None:
            return
        trouble: str | None = None
        self.health.attempt_started()
        try:
            self._receiver.refresh(alerts, host, ATTEMPT_TIMEOUT_SECONDS)
        except DeliveryError as error:
            if error.retry_after_seconds is not None:
                self._hold(error.retry_after_seconds)
            trouble = self._count(error.reason, str(error), refresh=True)
        except Exception as error:  # noqa: BLE001 - as in _attempt
            trouble = self._count(DeliveryErrorReason.INTERNAL, _kind_and_place(error), refresh=True)
        else:
            self.health.attempt_succeeded(refresh=True)
        if trouble is not None and trouble != self._refresh_trouble:
            self._log.warning("%s could not be told again what fires: %s", self.name, trouble)
        elif trouble is None and self._refresh_trouble is not None:
            self._log.warning("%s is told again what fires", self.name)
        self._refresh_trouble = trouble

    def set_deadline(self, at_ns: int) -> None:
        """Begin no attempt after `at_ns` of CLOCK_BOOTTIME, and give those before it no more than the time left."""
        self._finish_by_ns = at_ns

    def close(self) -> None:
        """Give back the receiver's sockets."""
        self._receiver.close()

    def _record(self) -> None:
        # What is known of the receiver first: should the next step fail, the notice is sent again, and that told anew.
        self.health.save()
        if self._unrecorded is not None:
            self._outbox.finish_attempt(self._unrecorded)
            self._unrecorded = None
        if self._hurry:
            self._outbox.retry_now(self.name)
            self._hurry = False

    def _seconds_left(self) -> float:
        if self._finish_by_ns is None:
            return ATTEMPT_TIMEOUT_SECONDS
        return min(ATTEMPT_TIMEOUT_SECONDS, (self._finish_by_ns - self._clock.boottime_ns()) / SECOND_NS)

    def _attempt(self, attempt: DeliveryAttempt) -> AttemptOutcome:
        self.health.attempt_started()
        try:
            self._receiver.send(attempt.notification, self._time_for_attempt())
        except DeliveryError as error:
            if error.reason is DeliveryErrorReason.RENDER:
                return self._attempt_plain(attempt, str(error))
            return self._failed(attempt, error)
        except StoreError as error:  # of the receiver's memory
            return self._failed(attempt, DeliveryError(DeliveryErrorReason.STORE, str(error), retryable=True))
        except Exception as error:  # noqa: BLE001 - one of the two edges: a bug in a receiver must not stop the others
            text = self._rendering_error(attempt)
            if text is not None:
                return self._attempt_plain(attempt, text)
            return self._defect(attempt, DeliveryErrorReason.INTERNAL, _kind_and_place(error))
        return self._sent(attempt, "ok")

    def _rendering_error(self, attempt: DeliveryAttempt) -> str | None:
        # Whether it was the words that could not be made, or something else.
        try:
            self._receiver.render(attempt.notification)
        except DeliveryError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - as in _attempt
            return _kind_and_place(error)
        return None

    def _attempt_plain(self, attempt: DeliveryAttempt, text: str) -> AttemptOutcome:
        self.failed_attempts[DeliveryErrorReason.RENDER] += 1
        self._log.error(
            "notice %s cannot be rendered for %s: %s; sent in plain words", attempt.notification.id, self.name, text
        )
        try:
            self._receiver.send_fallback(attempt.notification, text, self._time_for_attempt())
        except DeliveryError as error:
            if error.reason is DeliveryErrorReason.RENDER:
                return self._defect(attempt, DeliveryErrorReason.RENDER, str(error))
            return self._failed(attempt, error)
        except StoreError as error:
            return self._failed(attempt, DeliveryError(DeliveryErrorReason.STORE, str(error), retryable=True))
        except Exception as error:  # noqa: BLE001 - as in _attempt
            return self._defect(attempt, DeliveryErrorReason.RENDER, _kind_and_place(error))
        return self._sent(attempt, f"ok, in plain words: {text}")

    def _time_for_attempt(self) -> float:
        return max(self._seconds_left(), 0.001)

    def _sent(self, attempt: DeliveryAttempt, result: str) -> AttemptOutcome:
        self.delivered += 1
        self.health.attempt_succeeded()
        self._hurry |= self._failures_in_row > FAILURES_BEFORE_HOLD
        self._failures_in_row = 0
        return AttemptOutcome(attempt, "done", result)

    def _defect(self, attempt: DeliveryAttempt, reason: DeliveryErrorReason, text: str) -> AttemptOutcome:
        again = attempt.number < MAX_DEFECT_ATTEMPTS
        return self._failed(attempt, DeliveryError(reason, text, retryable=again), LossCause.DEFECT)

    def _failed(
        self, attempt: DeliveryAttempt, error: DeliveryError, cause: LossCause = LossCause.REFUSED
    ) -> AttemptOutcome:
        result = self._count(error.reason, str(error))
        if not error.retryable:
            self._log_loss(attempt.notification.id, cause, f"{result}; attempt {attempt.number}, the last")
            return AttemptOutcome(attempt, "dead", result, cause=cause)
        wait_seconds = backoff_seconds(attempt.number)
        if error.retry_after_seconds is not None:
            wait_seconds = min(max(wait_seconds, error.retry_after_seconds), MAX_RETRY_WAIT_NS / SECOND_NS)
        due_ns = self._clock.boottime_ns() + round(wait_seconds * SECOND_NS)
        if error.retry_after_seconds is not None or error.reason is DeliveryErrorReason.RATE_LIMITED:
            self._held_until_ns = due_ns  # it asked us to wait, not this notice
        self._failures_in_row += 1
        if self._failures_in_row > FAILURES_BEFORE_HOLD:
            in_vain = self._failures_in_row - FAILURES_BEFORE_HOLD
            self._hold(max(backoff_seconds(in_vain, MAX_HOLD_SECONDS), error.retry_after_seconds or 0.0))
        self._log.warning(
            "notice %s not delivered to %s: %s; attempt %d, next in %.1f s",
            attempt.notification.id,
            self.name,
            result,
            attempt.number,
            wait_seconds,
        )
        return AttemptOutcome(attempt, "pending", result, due_ns)

    def _count(self, reason: DeliveryErrorReason, text: str, *, refresh: bool = False) -> str:
        self.failed_attempts[reason] += 1
        result = f"{reason}: {text}"
        self.health.attempt_failed(result, refresh=refresh)
        return result

    def _hold(self, seconds: float) -> None:
        wait_ns = round(min(max(0.0, seconds), MAX_RETRY_WAIT_NS / SECOND_NS) * SECOND_NS)
        self._held_until_ns = max(self._held_until_ns, self._clock.boottime_ns() + wait_ns)

    def _log_loss(self, notification_id: str, cause: LossCause, text: str) -> None:
        self._log.error(
            "notification failed for good: receiver=%s notification=%s cause=%s: %s",
            self.name,
            notification_id,
            cause,
            text,
        )


def _kind_and_place(error: Exception) -> str:
    # Nothing else: the text of a stranger's exception can hold a URL or a secret.
    return f"{type(error).__name__} in {error_location(error)}"


def error_location(error: Exception) -> str:
    """Return "file.py:line" of where `error` was raised: all of a stranger's exception that is safe to log."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"
