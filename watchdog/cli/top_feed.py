"""Where `top` has its rows from: the daemon's control socket, or programs of its own; a thread waits for both."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from watchdog.cli.top_model import TopQuery
from watchdog.clock import SECOND_NS, Clock
from watchdog.control.client import send_request
from watchdog.control.traffic_handler import Traffic, TrafficReader, parse_where
from watchdog.errors import DaemonUnreachable, WatchdogError
from watchdog.kernel.collector import Collector
from watchdog.kernel.process_stat import read_process_stat
from watchdog.measure.meter import Meter
from watchdog.measure.process_reader import ProcessReader
from watchdog.measure.procfs import CommandLine, UnreadReason
from watchdog.measure.snapshot import Snapshot
from watchdog.measure.traffic_rows import keep_columns

_RETRY_SECONDS: Final = 1.0  # while no daemon answers
_MIN_POLL_SECONDS: Final = 0.1
_POLLS: Final = 8  # an interval
_COMMAND_SECONDS: Final = 2.0  # for a command line, with the start of its reader
_STOP_SECONDS: Final = 2.0
_MAX_EVENTS: Final = 16  # of a terminal that takes no output; the oldest ones are dropped


class TrafficSource(Protocol):
    """Gives the rows of the newest tick. It is used from one thread."""

    def read(self, query: TopQuery, known_ns: int) -> Traffic | None:
        """Return the answer to a query; None while the tick at `known_ns` is the newest one, or there is none.

        Raises:
            DaemonUnreachable: nobody answers now.
            WatchdogError: it will not work.
        """
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class DaemonSource:
    """Asks the running daemon."""

    def __init__(self, socket: Path) -> None:
        """Ask the daemon that listens on `socket`."""
        self._socket = socket

    def read(self, query: TopQuery, known_ns: int) -> Traffic | None:
        """Return the answer to a query, as `TrafficSource`."""
        traffic = query.traffic
        result = send_request(
            self._socket,
            "traffic",
            view=str(traffic.view),
            sort=traffic.sort,
            order="last" if traffic.reverse else "first",
            limit=traffic.limit,
            where=list(query.where) or None,
            known_ns=known_ns or None,
        )
        return None if result is None else Traffic.from_json(result)

    def close(self) -> None:
        """Do nothing: each request has a connection of its own."""


class OwnSource:
    """Measures by itself, at an interval."""

    def __init__(self, collector: Collector, clock: Clock, host: str, interval_ns: int) -> None:
        """Read `collector`, which `close` closes."""
        self._collector = collector
        self._clock = clock
        self._host = host
        self._interval_ns = interval_ns
        self._meter = Meter()
        self._meter.names.set_retention(0)
        self._reader = TrafficReader()
        self._snapshot: Snapshot | None = None
        self._due_ns = 0

    def read(self, query: TopQuery, known_ns: int) -> Traffic | None:
        """Return the answer to a query, as `TrafficSource`."""
        now_ns = self._clock.boottime_ns()
        if now_ns >= self._due_ns:
            self._due_ns = max(self._due_ns + self._interval_ns, now_ns + self._interval_ns // 2)
            self._snapshot = keep_columns(self._meter.advance(self._collector.read(), self._clock.wall()))
        snapshot = self._snapshot
        if snapshot is None or snapshot.at_ns == known_ns:
            return None
        interval_seconds = self._interval_ns / SECOND_NS
        return self._reader.read(snapshot, query.traffic, parse_where(query.where), self._host, interval_seconds, None)

    def close(self) -> None:
        """Detach the programs."""
        self._collector.close()


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows."""

    query: TopQuery
    traffic: Traffic


@dataclass(frozen=True, slots=True)
class ProcessCommand:
    """The command line of a process; None: the process has ended."""

    pid: int
    found: CommandLine | UnreadReason | None


@dataclass(frozen=True, slots=True)
class Failure:
    """No rows come; `is_final`: none will."""

    error: WatchdogError

    @property
    def is_final(self) -> bool:
        """Return whether another attempt is useless."""
        return not isinstance(self.error, DaemonUnreachable)


Event = Answer | ProcessCommand | Failure


class TopFeed:
    """A thread that reads a source. `descriptor` is readable when `take` has events."""

    def __init__(self, source: TrafficSource, query: TopQuery) -> None:
        """Read nothing before `start`."""
        self._source = source
        self._query = query
        self._process: tuple[int, str] | None = None
        self._events: deque[Event] = deque(maxlen=_MAX_EVENTS)
        self._wake = threading.Event()
        self._is_stopped = False
        self.descriptor, self._signal = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="top", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def ask(self, query: TopQuery, process: tuple[int, str] | None) -> None:
        """Ask from now on for the rows of `query`, and once for the command line of `process`, pid and name."""
        if (query, process) != (self._query, self._process):
            self._query, self._process = query, process
            self._wake.set()

    def take(self) -> list[Event]:
        """Return the events since the last call. Never waits."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 4096)
        return [self._events.popleft() for _ in range(len(self._events))]

    def stop(self) -> None:
        """End the thread, and close the source unless it hangs: then it ends with the process."""
        self._is_stopped = True
        self._wake.set()
        self._thread.join(_STOP_SECONDS)
        if not self._thread.is_alive():
            self._source.close()
            os.close(self.descriptor)
            os.close(self._signal)

    def _run(self) -> None:
        commands = ProcessReader()
        known_ns, answered, asked_pid = 0, self._query, 0
        while not self._is_stopped:
            self._wake.clear()
            query, process = self._query, self._process
            wait_seconds = _MIN_POLL_SECONDS
            try:
                traffic = self._source.read(query, known_ns if query == answered else 0)
                if traffic is not None:
                    known_ns, answered = traffic.at_ns, query
                    wait_seconds = max(_MIN_POLL_SECONDS, traffic.interval_seconds / _POLLS)
                    self._put(Answer(query, traffic))
            except WatchdogError as error:
                failure = Failure(error)
                self._put(failure)
                known_ns, wait_seconds = 0, _RETRY_SECONDS
                if failure.is_final:
                    break
            if process is not None and process[0] != asked_pid:
                self._put(ProcessCommand(process[0], _read_command(commands, *process)))
            asked_pid = 0 if process is None else process[0]
            self._wake.wait(wait_seconds)
        commands.close()

    def _put(self, event: Event) -> None:
        self._events.append(event)
        with contextlib.suppress(BlockingIOError):
            os.write(self._signal, b"x")


def _read_command(reader: ProcessReader, pid: int, name: str) -> CommandLine | UnreadReason | None:
    stat = read_process_stat(pid) if pid else None
    if stat is None or stat.comm != name:  # ended, and another has its pid; or of another pid namespace
        return None
    return reader.read(pid, None, _COMMAND_SECONDS)
