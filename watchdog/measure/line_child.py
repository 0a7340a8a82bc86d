"""A small child process that answers lines, for calls that can wait without end: it can be killed, a thread cannot.

A request is a line "NUMBER TEXT"; its answer begins with the same number. A child writes
"0" when it is ready. It ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from watchdog.kernel.process_stat import PROC

_EXECUTABLE = "/proc/self/exe"  # reachable for the daemon's account, whatever folder it is in
_KILL_SECONDS = 0.02
_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


def child_command(program: Path) -> tuple[str, ...]:
    """Return the arguments of a child that runs the file `program`.

    To be called at import, while the file is reachable. Without `site` the child imports less.
    """
    source = program.read_text(encoding="utf-8")
    return (os.path.realpath(sys.executable), "-I", "-S", "-B", "-c", source)


class LineChild:
    """One child process and its two pipes. Its methods raise OSError when it has ended."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start it; `command`: as of `child_command`."""
        request_reader, self._requests = os.pipe()
        try:
            self._answers, answer_writer = os.pipe()
        except OSError:
            os.close(request_reader)
            os.close(self._requests)
            raise
        try:
            self.pid = os.posix_spawn(
                _EXECUTABLE,
                list(command),
                {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, request_reader, 0),
                    (os.POSIX_SPAWN_DUP2, answer_writer, 1),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=_SIGNALS,
            )
        except OSError:
            os.close(self._requests)
            os.close(self._answers)
            raise
        finally:
            os.close(request_reader)
            os.close(answer_writer)
        os.set_blocking(self._requests, False)
        self._unread = b""
        self._is_ready = False
        self._number = 0

    def wait_ready(self, deadline: float) -> bool:
        """Return whether the child answers before `deadline` that it has started. A child that is behind is not."""
        while not self._is_ready:
            line = self._next_line(deadline)
            if line is None:
                return False
            self._is_ready = int(line.split()[0]) == self._number
        return True

    def ask(self, request: str, deadline: float) -> list[bytes] | None:
        """Return the words of the answer to `request`, None if there is none before `deadline`."""
        self._number += 1
        os.write(self._requests, f"{self._number} {request}\n".encode())
        self._is_ready = False  # until it has answered
        found: list[bytes] = []
        while not self._is_ready:
            line = self._next_line(deadline)
            if line is None:
                return None
            number, *found = line.split()
            self._is_ready = int(number) == self._number
        return found

    def is_waiting(self) -> bool:
        """Return whether it waits for something, and not for a CPU."""
        try:
            state = (PROC / str(self.pid) / "stat").read_bytes().rpartition(b")")[2].split()[0]
        except OSError:
            return True
        return state != b"R"

    def end(self) -> bool:
        """Kill it and close the pipes; return whether it has ended."""
        os.close(self._requests)
        os.close(self._answers)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        end = time.monotonic() + _KILL_SECONDS
        while not (ended := has_ended(self.pid)) and time.monotonic() < end:
            time.sleep(_KILL_SECONDS / 10)
        return ended

    def _next_line(self, deadline: float) -> bytes | None:
        while b"\n" not in self._unread:
            seconds = deadline - time.monotonic()
            if seconds <= 0 or not select.select([self._answers], [], [], seconds)[0]:
                return None
            chunk = os.read(self._answers, 65_536)
            if not chunk:
                raise BrokenPipeError
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line


def has_ended(pid: int) -> bool:
    """Return whether the child `pid` has ended; it is reaped then."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
