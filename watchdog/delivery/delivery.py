"""Delivery at large: one thread per receiver, so that none waits for another."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from watchdog.alerts.alert import Alert
from watchdog.clock import SECOND_NS, Clock
from watchdog.delivery.receiver_down import Outage
from watchdog.delivery.worker import Worker, error_location
from watchdog.errors import DeliveryErrorReason, StoreError
from watchdog.receivers.base import Receiver
from watchdog.state.losses import LossCause
from watchdog.state.outbox import Outbox, QueueStatus
from watchdog.state.receiver_state import StoredReceiverState
from watchdog.state.store import Store

STORE_RETRY_SECONDS = 5.0
# A receiver that failed so long ago, with nothing left to try it by, may have been mended by what it took this start
# for; sooner than that, others have not yet been told.
STALE_OUTAGE_SECONDS = 1_800.0
# Waits are by CLOCK_MONOTONIC, due times by CLOCK_BOOTTIME: after a suspend nothing is late by more than this. Nor is
# what a commit wrote late, for an earlier one that had failed.
MAX_SLEEP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class DeliveryCounters:
    """What became of notices: since the start for `sent` and `failed`, now for `waiting`, ever for `lost`.

    `sent`: notices by receiver. `failed`: attempts by (receiver, reason). `lost`: notices given up since the
    state file was begun, by (receiver, cause). `waiting`: by receiver.
    """

    delivered: Mapping[str, int]
    failed_attempts: Mapping[tuple[str, str], int]
    losses: Mapping[tuple[str, LossCause], int]
    queues: Mapping[str, QueueStatus]


@dataclass(frozen=True, slots=True)
class ReceiverStatus:
    """How one receiver does.

    `failing_since`: wall clock of the first attempt that failed since the last that did not, None while it takes what
    it is sent; `failing_seconds`, and `reason` of the newest one, belong to it. `waiting`: what is on its way to it.
    """

    failing_since: float | None
    failing_seconds: float
    reason: str | None
    queue: QueueStatus


class Delivery:
    """Sends what `Store.commit` has written, each receiver in its own thread."""

    def __init__(self, store: Store, receivers: Iterable[Receiver], clock: Clock, log: logging.Logger) -> None:
        """Take the receivers over; nothing is sent before `start`."""
        self._outbox = Outbox(store.database, clock)
        self._clock = clock
        self._log = log
        self._threads = []
        for receiver in receivers:
            state = StoredReceiverState(store.database, receiver.name, clock)
            worker = Worker(receiver, self._outbox, clock, log, state)
            self._threads.append(_WorkerThread(worker, clock, log))

    def start(self) -> None:
        """Begin to deliver, what a former daemon left first.

        Raises:
            StoreError: the outbox can't be written.
        """
        for receiver, notification in self._outbox.fail_unconfigured({thread.worker.name for thread in self._threads}):
            self._log.error("notice %s given up: receiver %s is not configured any more", notification, receiver)
        self._outbox.release_deferred()
        waiting = self._outbox.queues()
        for thread in self._threads:
            if not waiting.get(thread.worker.name, QueueStatus()).pending:
                thread.worker.health.forget_stale_outage(STALE_OUTAGE_SECONDS)
            thread.start()

    def limit_refresh_to(self, notified: Mapping[str, Sequence[Alert]]) -> None:
        """Have no alert refreshed any more that is not in `told`, by receiver: news of it is on its way.

        To be called before that news is committed: a refresh after it would raise the dead.
        """
        for thread in self._threads:
            thread.limit_refresh_to({alert.fingerprint for alert in notified.get(thread.worker.name, ())})

    def set_refreshed_alerts(self, notified: Mapping[str, Sequence[Alert]], host: str) -> None:
        """Have each receiver that wants to be refreshed told again, from time to time, what it knows to be firing."""
        for thread in self._threads:
            thread.set_refreshed_alerts(notified.get(thread.worker.name, ()), host)

    def wake_workers(self) -> None:
        """Tell that there may be new notices. Returns at once."""
        for thread in self._threads:
            thread.wake()

    def stop(self, deadline_seconds: float) -> None:
        """Deliver what is due, and return after `deadline_seconds` at the latest, whatever receivers do.

        What was not delivered then is in the outbox, an attempt under way too: the next daemon sends it (again).
        """
        end_ns = self._clock.boottime_ns() + round(deadline_seconds * SECOND_NS)
        for thread in self._threads:
            thread.set_deadline(end_ns)
        for thread in self._threads:
            thread.join(max(0.0, (end_ns - self._clock.boottime_ns()) / SECOND_NS))

    def outages(self) -> Mapping[str, Outage]:
        """Return the receivers that nothing reaches, with since when and why. It asks no file."""
        failures = {thread.worker.name: thread.outage for thread in self._threads}
        return {name: failure for name, failure in failures.items() if failure is not None}

    def receiver_statuses(self) -> Mapping[str, ReceiverStatus]:
        """Return how each receiver does.

        Raises:
            StoreError: the outbox can't be read.
        """
        waiting, failing = self._outbox.queues(), self.outages()
        now_ns = self._clock.boottime_ns()
        health = {}
        for name in (thread.worker.name for thread in self._threads):
            failure = failing.get(name)
            health[name] = ReceiverStatus(
                failing_since=failure.since if failure else None,
                failing_seconds=(now_ns - failure.since_ns) / SECOND_NS if failure else 0.0,
                reason=failure.reason if failure else None,
                queue=waiting.get(name, QueueStatus()),
            )
        return health

    def counters(self) -> DeliveryCounters:
        """Return what became of notices.

        Raises:
            StoreError: the outbox can't be read.
        """
        workers = [thread.worker for thread in self._threads]
        return DeliveryCounters(
            delivered={worker.name: worker.delivered for worker in workers},
            failed_attempts={
                (worker.name, reason): count
                for worker in workers
                for reason, count in worker.failed_attempts.copy().items()
            },
            losses=self._outbox.losses(),
            queues=self._outbox.queues(),
        )


class _WorkerThread:
    """A worker's thread. It is a daemon thread: a receiver that hangs does not keep the process alive."""

    def __init__(self, worker: Worker, clock: Clock, log: logging.Logger) -> None:
        self.worker = worker
        self._clock = clock
        self._log = log
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._trouble: Outage | None = None  # with the outbox; told once, not at every try
        self._told: Mapping[str, Alert] = {}  # what is refreshed, by fingerprint; replaced as a whole by the tick
        self._host = ""
        self._refresh_ns: int | None = 0  # what fires already when the daemon starts is refreshed at once
        self._thread = threading.Thread(target=self._run, name=f"deliver-{worker.name}", daemon=True)

    @property
    def outage(self) -> Outage | None:
        return self.worker.outage or self._trouble

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._news.set()

    def limit_refresh_to(self, told: set[str]) -> None:
        if not self._told.keys() <= told:
            self._told = {key: alert for key, alert in self._told.items() if key in told}

    def set_refreshed_alerts(self, alerts: Sequence[Alert], host: str) -> None:
        self._told = {alert.fingerprint: alert for alert in alerts}
        self._host = host

    def set_deadline(self, at_ns: int) -> None:
        self.worker.set_deadline(at_ns)
        self._stopping.set()
        self._news.set()

    def join(self, timeout_seconds: float) -> None:
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while True:
            self._news.clear()
            last = self._stopping.is_set()  # asked before the step: what was committed before `stop` is still tried
            sleep_seconds = self._step()
            if last:
                break
            self._news.wait(sleep_seconds)
        self.worker.close()

    def _step(self) -> float:
        # Returns how long to sleep when there is no news.
        try:
            due_ns = self.worker.deliver_due()
        except StoreError as error:
            self._tell(str(error))
            return STORE_RETRY_SECONDS
        except Exception as error:  # noqa: BLE001 - the edge of a worker: a bug is told, and tried again
            self.worker.failed_attempts[DeliveryErrorReason.INTERNAL] += 1
            self._tell(f"{type(error).__name__} in {error_location(error)}")
            return STORE_RETRY_SECONDS
        if self._trouble is not None:
            self._trouble = None
            self._log.warning("outbox of %s: works again", self.worker.name)
        times_ns = [at_ns for at_ns in (due_ns, self._refresh()) if at_ns is not None]
        if not times_ns:
            return MAX_SLEEP_SECONDS
        return min(MAX_SLEEP_SECONDS, max(0.0, (min(times_ns) - self._clock.boottime_ns()) / SECOND_NS))

    def _refresh(self) -> int | None:
        # Returns when the next one is due.
        told = self._told
        if not told or (every_seconds := self.worker.refresh_interval_seconds) is None:
            self._refresh_ns = None
            return None
        every_ns = round(every_seconds * SECOND_NS)
        if self._refresh_ns is None:
            self._refresh_ns = self._clock.boottime_ns() + every_ns
        elif self._clock.boottime_ns() >= self._refresh_ns:
            self.worker.refresh(list(told.values()), self._host)
            self._refresh_ns = self._clock.boottime_ns() + every_ns
        return self._refresh_ns

    def _tell(self, trouble: str) -> None:
        reason = f"store: {trouble}"
        if self._trouble is None or reason != self._trouble.reason:
            since_ns, since = self._clock.boottime_ns(), self._clock.wall()
            if self._trouble is not None:
                since_ns, since = self._trouble.since_ns, self._trouble.since
            self._trouble = Outage(since_ns, since, reason)
            self._log.error("outbox of %s: %s; deliveries wait", self.worker.name, trouble)
