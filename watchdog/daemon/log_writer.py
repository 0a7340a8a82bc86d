"""The log, written by a thread of its own: a terminal that is paused, or a reader that is stuck, stops nobody's work.

Lines wait in a queue. When it is full, further ones are dropped and counted, and the count is told once there is room.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time

from watchdog.systemd import is_journal

_QUEUED_LINES = 1_000
_POLL_SECONDS = 0.01
_PRIORITIES = ((logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (logging.NOTSET, "<6>"))


class LogWriter(logging.Handler):
    """Writes records to a file descriptor, without ever making their author wait."""

    def __init__(self, descriptor: int, capacity: int = _QUEUED_LINES) -> None:
        """Keep what is to be written to `descriptor`, which stays the caller's, from `start` on."""
        super().__init__()
        # Not through sys.stderr: a thread stuck in there holds a lock that the interpreter wants when it ends.
        self._descriptor = descriptor
        self._queue: queue.Queue[bytes] = queue.Queue(capacity)
        self._dropped = 0
        journal = is_journal(os.environ, descriptor)
        self.setFormatter(_JournalFormatter() if journal else logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)

    def start(self) -> None:
        """Begin to write, in a thread: where privileges are given up, only after that, or it would keep them."""
        if self._thread.ident is None:
            self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's lines, in this thread's words: what they speak of may change."""
        try:
            self._queue.put_nowait(self._line(record))
        except queue.Full:
            self._dropped += 1
        except Exception:  # noqa: BLE001 - logging's own way with a record that makes no text
            self.handleError(record)

    def drain(self, seconds: float) -> bool:
        """Write everything, started or not, for so long at most; return whether it is done."""
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
                told = logging.LogRecord(
                    __name__,
                    logging.WARNING,
                    "",
                    0,
                    "%d lines of the log were dropped: nobody read it",
                    (dropped,),
                    None,
                )
                self._write_all(self._line(told))
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
            except BlockingIOError:  # the terminal's other users may have made it so
                time.sleep(_POLL_SECONDS)
            except OSError:  # nobody is there any more
                return


class _JournalFormatter(logging.Formatter):
    """Puts a priority before each line, for each is an entry of its own; the journal has the time (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines."""
        priority = next(text for level, text in _PRIORITIES if record.levelno >= level)
        return "\n".join(f"{priority}{line}" for line in super().format(record).splitlines())
