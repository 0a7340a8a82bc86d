"""The log, written by its own thread, so that a paused terminal or a stuck reader blocks no other thread.

Lines wait in a queue. When it is full, further lines are dropped and counted; the count is logged once there is room.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from datetime import UTC, datetime

from watchdog.systemd import is_journal

_QUEUED_LINES = 1_000
_POLL_SECONDS = 0.01
_PRIORITIES = ((logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (logging.NOTSET, "<6>"))


class LogWriter(logging.Handler):
    """Writes records to a file descriptor and never blocks the thread that logs."""

    def __init__(self, descriptor: int, capacity: int = _QUEUED_LINES) -> None:
        """Queue records until `start`, then write them to `descriptor`, which stays the caller's."""
        super().__init__()
        # Not through sys.stderr: a thread stuck there holds a lock that the interpreter needs at its end.
        self._descriptor = descriptor
        self._queue: queue.Queue[bytes] = queue.Queue(capacity)
        self._dropped = 0
        journal = is_journal(os.environ, descriptor)
        self.setFormatter(_JournalFormatter() if journal else _TimeAndLevelFormatter())
        self._thread = threading.Thread(target=self._write, name="log-writer", daemon=True)

    def start(self) -> None:
        """Start the writing thread. Call it after privileges are given up: an earlier thread would keep them."""
        if self._thread.ident is None:
            self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's lines, formatted here: its arguments may change after the call."""
        try:
            self._queue.put_nowait(self._line(record))
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

    def _line(self, record: logging.LogRecord) -> bytes:
        return (self.format(record) + "\n").encode("utf-8", "backslashreplace")

    def _write(self) -> None:
        while True:
            line = self._queue.get()
            self._write_all(line)
            if dropped := self._take_dropped():
                text = "log lines dropped, the reader of the log was too slow: lines=%d"
                record = logging.LogRecord(__name__, logging.WARNING, "", 0, text, (dropped,), None)
                self._write_all(self._line(record))
            self._queue.task_done()

    def _take_dropped(self) -> int:
        self.acquire()  # as around `emit`
        try:
            dropped, self._dropped = self._dropped, 0
        finally:
            self.release()
        return dropped

    def _write_all(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # another user of the terminal may have made it non-blocking
                time.sleep(_POLL_SECONDS)
            except OSError:  # the reader is gone
                return


class _TimeAndLevelFormatter(logging.Formatter):
    """Begins each record with the UTC time (RFC 3339) and the level: "2025-06-15T15:06:40.000Z INFO …"."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines; only the first one has time and level."""
        time_text = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return f"{time_text.removesuffix('+00:00')}Z {record.levelname} {super().format(record)}"


class _JournalFormatter(logging.Formatter):
    """Begins each line with its priority (sd-daemon(3)): each line is a journal entry with a time of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines."""
        priority = next(text for level, text in _PRIORITIES if record.levelno >= level)
        return "\n".join(f"{priority}{line}" for line in super().format(record).splitlines())
