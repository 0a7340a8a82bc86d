"""Names of users from the name service of the host (NSS), which can ask servers and wait for them without end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from watchdog.measure.line_child import LineChild, child_command, has_ended

LOOK_UP_SECONDS: Final = 30.0  # of one user; then the child is killed
_MAX_STUCK = 3  # killed children that have not ended
_CHILD: Final = child_command(Path(__file__).with_name("name_service_child.py"))


class NameService:
    """Looks users up in a child process, started by the first look-up. Use it from one thread."""

    def __init__(self, command: Sequence[str] = _CHILD, seconds: float = LOOK_UP_SECONDS) -> None:
        """Start nothing; `command`: arguments of the child; `seconds`: limit of one look-up."""
        self._command = command
        self._seconds = seconds
        self._child: LineChild | None = None
        self._stuck: list[int] = []

    def name(self, uid: int) -> str | None:
        """Return the name of the user, None if there is none, or none was found in time."""
        self._stuck = [pid for pid in self._stuck if not has_ended(pid)]
        if len(self._stuck) >= _MAX_STUCK:
            return None
        deadline = time.monotonic() + self._seconds
        try:
            if self._child is None:
                self._child = LineChild(self._command)
            answer = self._child.ask(str(uid), deadline) if self._child.wait_ready(deadline) else None
        except OSError:  # it could not be started, or has ended
            answer = None
        if answer is None:
            self.close()
            return None
        [text] = answer
        return None if text == b"-" else bytes.fromhex(text.decode()).decode("utf-8", "surrogateescape")

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            child, self._child = self._child, None
            if not child.end():
                self._stuck.append(child.pid)
