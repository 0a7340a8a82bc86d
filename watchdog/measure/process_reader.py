"""Reads the command lines of processes in a child process, which can be killed while it waits.

A process can make each reader of its command line wait as long as it likes: the kernel takes the process's mmap_lock
and reads its memory, which can lie on its own file system (FUSE), or on one whose server is down. The wait for the lock
can be killed (Linux commit 1e426fe28261 ("mm: use down_read_killable for locking mmap_sem in access_remote_vm"), v5.3),
the wait for a page not always: a child that does not die is left behind, and while there are `MAX_STUCK` such children,
nothing is read.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from watchdog.kernel.process_stat import read_process_stat
from watchdog.measure.line_child import LineChild, child_command, has_ended
from watchdog.measure.procfs import CommandLine, UnreadReason

READ_SECONDS: Final = 0.1  # of one read; then the child is killed if it waits for the process
MAX_STUCK: Final = 3  # killed children that have not ended
MAX_KILLS_PER_MINUTE: Final = 10
_HELD_SECONDS = 60.0  # for which a process that held its command line is not asked again
_MAX_HELD = 1_024
CHILD: Final = child_command(Path(__file__).with_name("process_reader_child.py"))

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
        self._child: LineChild | None = None
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
                self._child = LineChild(self._command)
            if not self._child.wait_ready(deadline):
                return UnreadReason.LATE
            answer = self._child.ask(str(pid), min(deadline, time.monotonic() + self._read_seconds))
        except OSError:  # it could not be started, or has ended
            self.close()
            return UnreadReason.LATE
        if answer is None:
            return self._give_up(pid, start_ns)
        stat = read_process_stat(pid)  # after the answer: the pid has had the same process
        return None if stat is None or (start_ns is not None and not stat.has_start(start_ns)) else _parse(answer)

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
        self._stuck = [pid for pid in self._stuck if not has_ended(pid)]
        many_kills = len(self._kills) == MAX_KILLS_PER_MINUTE and now < self._kills[0] + 60
        return len(self._stuck) < MAX_STUCK and not many_kills


def _parse(answer: Sequence[bytes]) -> CommandLine:
    command, program = (b"" if text == b"-" else bytes.fromhex(text.decode()) for text in answer)
    text = command.decode("utf-8", "surrogateescape")
    arguments = tuple(text.rstrip("\0").split("\0")) if text.strip("\0") else ()
    return CommandLine(arguments, os.fsdecode(program) or None)
