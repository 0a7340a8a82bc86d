"""The worker of one receiver: takes due notifications from the outbox, sends them, records the results.

It has no thread: `deliver_due` sends all that is due and returns. `delivery.py` calls it from the receiver's thread.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from watchdog.alerts.alert import Alert
from watchdog.clock import SECOND_NS, Clock, Now, boot_id
from watchdog.delivery.health import Outage, ReceiverHealth
from watchdog.errors import (
    ConfigError,
    DeliveryError,
    DeliveryErrorReason,
    PartialDeliveryError,
    StoreError,
    UncertainDeliveryError,
    error_location,
)
from watchdog.receivers.base import Receiver, ReceiverState, VolatileReceiverState
from watchdog.routing.notification import Notification
from watchdog.state.losses import LossCause
from watchdog.state.outbox import AttemptOutcome, DeliveryAttempt, Outbox
from watchdog.state.outbox_rows import MAX_RETRY_WAIT_NS
from watchdog.state.rate_limiter import RateLimiter

# An attempt that runs for so long counts as the beginning of an outage, also where `timeout` allows more: escalation
# and alerts about the receiver count from its start.
HANG_TIMEOUT_SECONDS = 30.0
MAX_PARTIAL_ATTEMPTS = 65  # of a notification for recipients that are deferred: half an hour
MAX_DEFECT_ATTEMPTS = 65  # of a notification that a defect of bpf-watchdog makes unsendable: half an hour
# After so many failures in a row the receiver itself is taken as the cause. From then on it is tried seldom, whatever
# number of notifications is pending: ten thousand with a backoff of their own would make an attempt at every moment.
FAILURES_BEFORE_HOLD = 5
MAX_HOLD_SECONDS = 30.0
BACKOFF_BASE_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 60.0
# After an attempt that may have arrived, copies are fewer and rarer.
OPEN_BACKOFF_BASE_SECONDS = 60.0
OPEN_BACKOFF_FACTOR = 4.0
NEW_SECRET_SECONDS = 30.0  # until the file of a refused login is read again
POSSIBLE_COPY = "possible copy, an earlier attempt may have arrived"


def backoff_seconds(attempt: int, max_seconds: float = MAX_BACKOFF_SECONDS) -> float:
    """Return the seconds to wait after failed attempt number `attempt` (from 1): random, at most 1, 2, 4, … 60 s.

    Full jitter: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    upper_seconds = min(max_seconds, BACKOFF_BASE_SECONDS * 2.0 ** min(attempt - 1, 16))
    return random.uniform(0.0, upper_seconds)  # noqa: S311 - spreads load, no secret


def open_backoff_seconds(open_attempts: int) -> float:
    """Return the seconds to wait after `open_attempts` (from 1) that may have arrived.

    Random, at most 1, 4, 16, 60 minutes, at least half of that.
    """
    upper_seconds = OPEN_BACKOFF_BASE_SECONDS * OPEN_BACKOFF_FACTOR ** min(open_attempts - 1, 16)
    upper_seconds = min(MAX_RETRY_WAIT_NS / SECOND_NS, upper_seconds)
    return random.uniform(upper_seconds / 2, upper_seconds)  # noqa: S311 - as above


@dataclass(slots=True)
class _AttemptCounts:
    # Shared with the worker of the same receiver before a reload, whose last attempt ends before the next begins.
    delivered: int = 0
    failed: Counter[DeliveryErrorReason] = field(default_factory=Counter)


class Worker:
    """Delivers the notifications of one receiver.

    `refusal`: the error of the recipients without the newest notification that others got; "" if all got it, None
    before the first one. `loss`: the error of a notification that failed for good, None once a later one was
    taken.

    Since the start, over reloads: `delivered` counts notifications, `failed_attempts` counts attempts by reason of
    `DeliveryError` (and "internal"). Lost notifications are counted in the state file.
    """

    def __init__(
        self,
        receiver: Receiver,
        outbox: Outbox,
        clock: Clock,
        log: logging.Logger,
        receiver_state: ReceiverState | None = None,
        former: Worker | None = None,
    ) -> None:
        """Take ownership of the receiver. `receiver_state` keeps its outage over restarts.

        `former`: the worker of this receiver before a reload, whose counts go on here.
        """
        self.name = receiver.name
        self.health = ReceiverHealth(receiver_state or VolatileReceiverState(), clock, HANG_TIMEOUT_SECONDS)
        self._counts: _AttemptCounts = _AttemptCounts() if former is None else former._counts  # noqa: SLF001 - the same class
        self.refusal: str | None = None
        self.loss: str | None = None
        self._receiver = receiver
        self._outbox = outbox
        self._clock = clock
        self._log = log
        self._limiter = RateLimiter(receiver.rate_limit, clock) if receiver.rate_limit else None
        self._unrecorded: AttemptOutcome | None = None
        self._held_until_ns = 0
        self._last_begin_ns: int | None = None
        self._deadline_ns: int | None = None
        self._failures_in_row = 0
        self._retry_all = False
        self._reread_files = False
        self._renewal_error = ""
        self._refresh_error: str | None = None  # logged once, not at every refresh

    @property
    def delivered(self) -> int:
        """Return the number of notifications delivered."""
        return self._counts.delivered

    @property
    def failed_attempts(self) -> Counter[DeliveryErrorReason]:
        """Return the number of failed attempts by reason."""
        return self._counts.failed

    @property
    def outage(self) -> Outage | None:
        """Return the present outage, None while attempts succeed."""
        return self.health.outage

    @property
    def refresh_interval_seconds(self) -> float | None:
        """Return the interval between refreshes, None if the receiver needs none."""
        return self._receiver.refresh_interval_seconds

    def deliver_due(self) -> int | None:
        """Attempt every due notification; return the CLOCK_BOOTTIME in ns of the next one, None when none is pending.

        An outcome that could not be written is kept, and written before anything else is sent: a full disk delays
        notifications and does not repeat them.

        Raises:
            StoreError: the outbox can't be written; call again later.
        """
        while True:
            self._record()
            for notification in self._outbox.expire_old(self.name):
                self._log_loss(notification, LossCause.EXPIRED, "not delivered for 24 hours")
            if self._last_begin_ns is not None and self._clock.boottime_ns() >= self._last_begin_ns:
                return None
            if self._clock.boottime_ns() < self._held_until_ns:
                return self._held_until_ns
            attempt = self._outbox.begin_attempt(self.name, self._limiter, self._is_sent)
            if attempt is None:
                return self._outbox.next_due_ns(self.name)
            self._unrecorded = self._attempt(attempt)

    def refresh(self, alerts: Sequence[Alert], host: str) -> bool:
        """Send `alerts` to the receiver again as firing; a failed refresh is counted and logged.

        Return whether the receiver has them. During a wait that it asked for nothing is sent.
        """
        now_ns = self._clock.boottime_ns()
        if now_ns < self._held_until_ns or self._last_begin_ns is not None:
            return False
        problem: str | None = None
        self.health.attempt_started()
        try:
            self._renew_receiver()
            self._receiver.refresh(alerts, host, self._receiver.timeout_seconds)
        except DeliveryError as error:
            if error.retry_after_seconds is not None:
                self._hold(error.retry_after_seconds)
            problem = self._count_failure(error.reason, str(error), refresh=True)
        except Exception as error:  # noqa: BLE001 - as in _attempt
            problem = self._count_failure(DeliveryErrorReason.INTERNAL, _type_and_location(error), refresh=True)
        else:
            self.health.attempt_succeeded(refresh=True)
        if problem is not None and problem != self._refresh_error:
            self._log.warning("refresh failed: receiver=%s error=%s", self.name, problem)
        elif problem is None and self._refresh_error is not None:
            self._log.warning("refresh works again: receiver=%s", self.name)
        self._refresh_error = problem
        return problem is None

    def set_deadline(self, last_begin_ns: int, deadline_ns: int | None = None) -> None:
        """Begin no attempt from `last_begin_ns` of CLOCK_BOOTTIME on, and end those begun meanwhile at `deadline_ns`.

        None: an attempt may take its whole time.
        """
        self._deadline_ns = deadline_ns
        self._last_begin_ns = last_begin_ns

    def close(self) -> None:
        """Close the receiver's sockets."""
        self._receiver.close()

    def _record(self) -> None:
        # The receiver's health first: if the next step fails, the notification is sent again, and the health updated.
        self.health.save()
        if self._unrecorded is not None:
            self._outbox.finish_attempt(self._unrecorded)
            self._unrecorded = None
        if self._retry_all:
            self._outbox.retry_now(self.name)
            self._retry_all = False

    def _attempt(self, attempt: DeliveryAttempt, *, is_second: bool = False) -> AttemptOutcome:
        if not self._is_sent(attempt.notification):
            return AttemptOutcome(attempt, "delivered", "not sent: send_resolved = false")
        if not is_second:
            self._renew_receiver(has_refused=self._reread_files)
        self._reread_files = False
        self.health.attempt_started()
        try:
            self._receiver.send(self._marked(attempt), self._attempt_seconds())
        except DeliveryError as error:
            return self._not_sent(attempt, error, is_second=is_second)
        except StoreError as error:  # of the receiver's saved state
            return self._failed(attempt, DeliveryError(DeliveryErrorReason.STORE, str(error), retryable=True))
        except Exception as error:  # noqa: BLE001 - one of the two edges: a defect in a receiver must not stop the others
            text = self._rendering_error(attempt)
            if text is not None:
                return self._attempt_fallback(attempt, text)
            return self._defect(attempt, DeliveryErrorReason.INTERNAL, _type_and_location(error))
        return self._sent(attempt, "ok")

    def _not_sent(self, attempt: DeliveryAttempt, error: DeliveryError, *, is_second: bool) -> AttemptOutcome:
        if isinstance(error, PartialDeliveryError):
            return self._partly_sent(attempt, error)
        if error.reason is DeliveryErrorReason.RENDER:
            return self._attempt_fallback(attempt, str(error))
        if error.reason is DeliveryErrorReason.AUTH and not is_second:
            if self._renew_receiver():
                return self._attempt(attempt, is_second=True)
            if self._may_get_another_login(attempt):
                self._reread_files = True
                error = DeliveryError(error.reason, str(error), retryable=True)
                return self._failed(attempt, error, min_wait_seconds=NEW_SECRET_SECONDS)
        return self._failed(attempt, error)

    def _renew_receiver(self, *, has_refused: bool = False) -> bool:
        # Returns whether a new receiver was built, with the present content of its files: one of them has changed, or
        # the service has refused the login in them.
        source = self._receiver.source
        if source is None or not (has_refused or source.has_changed()):
            return False
        try:
            renewed = source.build()
        except (ConfigError, OSError) as error:  # OSError: no descriptor is free
            if str(error) != self._renewal_error:
                self._log.warning(
                    "changed files cannot be used, the former content stays in use: receiver=%s error=%s",
                    self.name,
                    error,
                )
            self._renewal_error = str(error)
            return False
        self._renewal_error = ""
        self._receiver.close()
        self._receiver = renewed
        self._log.info("secrets and certificates read again: receiver=%s", self.name)
        return True

    def _may_get_another_login(self, attempt: DeliveryAttempt) -> bool:
        # A service may know a new secret before the file has it. The file is read again for one more attempt.
        return self._receiver.source is not None and attempt.number == 1

    def _rendering_error(self, attempt: DeliveryAttempt) -> str | None:
        # Returns None if rendering works, so that something else must have failed.
        try:
            self._receiver.render(self._marked(attempt))
        except DeliveryError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - as in _attempt
            return _type_and_location(error)
        return None

    def _attempt_fallback(self, attempt: DeliveryAttempt, text: str) -> AttemptOutcome:
        self.failed_attempts[DeliveryErrorReason.RENDER] += 1
        self._log.error(
            "rendering failed, fallback text sent: receiver=%s notification=%s error=%s",
            self.name,
            attempt.notification.id,
            text,
        )
        try:
            self._receiver.send_fallback(self._marked(attempt), text, self._attempt_seconds())
        except PartialDeliveryError as error:
            return self._partly_sent(attempt, error)
        except DeliveryError as error:
            if error.reason is DeliveryErrorReason.RENDER:
                return self._defect(attempt, DeliveryErrorReason.RENDER, str(error))
            return self._failed(attempt, error)
        except StoreError as error:
            return self._failed(attempt, DeliveryError(DeliveryErrorReason.STORE, str(error), retryable=True))
        except Exception as error:  # noqa: BLE001 - as in _attempt
            return self._defect(attempt, DeliveryErrorReason.RENDER, _type_and_location(error))
        return self._sent(attempt, f"ok, with the fallback text: {text}")

    def _is_sent(self, notification: Notification) -> bool:
        return bool(self._without_silent_ends(notification).alerts)

    def _without_silent_ends(self, notification: Notification) -> Notification:
        sends_ends = self._receiver.send_resolved
        kept = [one for one in notification.alerts if one.resolved is None or (sends_ends and one.send_resolved)]
        return notification if len(kept) == len(notification.alerts) else replace(notification, alerts=tuple(kept))

    def _marked(self, attempt: DeliveryAttempt) -> Notification:
        sent = self._without_silent_ends(attempt.notification)
        notification = sent.shown_at(Now.read(self._clock), boot_id())
        if not attempt.open_attempts or self._receiver.joins_copies:
            return notification
        detail = f"{notification.reason_detail}; {POSSIBLE_COPY}" if notification.reason_detail else POSSIBLE_COPY
        return replace(notification, reason_detail=detail)

    def _attempt_seconds(self) -> float:
        timeout_seconds = self._receiver.timeout_seconds
        if self._deadline_ns is None:
            return timeout_seconds
        return max(0.001, min(timeout_seconds, (self._deadline_ns - self._clock.boottime_ns()) / SECOND_NS))

    def _partly_sent(self, attempt: DeliveryAttempt, error: PartialDeliveryError) -> AttemptOutcome:
        # The receiver works. A recipient that is deferred for so long counts as refused.
        result = f"{error.reason}: {error}"
        if not error.retryable or attempt.number >= MAX_PARTIAL_ATTEMPTS:
            self._log.warning(
                "delivered in part: receiver=%s notification=%s reason=%s", self.name, attempt.notification.id, result
            )
            return self._sent(attempt, f"ok in part: {result}", refusal=result)
        self.health.attempt_succeeded()
        wait_seconds = backoff_seconds(attempt.number)
        self._log.info(
            "delivered in part: receiver=%s notification=%s reason=%s attempt=%d next=%.1fs",
            self.name,
            attempt.notification.id,
            result,
            attempt.number,
            wait_seconds,
        )
        due_ns = self._clock.boottime_ns() + round(wait_seconds * SECOND_NS)
        return AttemptOutcome(attempt, "pending", result, due_ns, is_partial=True)

    def _sent(self, attempt: DeliveryAttempt, result: str, refusal: str = "") -> AttemptOutcome:
        self._counts.delivered += 1
        self.refusal = refusal
        self.loss = None
        self.health.attempt_succeeded()
        self._retry_all |= self._failures_in_row > FAILURES_BEFORE_HOLD
        self._failures_in_row = 0
        return AttemptOutcome(attempt, "delivered", result)

    def _defect(self, attempt: DeliveryAttempt, reason: DeliveryErrorReason, text: str) -> AttemptOutcome:
        retryable = attempt.number < MAX_DEFECT_ATTEMPTS
        return self._failed(attempt, DeliveryError(reason, text, retryable=retryable), LossCause.DEFECT)

    def _failed(
        self,
        attempt: DeliveryAttempt,
        error: DeliveryError,
        cause: LossCause = LossCause.REFUSED,
        min_wait_seconds: float = 0.0,
    ) -> AttemptOutcome:
        result = self._count_failure(error.reason, str(error))
        if not error.retryable:
            self.loss = result
            self._log_loss(attempt.notification.id, cause, f"{result}; attempt={attempt.number}")
            return AttemptOutcome(attempt, "failed", result, cause=cause)
        is_open = isinstance(error, UncertainDeliveryError) and not self._receiver.joins_copies
        wait_seconds = _wait_seconds(attempt, error) if is_open else backoff_seconds(attempt.number)
        wait_seconds = max(wait_seconds, min_wait_seconds)
        if error.retry_after_seconds is not None:
            wait_seconds = min(max(wait_seconds, error.retry_after_seconds), MAX_RETRY_WAIT_NS / SECOND_NS)
        due_ns = self._clock.boottime_ns() + round(wait_seconds * SECOND_NS)
        if error.retry_after_seconds is not None or error.reason is DeliveryErrorReason.RATE_LIMITED:
            self._held_until_ns = due_ns  # the wait is the receiver's, not only this notification's
        self._failures_in_row += 1
        if self._failures_in_row > FAILURES_BEFORE_HOLD:
            excess = self._failures_in_row - FAILURES_BEFORE_HOLD
            self._hold(max(backoff_seconds(excess, MAX_HOLD_SECONDS), error.retry_after_seconds or 0.0))
        self._log.warning(
            "delivery failed: receiver=%s notification=%s reason=%s attempt=%d next=%.1fs",
            self.name,
            attempt.notification.id,
            result,
            attempt.number,
            wait_seconds,
        )
        return AttemptOutcome(attempt, "pending", result, due_ns, is_open=is_open)

    def _count_failure(self, reason: DeliveryErrorReason, text: str, *, refresh: bool = False) -> str:
        self.failed_attempts[reason] += 1
        result = f"{reason}: {text}"
        self.health.attempt_failed(result, refresh=refresh)
        return result

    def _hold(self, seconds: float) -> None:
        wait_ns = round(min(max(0.0, seconds), MAX_RETRY_WAIT_NS / SECOND_NS) * SECOND_NS)
        self._held_until_ns = max(self._held_until_ns, self._clock.boottime_ns() + wait_ns)

    def _log_loss(self, notification_id: str, cause: LossCause, text: str) -> None:
        self._log.error(
            "notification failed for good: receiver=%s notification=%s cause=%s reason=%s",
            self.name,
            notification_id,
            cause,
            text,
        )


def _wait_seconds(attempt: DeliveryAttempt, error: DeliveryError) -> float:
    # After an attempt that may have arrived. A connection that broke for the first time is tried again soon: mostly the
    # server has ended before it took the notification.
    if error.reason is DeliveryErrorReason.CONNECT and not attempt.open_attempts:
        return backoff_seconds(attempt.number)
    return open_backoff_seconds(attempt.open_attempts + 1)


def _type_and_location(error: Exception) -> str:
    # Without the exception's text, which may hold a URL or a secret.
    return f"{type(error).__name__} in {error_location(error)}"
