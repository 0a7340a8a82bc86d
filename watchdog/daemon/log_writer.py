"""The log, written by its own thread, so that a paused terminal or a stuck reader blocks no other thread.

Lines wait in a queue. When it is full, further lines are dropped and counted; the count is logged once there is room.
A service writes to the journal in its own protocol, each fact in a field; without its socket, to its stream.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import socket
import threading
import time

from watchdog.config.settings import LogFormat
from watchdog.daemon.log_event import LogEvent, read_record
from watchdog.systemd import JOURNAL_SOCKET, is_journal, sealed_file
from watchdog.thread_edge import ThreadEdge

_QUEUED_LINES = 1_000
_POLL_SECONDS = 0.01
_TOO_LONG_ERRORS = (errno.EMSGSIZE, errno.ENOBUFS)


class LogWriter(logging.Handler):
    """Writes records to a file descriptor and never blocks the thread that logs."""

    def __init__(self, descriptor: int, capacity: int = _QUEUED_LINES, *, journal_socket: str = JOURNAL_SOCKET) -> None:
        """Queue records until `start`, then write them to `descriptor`, which stays the caller's.

        Where it is the journal's stream, `journal_socket` gets them.
        """
        super().__init__()
        # Not through sys.stderr: a thread stuck there holds a lock that the interpreter needs at its end.
        self._descriptor = descriptor
        self._queue: queue.Queue[LogEvent] = queue.Queue(capacity)
        self._dropped = 0
        self._format = LogFormat.TEXT
        self._is_journal = is_journal(os.environ, descriptor)
        self._journal_socket = journal_socket
        self._thread = threading.Thread(target=self._write, name="log-writer", daemon=True)

    def use_format(self, form: LogFormat) -> None:
        """Write lines in another format from now on, those that wait too."""
        self._format = form

    def start(self) -> None:
        """Start the writing thread. Call it after privileges are given up: an earlier thread would keep them."""
        if self._thread.ident is None:
            self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record, read here: its arguments may change after the call."""
        try:
            self._queue.put_nowait(read_record(record))
        except queue.Full:
            self._dropped += 1
        except Exception:  # noqa: BLE001 - as logging's own handlers do with a record that cannot be formatted
            self.handleError(record)

    def drain(self, seconds: float) -> bool:
        """Write all queued lines, for at most `seconds`; return whether the queue is empty."""
        self.start()
        deadline = time.monotonic() + seconds
        while self._queue.unfinished_tasks:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _write(self) -> None:
        edge = ThreadEdge("log-writer")
        while True:
            event = self._queue.get()
            with edge.step():
                self._write_event(event)
                if dropped := self._take_dropped():
                    text = "log lines dropped, the reader of the log was too slow"
                    self._write_event(LogEvent(time.time(), logging.WARNING, text, (("lines", dropped),)))
            self._queue.task_done()

    def _write_event(self, event: LogEvent) -> None:
        is_json = self._format is LogFormat.JSON
        if not self._is_journal:
            self._write_lines(event.json_line() if is_json else event.line())
            return
        message = event.json_line() if is_json else event.message()
        try:
            self._send_to_journal(event.journal_entry(message))
        except OSError:  # another namespace, or no journald: each line of its stream is an entry (sd-daemon(3))
            self._write_lines("\n".join(f"<{event.priority}>{line}" for line in message.splitlines()))

    def _send_to_journal(self, entry: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
            datagrams.connect(self._journal_socket)
            try:
                datagrams.send(entry)
            except OSError as error:
                if error.errno not in _TOO_LONG_ERRORS:
                    raise
                file = sealed_file(entry)
                try:
                    socket.send_fds(datagrams, [b""], [file])
                finally:
                    os.close(file)

    def _take_dropped(self) -> int:
        self.acquire()  # as around `emit`
        try:
            dropped, self._dropped = self._dropped, 0
        finally:
            self.release()
        return dropped

    def _write_lines(self, text: str) -> None:
        rest = memoryview((text + "\n").encode("utf-8", "backslashreplace"))
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # another user of the terminal may have made it non-blocking
                time.sleep(_POLL_SECONDS)
            except OSError:  # the reader is gone
                return
