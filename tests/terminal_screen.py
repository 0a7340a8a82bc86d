"""A program on a terminal of its own: keys go in, and the screen that they draw can be read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time

import pyte

PATIENCE = 90.0  # a loaded machine takes many seconds to load the programs


class TerminalScreen:
    """Runs `command` on a terminal; use it as a context manager."""

    def __init__(self, command, columns=80, lines=24, **environment):
        self._controller, self._device = pty.openpty()
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.resize(columns, lines)
        self.settings = termios.tcgetattr(self._device)
        self.output = b""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *map(str, command)],
            stdin=self._device,
            stdout=self._device,
            stderr=self._device,
            # pyte has no "repeat", which xterm's entry has.
            env={**os.environ, "TERM": "linux", "LC_ALL": "C.UTF-8"} | environment,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        for descriptor in (self._controller, self._device):
            with contextlib.suppress(OSError):  # closed by `hang_up`
                os.close(descriptor)

    def resize(self, columns, lines):
        fcntl.ioctl(self._device, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def press(self, keys):
        os.write(self._controller, keys.encode())

    def hang_up(self):
        """Close the terminal, as a lost connection does."""
        os.close(self._device)
        os.close(self._controller)

    def read(self, seconds=0.05):
        """Draw the output of the program within `seconds`."""
        if select.select([self._controller], [], [], seconds)[0]:
            data = os.read(self._controller, 65_536)
            self.output += data
            self._stream.feed(data)

    def lines(self):
        return [line.rstrip() for line in self.screen.display]

    def text(self):
        return "\n".join(self.lines())

    def wait(self, condition, patience=PATIENCE):
        """Wait until the screen meets `condition`: a text on it, or a function of its lines."""
        end = time.monotonic() + patience
        while not (condition in self.text() if isinstance(condition, str) else condition(self.lines())):
            assert time.monotonic() < end, f"waited in vain for {condition}:\n{self.text()}"
            assert self.process.poll() is None, f"ended:\n{self.text()}"
            self.read()

    def end(self, patience=PATIENCE):
        """Wait for the end of the program; return its exit code."""
        end = time.monotonic() + patience
        while self.process.poll() is None:
            assert time.monotonic() < end, f"does not end:\n{self.text()}"
            self.read()
        self.read()
        return self.process.returncode

    def is_restored(self):
        """Return whether the terminal has the modes that it had, and its normal screen."""
        return termios.tcgetattr(self._device) == self.settings
