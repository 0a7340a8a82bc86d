"""Delivery at large: one thread per receiver, so that none waits for another."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from watchdog.clock import SECOND_NS, Clock
from watchdog.errors import StoreError
from watchdog.notify.memory import StoredMemory
from watchdog.notify.outbox import Outbox, Waiting
from watchdog.notify.receiver import Receiver
from watchdog.notify.worker import Worker, place_of
from watchdog.store.store import Store

STORE_RETRY_SECONDS = 5.0
# Waits are by CLOCK_MONOTONIC, due times by CLOCK_BOOTTIME: after a suspend nothing is late by more than this. Nor is
# what a commit wrote late, for an earlier one that had failed.
LONGEST_SLEEP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Counters:
    """What became of notices: since the start for `sent`, `failed` and `lost`, now for `waiting`.

    `sent`: notices by receiver. `failed`: attempts by (receiver, reason). `lost`: notices given up, by (receiver,
    cause). `waiting`: by receiver.
    """

    sent: Mapping[str, int]
    failed: Mapping[tuple[str, str], int]
    lost: Mapping[tuple[str, str], int]
    waiting: Mapping[str, Waiting]


class Delivery:
    """Sends what `Store.commit` has written, each receiver in its own thread."""

    def __init__(self, store: Store, receivers: Iterable[Receiver], clock: Clock, log: logging.Logger) -> None:
        """Take the receivers over; nothing is sent before `start`."""
        self._outbox = Outbox(store.database, clock)
        self._clock = clock
        self._log = log
        self._lanes = []
        for receiver in receivers:
            receiver.memory = StoredMemory(store.database, receiver.name, clock)
            self._lanes.append(_Lane(Worker(receiver, self._outbox, clock, log), clock, log))
        self._removed: Counter[str] = Counter()

    def start(self) -> None:
        """Begin to deliver, what a former daemon left first.

        Raises:
            StoreError: the outbox can't be written.
        """
        for receiver, notice in self._outbox.bury_all_but({lane.worker.name for lane in self._lanes}):
            self._removed[receiver] += 1
            self._log.error("notice %s given up: receiver %s is not configured any more", notice, receiver)
        self._outbox.release()
        for lane in self._lanes:
            lane.start()

    def wake(self) -> None:
        """Tell that there may be new notices. Returns at once."""
        for lane in self._lanes:
            lane.wake()

    def stop(self, deadline_seconds: float) -> None:
        """Deliver what is due, and return after `deadline_seconds` at the latest, whatever receivers do.

        What was not delivered then is in the outbox, an attempt under way too: the next daemon sends it (again).
        """
        end_ns = self._clock.boottime_ns() + round(deadline_seconds * SECOND_NS)
        for lane in self._lanes:
            lane.finish_by(end_ns)
        for lane in self._lanes:
            lane.join(max(0.0, (end_ns - self._clock.boottime_ns()) / SECOND_NS))

    def counters(self) -> Counters:
        """Return what became of notices.

        Raises:
            StoreError: the outbox can't be read.
        """
        workers = [lane.worker for lane in self._lanes]
        lost = {(receiver, "receiver_removed"): count for receiver, count in self._removed.items()}
        return Counters(
            sent={worker.name: worker.sent for worker in workers},
            failed={
                (worker.name, reason): count for worker in workers for reason, count in worker.failed.copy().items()
            },
            lost=lost
            | {(worker.name, cause): count for worker in workers for cause, count in worker.lost.copy().items()},
            waiting=self._outbox.waiting(),
        )


class _Lane:
    """A worker's thread. It is a daemon thread: a receiver that hangs does not keep the process alive."""

    def __init__(self, worker: Worker, clock: Clock, log: logging.Logger) -> None:
        self.worker = worker
        self._clock = clock
        self._log = log
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._trouble: str | None = None  # told once, not at every try
        self._thread = threading.Thread(target=self._run, name=f"deliver-{worker.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._news.set()

    def finish_by(self, at_ns: int) -> None:
        self.worker.finish_by(at_ns)
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
            due_ns = self.worker.run_due()
        except StoreError as error:
            self._tell(f"outbox of {self.worker.name}: {error}; deliveries wait")
            return STORE_RETRY_SECONDS
        except Exception as error:  # noqa: BLE001 - the edge of a worker: a bug is told, and tried again
            self.worker.failed["internal"] += 1
            self._tell(f"outbox of {self.worker.name}: {type(error).__name__} in {place_of(error)}; deliveries wait")
            return STORE_RETRY_SECONDS
        if self._trouble is not None:
            self._trouble = None
            self._log.warning("outbox of %s: works again", self.worker.name)
        if due_ns is None:
            return LONGEST_SLEEP_SECONDS
        return min(LONGEST_SLEEP_SECONDS, max(0.0, (due_ns - self._clock.boottime_ns()) / SECOND_NS))

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._log.error("%s", trouble)
