"""Reads the command lines of processes in a child process, which can be killed while it waits.

A process can make each reader of its command line wait as long as it likes: the kernel takes the process's mmap_lock
and reads its memory, which can lie on its own file system (FUSE), or on one whose server is down. The wait for the lock
can be killed (Linux commit 1e426fe28261 ("mm: use down_read_killable for locking mmap_sem in access_remote_vm"), v5.3),
the wait for a page not always: a child that does not die is left behind, and while there are `MAX_STUCK` such children,
nothing is read.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from watchdog.kernel.process_stat import PROC, read_process_stat
from watchdog.measure.procfs import CommandLine, UnreadReason

READ_SECONDS: Final = 0.1  # of one read; then the child is killed if it waits for the process
MAX_STUCK: Final = 3  # killed children that have not ended
MAX_KILLS_PER_MINUTE: Final = 10
_HELD_SECONDS = 60.0  # for which a process that held its command line is not asked again
_MAX_HELD = 1_024
_KILL_SECONDS = 0.02
_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
_EXECUTABLE = "/proc/self/exe"  # reachable for the daemon's account, whatever folder it is in
# Read at import, while this folder is reachable. -S: without site, which would import more.
_SOURCE = Path(__file__).with_name("process_reader_child.py").read_text(encoding="utf-8")
CHILD: Final = (os.path.realpath(sys.executable), "-I", "-S", "-B", "-c", _SOURCE)

_Key = tuple[int, int | None]


class ProcessReader:
    """The child process, started by the first `read`. Use it from one thread.

    `kill_count`: children killed since the start. No read waits longer than its limit, and the child's memory is free
    again after `close`.
    """

    def __init__(self, command: Sequence[str] = CHILD, read_seconds: float = READ_SECONDS) -> None:
        """Start nothing; `command`: arguments of the child, this interpreter with a program; `read_seconds`: a read."""
        self.kill_count = 0
        self._read_seconds = read_seconds
        self._command = list(command)
        self._child: _Child | None = None
        self._stuck: list[int] = []
        self._kills: deque[float] = deque(maxlen=MAX_KILLS_PER_MINUTE)
        self._held: dict[_Key, float] = {}

    @property
    def is_running(self) -> bool:
        """Return whether the child exists."""
        return self._child is not None

    def read(self, pid: int, start_ns: int | None, seconds: float) -> CommandLine | UnreadReason | None:
        """Return the command line of the process within `seconds`, or the reason why not; None if it has ended.

        `start_ns`: start of the process, CLOCK_BOOTTIME; None: unknown. One read takes at most `read_seconds`, counted
        without the start of the child.
        """
        now = time.monotonic()
        if now < self._held.get((pid, start_ns), now):
            return UnreadReason.HELD
        if self._child is None and not self._may_start(now):
            return UnreadReason.PAUSED
        deadline = now + seconds
        try:
            if self._child is None:
                self._child = _Child(self._command)
            if not self._child.wait_ready(deadline):
                return UnreadReason.LATE
            found = self._child.ask(pid, min(deadline, time.monotonic() + self._read_seconds))
        except OSError:  # it could not be started, or has ended
            self.close()
            return UnreadReason.LATE
        if found is None:
            return self._give_up(pid, start_ns)
        stat = read_process_stat(pid)  # after the answer: the pid has had the same process
        return None if stat is None or (start_ns is not None and not stat.has_start(start_ns)) else found

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            child, self._child = self._child, None
            if not child.end():
                self._stuck.append(child.pid)

    def _give_up(self, pid: int, start_ns: int | None) -> UnreadReason:
        # A child without CPU time is not to blame on the process, and answers later.
        if self._child is None or not self._child.is_waiting():
            return UnreadReason.LATE
        self.kill_count += 1
        now = time.monotonic()
        self._kills.append(now)
        self._held = {key: until for key, until in list(self._held.items())[1 - _MAX_HELD :] if until > now}
        self._held[pid, start_ns] = now + _HELD_SECONDS
        self.close()
        return UnreadReason.HELD

    def _may_start(self, now: float) -> bool:
        self._stuck = [pid for pid in self._stuck if not _has_ended(pid)]
        many_kills = len(self._kills) == MAX_KILLS_PER_MINUTE and now < self._kills[0] + 60
        return len(self._stuck) < MAX_STUCK and not many_kills


class _Child:
    """One child process and its two pipes. Its methods raise OSError when it has ended."""

    def __init__(self, command: list[str]) -> None:
        request_reader, self._requests = os.pipe()
        self._answers, answer_writer = os.pipe()
        try:
            self.pid = os.posix_spawn(
                _EXECUTABLE,
                command,
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

    def ask(self, pid: int, deadline: float) -> CommandLine | None:
        """Return the answer about `pid`, None if there is none before `deadline`."""
        self._number += 1
        os.write(self._requests, f"{self._number} {pid}\n".encode())
        self._is_ready = False  # until it has answered
        found: list[bytes] = []
        while not self._is_ready:
            line = self._next_line(deadline)
            if line is None:
                return None
            number, *found = line.split()
            self._is_ready = int(number) == self._number
        command, program = (b"" if text == b"-" else bytes.fromhex(text.decode()) for text in found)
        text = command.decode("utf-8", "surrogateescape")
        return CommandLine(
            tuple(text.rstrip("\0").split("\0")) if text.strip("\0") else (), os.fsdecode(program) or None
        )

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
        while not (ended := _has_ended(self.pid)) and time.monotonic() < end:
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


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
