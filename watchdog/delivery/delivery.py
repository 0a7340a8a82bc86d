"""Delivery: one thread per receiver, so that no receiver delays another."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from watchdog.alerts.alert import Alert
from watchdog.clock import SECOND_NS, Clock
from watchdog.delivery.health import Outage
from watchdog.delivery.refresh_timer import RefreshTimer
from watchdog.delivery.worker import Worker
from watchdog.errors import DeliveryErrorReason, StoreError, error_location
from watchdog.receivers.base import Receiver
from watchdog.receivers.transport.threads import THREADS_PER_ATTEMPT, keep_spare_threads
from watchdog.state.losses import LossCause
from watchdog.state.outbox import Outbox, QueueStatus
from watchdog.state.receiver_state import StoredReceiverState
from watchdog.state.store import Store

STORE_RETRY_SECONDS = 5.0
# At a start, an older outage with no pending notification to try the receiver with is forgotten: this start may be the
# repair. A younger one is kept, for it may not have been reported yet.
STALE_OUTAGE_SECONDS = 1_800.0
# Threads wait by CLOCK_MONOTONIC, due times are of CLOCK_BOOTTIME: this limits the delay after a suspend, and that of
# notifications that a later commit wrote in place of a failed one.
MAX_SLEEP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class DeliveryCounters:
    """Counters of delivery.

    `delivered`: notifications since the start, by receiver. `failed_attempts`: since the start, by (receiver, reason).
    `losses`: failed notifications since the state file was created, by (receiver, cause). `queues`: now, by receiver.
    """

    delivered: Mapping[str, int]
    failed_attempts: Mapping[tuple[str, str], int]
    losses: Mapping[tuple[str, LossCause], int]
    queues: Mapping[str, QueueStatus]


class Delivery:
    """Sends the notifications that `Store.commit` wrote, each receiver in its own thread."""

    def __init__(
        self,
        store: Store,
        receivers: Iterable[Receiver],
        clock: Clock,
        log: logging.Logger,
        former: Delivery | None = None,
    ) -> None:
        """Take ownership of the receivers; nothing is sent before `start`.

        `former`: a delivery that has been retired. Each receiver waits for the attempt under way for its name there.
        """
        former_threads = {} if former is None else former.threads_by_receiver()
        self._outbox = Outbox(store.database, clock)
        self._clock = clock
        self._log = log
        self._threads: list[_WorkerThread] = []
        for receiver in receivers:
            state = StoredReceiverState(store.database, receiver.name, clock)
            before = former_threads.get(receiver.name)
            worker = Worker(receiver, self._outbox, clock, log, state, None if before is None else before.worker)
            self._threads.append(_WorkerThread(worker, clock, log, before))

    def start(self) -> None:
        """Begin to deliver, notifications of a former daemon first.

        After an error it can be called again.

        Raises:
            StoreError: the outbox can't be written.
            RuntimeError: the host has no thread for a receiver; those before it deliver.
        """
        configured = {thread.worker.name for thread in self._threads}
        for receiver, notification_id in self._outbox.fail_unconfigured(configured):
            self._log.error(
                "notification failed for good: receiver=%s notification=%s cause=receiver_removed",
                receiver,
                notification_id,
            )
        keep_spare_threads(THREADS_PER_ATTEMPT * len(self._threads))
        self._outbox.release_deferred()
        queues = self._outbox.queues()
        for thread in self._threads:
            if not queues.get(thread.worker.name, QueueStatus()).pending:
                thread.worker.health.forget_stale_outage(STALE_OUTAGE_SECONDS)
            thread.start()

    def limit_refresh_to(self, notified: Mapping[str, Sequence[Alert]]) -> None:
        """Stop refreshing every alert that is not in `notified` (by receiver).

        To be called before the resolved notification is committed: a later refresh would make the alert fire again.
        """
        for thread in self._threads:
            thread.limit_refresh_to({alert.fingerprint for alert in notified.get(thread.worker.name, ())})

    def set_refreshed_alerts(self, notified: Mapping[str, Sequence[Alert]], host: str) -> None:
        """Refresh these firing alerts from now on, at each receiver that has a refresh interval."""
        for thread in self._threads:
            thread.set_refreshed_alerts(notified.get(thread.worker.name, ()), host)

    def wake_workers(self) -> None:
        """Wake the threads to look for new notifications. Return at once."""
        for thread in self._threads:
            thread.wake()

    def threads_by_receiver(self) -> dict[str, _WorkerThread]:
        """Return the threads, for the delivery that takes over."""
        return {thread.worker.name: thread for thread in self._threads}

    def retire(self) -> None:
        """Begin no further attempt; return at once. Attempts under way end in their time, see `former`."""
        for thread in self._threads:
            thread.set_deadline(self._clock.boottime_ns(), None)

    def stop(self, deadline_seconds: float, begin_seconds: float | None = None) -> None:
        """Begin attempts for `begin_seconds` more; return when all have ended, after at most `deadline_seconds`.

        `begin_seconds`: None for the whole time.
        The rest stays in the outbox, that of an unfinished attempt too: the next daemon sends it (again).
        """
        now_ns = self._clock.boottime_ns()
        end_ns = now_ns + round(deadline_seconds * SECOND_NS)
        last_begin_ns = end_ns if begin_seconds is None else now_ns + round(begin_seconds * SECOND_NS)
        for thread in self._threads:
            thread.set_deadline(last_begin_ns, end_ns)
        for thread in self._threads:
            thread.join(max(0.0, (end_ns - self._clock.boottime_ns()) / SECOND_NS))

    def outages(self) -> Mapping[str, Outage]:
        """Return the present outages by receiver. Reads memory only and never blocks."""
        outages = {thread.worker.name: thread.outage for thread in self._threads}
        return {name: outage for name, outage in outages.items() if outage is not None}

    def refusals(self) -> dict[str, str]:
        """Return `Worker.refusal` by receiver, without those that are not known yet. Never blocks."""
        refusals = {thread.worker.name: thread.worker.refusal for thread in self._threads}
        return {name: refusal for name, refusal in refusals.items() if refusal is not None}

    def lost(self) -> dict[str, str]:
        """Return `Worker.loss` of the receivers that have taken no notification since. Never blocks."""
        return {thread.worker.name: loss for thread in self._threads if (loss := thread.worker.loss) is not None}

    def delivered(self) -> dict[str, int]:
        """Return the number of notifications delivered since the start, by receiver. Never blocks."""
        return {thread.worker.name: thread.worker.delivered for thread in self._threads}

    def failed_attempts(self) -> dict[tuple[str, str], int]:
        """Return the number of failed attempts since the start, by (receiver, reason). Never blocks."""
        workers = [thread.worker for thread in self._threads]
        return {
            (worker.name, reason): count
            for worker in workers
            for reason, count in worker.failed_attempts.copy().items()
        }

    def pending(self) -> int:
        """Return the number of notifications that are not delivered yet.

        Raises:
            StoreError: the outbox can't be read.
        """
        return sum(queue.pending for queue in self._outbox.queues().values())

    def counters(self) -> DeliveryCounters:
        """Return the counters.

        Raises:
            StoreError: the outbox can't be read.
        """
        return DeliveryCounters(
            delivered=self.delivered(),
            failed_attempts=self.failed_attempts(),
            losses=self._outbox.losses(),
            queues=self._outbox.queues(),
        )


class _WorkerThread:
    """The thread of a worker. It is a daemon thread: a receiver that hangs does not keep the process alive."""

    def __init__(self, worker: Worker, clock: Clock, log: logging.Logger, former: _WorkerThread | None) -> None:
        self.worker = worker
        self._former = former  # until its last attempt has ended
        self._clock = clock
        self._log = log
        self._wake_up = threading.Event()
        self._stopping = threading.Event()
        self._outbox_outage: Outage | None = None  # logged once, not at every try
        self._refreshed: Mapping[str, Alert] = {}  # by fingerprint; the tick replaces it as a whole
        self._host = ""
        self._refresh_timer = RefreshTimer()
        self._thread = threading.Thread(target=self._run, name=f"deliver-{worker.name}", daemon=True)

    @property
    def outage(self) -> Outage | None:
        former = self._former
        return (None if former is None else former.outage) or self.worker.outage or self._outbox_outage

    def start(self) -> None:
        if self._thread.ident is None:
            self._thread.start()

    def wake(self) -> None:
        self._wake_up.set()

    def limit_refresh_to(self, fingerprints: set[str]) -> None:
        if not self._refreshed.keys() <= fingerprints:
            self._refreshed = {key: alert for key, alert in self._refreshed.items() if key in fingerprints}

    def set_refreshed_alerts(self, alerts: Sequence[Alert], host: str) -> None:
        self._refreshed = {alert.fingerprint: alert for alert in alerts}
        self._host = host

    def set_deadline(self, last_begin_ns: int, deadline_ns: int | None) -> None:
        self.worker.set_deadline(last_begin_ns, deadline_ns)
        self._stopping.set()
        self._wake_up.set()

    def join(self, timeout_seconds: float | None) -> None:
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        if self._former is not None:
            self._former.join(None)
            self.worker.health.load()
            self._former = None
        while True:
            self._wake_up.clear()
            last = (
                self._stopping.is_set()
            )  # read before the step: notifications committed before `stop` are still tried
            sleep_seconds = self._step()
            if last:
                break
            self._wake_up.wait(sleep_seconds)
        self.worker.close()

    def _step(self) -> float:
        # Returns the seconds to sleep unless woken.
        try:
            due_ns = self.worker.deliver_due()
        except StoreError as error:
            self._outbox_failed(str(error))
            return STORE_RETRY_SECONDS
        except Exception as error:  # noqa: BLE001 - the edge of a worker: a defect is logged, and the step tried again
            self.worker.failed_attempts[DeliveryErrorReason.INTERNAL] += 1
            self._outbox_failed(f"{type(error).__name__} in {error_location(error)}")
            return STORE_RETRY_SECONDS
        if self._outbox_outage is not None:
            self._outbox_outage = None
            self._log.warning("outbox available again: receiver=%s", self.worker.name)
        times_ns = [at_ns for at_ns in (due_ns, self._refresh()) if at_ns is not None]
        if not times_ns:
            return MAX_SLEEP_SECONDS
        return min(MAX_SLEEP_SECONDS, max(0.0, (min(times_ns) - self._clock.boottime_ns()) / SECOND_NS))

    def _refresh(self) -> int | None:
        # Returns the CLOCK_BOOTTIME of the next refresh.
        alerts = self._refreshed
        if not alerts or (interval_seconds := self.worker.refresh_interval_seconds) is None:
            self._refresh_timer.stop()
            return None
        now_ns = self._clock.boottime_ns()
        if now_ns >= self._refresh_timer.due_ns(now_ns, interval_seconds):
            succeeded = self.worker.refresh(list(alerts.values()), self._host)
            self._refresh_timer.refreshed(self._clock.boottime_ns(), interval_seconds, succeeded=succeeded)
        return self._refresh_timer.due_ns(now_ns, interval_seconds)

    def _outbox_failed(self, error: str) -> None:
        reason = f"store: {error}"
        if self._outbox_outage is None or reason != self._outbox_outage.reason:
            since_ns, since = self._clock.boottime_ns(), self._clock.wall()
            if self._outbox_outage is not None:
                since_ns, since = self._outbox_outage.since_ns, self._outbox_outage.since
            self._outbox_outage = Outage(since_ns, since, reason)
            self._log.error("outbox unavailable, deliveries paused: receiver=%s error=%s", self.worker.name, error)
