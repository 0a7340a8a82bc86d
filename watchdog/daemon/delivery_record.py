"""The figures of delivery in the state file, for the status: the status must come from a disk that hangs, too.

They are read in a thread of their own, which is waited for in a limited time only.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from watchdog.clock import SECOND_NS, Clock
from watchdog.errors import StoreError, error_location
from watchdog.state import audit
from watchdog.state.audit import AttemptRecord
from watchdog.state.losses import LossCause, read_losses
from watchdog.state.outbox import QueueStatus, read_queues
from watchdog.storage.reader import ReadableDatabase

WAIT_SECONDS: Final = 3.0
"""More than a reader waits for a lock on the file: the reason of the delay is known then."""


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """Queues and newest answers by receiver; lost notifications by receiver and cause."""

    queues: Mapping[str, QueueStatus] = field(default_factory=dict)
    losses: Mapping[tuple[str, LossCause], int] = field(default_factory=dict)
    answers: Mapping[str, AttemptRecord] = field(default_factory=dict)


class DeliveryRecordReader:
    """Reads the record at each request; while the file does not answer, the former one stands for it."""

    def __init__(self, database: ReadableDatabase, clock: Clock) -> None:
        """Read `database`."""
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()  # held while a reading begins or ends
        self._reading: _Reading | None = None
        self._newest = DeliveryRecord()

    def read(self) -> tuple[DeliveryRecord, str]:
        """Return the newest record, after at most `WAIT_SECONDS`, and the problem if it is an older one, else "".

        A reading that does not end is waited for once only; until it ends, no other one begins.
        """
        with self._lock:
            reading = self._reading
            if reading is None or reading.is_ended.is_set():
                reading = _Reading(self._database, self._clock)
                try:
                    threading.Thread(target=reading.run, name="status-reader", daemon=True).start()
                except RuntimeError:  # any user can use up the host's threads
                    return self._newest, "state file not read, the host has no free thread"
                self._reading = reading
        waited_seconds = (self._clock.boottime_ns() - reading.began_ns) / SECOND_NS
        if not reading.is_ended.wait(max(0.0, WAIT_SECONDS - waited_seconds)):
            seconds = (self._clock.boottime_ns() - reading.began_ns) // SECOND_NS
            return self._newest, f"state file not read, the disk does not answer: for={max(1, seconds)}s"
        if reading.record is None:
            return self._newest, reading.problem
        self._newest = reading.record
        return reading.record, ""


class _Reading:
    """One reading: after `is_ended`, `record` or `problem` has its result."""

    def __init__(self, database: ReadableDatabase, clock: Clock) -> None:
        self.began_ns = clock.boottime_ns()
        self.is_ended = threading.Event()
        self.record: DeliveryRecord | None = None
        self.problem = ""
        self._database = database

    def run(self) -> None:
        try:
            with self._database.transaction() as connection:
                queues = read_queues(connection, self.began_ns)
                self.record = DeliveryRecord(queues, read_losses(connection), audit.newest_attempts(connection))
        except StoreError as error:
            self.problem = f"state file not read: {error}"
        except Exception as error:  # noqa: BLE001 - the edge of this thread: the status comes with the reason
            self.problem = f"state file not read: {type(error).__name__} in {error_location(error)}"
        finally:
            self.is_ended.set()
