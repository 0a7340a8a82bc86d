"""Command lines for evidence, read after the commit of the tick that wants them, in a thread of their own.

Notifications that wait for one are held in the outbox for at most `HOLD_NS`: then they are due without it, whatever
this thread waits for, and after a crash too.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from watchdog.alerts.alert import Alert
from watchdog.alerts.command_request import CommandAnswer, CommandRequest
from watchdog.clock import SECOND_NS, Clock
from watchdog.errors import StoreError
from watchdog.measure.process_reader import ProcessReader
from watchdog.measure.procfs import CommandLine, UnreadReason
from watchdog.routing.notification import Notification
from watchdog.state.outbox import Outbox
from watchdog.thread_edge import ThreadEdge

HOLD_NS: Final = 3 * SECOND_NS // 10
_READING_NS = HOLD_NS * 5 // 6  # of it; the rest is for the file
_IDLE_SECONDS = 30.0  # after which the reader ends
_MAX_BATCHES = 8
_STOP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Batch:
    """The requests of one tick, and the notifications that wait for them."""

    requests: Sequence[CommandRequest]
    held: Mapping[str, int]
    end_ns: int


class LateEvidence:
    """The thread, started by the first request. `request` and `take_answers` are for the thread of the ticks."""

    def __init__(
        self,
        reader: ProcessReader,
        outbox: Outbox,
        wake_workers: Callable[[], None],
        clock: Clock,
        log: logging.Logger,
        reading_ns: int = _READING_NS,
    ) -> None:
        """Read by `reader` for at most `reading_ns` a tick, complete notifications in `outbox`, call `wake_workers`."""
        self._reading_ns = reading_ns
        self._reader = reader
        self._outbox = outbox
        self._wake_workers = wake_workers
        self._clock = clock
        self._log = log
        self._batches: queue.Queue[_Batch | None] = queue.Queue(_MAX_BATCHES)
        self._answers: queue.SimpleQueue[CommandAnswer] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def request(self, requests: Sequence[CommandRequest], held: Mapping[str, int]) -> None:
        """Read the command lines, for the alerts and for the notifications in `held`, as in `Store.commit`.

        Never waits. A request that finds too many others, or no thread, is dropped: its command line stays "not read in
        time".
        """
        if not requests:
            return
        if self._thread is None and not self._start():
            return
        try:
            self._batches.put_nowait(_Batch(requests, held, self._clock.boottime_ns() + self._reading_ns))
        except queue.Full:
            self._log.warning("command lines not read, the reader is behind: requests=%d", len(requests))

    def take_answers(self) -> list[CommandAnswer]:
        """Return the answers since the last call. Never waits."""
        return [self._answers.get() for _ in range(self._answers.qsize())]

    def stop(self) -> None:
        """End thread and reader; wait for them for at most a second."""
        if self._thread is not None:
            try:
                self._batches.put_nowait(None)
            except queue.Full:
                return  # it is behind: a daemon thread, which ends with the process
            self._thread.join(_STOP_SECONDS)

    def _start(self) -> bool:
        thread = threading.Thread(target=self._run, name="evidence", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # any user can use up the host's threads
            self._log.warning("command lines not read, the host has no free thread")
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        edge, is_stopped = ThreadEdge("evidence"), False
        while not is_stopped:
            with edge.step():
                try:
                    batch = self._batches.get(timeout=_IDLE_SECONDS if self._reader.is_running else None)
                except queue.Empty:
                    self._reader.close()
                    continue
                is_stopped = batch is None
                if batch is not None:
                    self._answer(batch)
        self._reader.close()
        edge.end()

    def _answer(self, batch: _Batch) -> None:
        found: dict[tuple[int, int | None], CommandLine | UnreadReason | None] = {}
        for request in batch.requests:
            key = request.pid, request.start_ns
            if key not in found:
                found[key] = self._read(request, batch.end_ns)
        answers = [(request, found[request.pid, request.start_ns]) for request in batch.requests]
        if batch.held:
            by_fingerprint = {request.fingerprint: (request.pid, answer) for request, answer in answers}
            try:
                self._outbox.release(batch.held, lambda one: _completed(one, by_fingerprint))
            except StoreError as error:
                self._log.error("notifications go without command lines: error=%s", error)
            self._wake_workers()
        for answer in answers:
            self._answers.put(answer)

    def _read(self, request: CommandRequest, end_ns: int) -> CommandLine | UnreadReason | None:
        seconds = (end_ns - self._clock.boottime_ns()) / SECOND_NS
        if seconds <= 0:
            return UnreadReason.LATE
        kill_count = self._reader.kill_count
        found = self._reader.read(request.pid, request.start_ns, seconds)
        if self._reader.kill_count > kill_count:
            self._log.warning(
                "command line could not be read, the process holds it: pid=%d rule=%s", request.pid, request.rule
            )
        return found


def _completed(
    notification: Notification, answers: Mapping[str, tuple[int, CommandLine | UnreadReason | None]]
) -> Notification:
    return replace(notification, alerts=tuple(_with_answer(alert, answers) for alert in notification.alerts))


def _with_answer(alert: Alert, answers: Mapping[str, tuple[int, CommandLine | UnreadReason | None]]) -> Alert:
    if alert.evidence is None or alert.fingerprint not in answers:
        return alert
    return replace(alert, evidence=alert.evidence.with_command_line(*answers[alert.fingerprint]))
