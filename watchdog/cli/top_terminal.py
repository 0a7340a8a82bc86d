"""The terminal of `top`: frames on the screen by curses, and the keys and signals that come from it."""

from __future__ import annotations

import contextlib
import curses
import locale
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final, Self

from watchdog.cli.standard_streams import to_ascii
from watchdog.cli.top_layout import Frame, Style
from watchdog.errors import UsageError

Key = str | int
"""A character, or a number of curses for another key."""

ESCAPE: Final = "\x1b"
_ESCAPE_MILLISECONDS = 25  # after Esc, for the rest of the sequence of another key
_MAX_KEYS = 256  # at once, so that a flood of input cannot hold up the screen
_ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INSTEAD: Final = "bpf-watchdog sample prints tables anywhere"


class TerminalGone(Exception):
    """The terminal was closed."""


class Terminal:
    """A terminal in full-screen mode between `enter` and `leave`; use it as a context manager.

    `ended_by`: the signal that asked for the end, None before one.
    """

    def __init__(self) -> None:
        """Check the terminal.

        Raises:
            UsageError: standard input or output is no terminal, or one that cannot place text.
        """
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise UsageError("top needs a terminal for its input and output", remedy=_INSTEAD)
        name = os.environ.get("TERM", "")
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, "")
        try:
            curses.setupterm()
            can_place = bool(curses.tigetstr("cup") and curses.tigetstr("clear"))
        except curses.error:
            can_place = False
        if not can_place:
            raise UsageError(f"a terminal of the type {name or '(TERM is not set)'} cannot place text", remedy=_INSTEAD)
        self.ended_by: int | None = None
        self._is_utf8 = locale.getencoding().lower().replace("-", "") == "utf8"
        self._is_resized = False
        self._signals, self._signal_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._handlers: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        self._window: curses.window | None = None
        self._attributes: dict[Style, int] = {}

    def __enter__(self) -> Self:
        """Take the whole screen."""
        for number in (*_ENDS, signal.SIGWINCH):
            self._handlers[number] = signal.signal(number, self._note_signal)
        signal.set_wakeup_fd(self._signal_writer, warn_on_full_buffer=False)
        curses.set_escdelay(_ESCAPE_MILLISECONDS)
        self._window = curses.initscr()
        curses.noecho()
        curses.cbreak()
        self._window.keypad(True)
        self._window.nodelay(True)
        self._start_colours()
        with contextlib.suppress(curses.error):
            curses.curs_set(0)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the terminal, also one that has gone."""
        with contextlib.suppress(curses.error):
            curses.curs_set(1)
        with contextlib.suppress(curses.error):
            curses.endwin()
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._signals)
        os.close(self._signal_writer)

    def plain(self, text: str) -> str:
        """Return `text` in characters that the terminal's encoding has."""
        return text if self._is_utf8 else to_ascii(text)

    def size(self) -> tuple[int, int]:
        """Return columns and lines."""
        if self._is_resized:
            self._is_resized = False
            with contextlib.suppress(OSError, curses.error):
                columns, lines = os.get_terminal_size(sys.stdout.fileno())
                curses.resizeterm(lines, columns)
                self._screen.clear()
        lines, columns = self._screen.getmaxyx()
        return columns, lines

    def show(self, frame: Frame) -> None:
        """Show a frame; curses sends only the characters that changed."""
        window = self._screen
        window.erase()
        for number, line in enumerate(frame.lines):
            for one in line:
                with contextlib.suppress(
                    curses.error
                ):  # after the last cell of the screen there is none for the cursor
                    window.addstr(number, one.column, self.plain(one.text), self._attribute(one.style))
        with contextlib.suppress(curses.error):
            curses.curs_set(0 if frame.cursor is None else 1)
        if frame.cursor is not None:
            with contextlib.suppress(curses.error):
                window.move(*frame.cursor)
        window.refresh()

    def redraw(self) -> None:
        """Draw the next frame on a clear screen: another program may have written to it."""
        self._screen.clear()

    def wait(self, descriptor: int, seconds: float) -> Iterator[Key]:
        """Wait until a key, a signal, or until `descriptor` is readable; yield the keys.

        Raises:
            TerminalGone: the terminal was closed.
        """
        stdin = sys.stdin.fileno()
        ready, _, _ = select.select([stdin, descriptor, self._signals], [], [], seconds)
        if self._signals in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._signals, 4096)
        if stdin not in ready:
            return
        for count in range(_MAX_KEYS):
            try:
                yield self._screen.get_wch()
            except curses.error:
                if count == 0:  # readable, but without a key: the end of the input
                    raise TerminalGone from None
                return

    @property
    def _screen(self) -> curses.window:
        assert self._window is not None  # noqa: S101 - between enter and leave
        return self._window

    def _start_colours(self) -> None:
        self._attributes = {
            Style.BOLD: curses.A_BOLD,
            Style.DIM: curses.A_DIM,
            Style.REVERSE: curses.A_REVERSE,
            Style.CRITICAL: curses.A_BOLD,
            Style.WARNING: curses.A_NORMAL,
        }
        if os.environ.get("NO_COLOR"):
            return
        with contextlib.suppress(curses.error):
            curses.start_color()
            curses.use_default_colors()
            for pair, (style, colour) in enumerate(
                ((Style.CRITICAL, curses.COLOR_RED), (Style.WARNING, curses.COLOR_YELLOW)), 1
            ):
                curses.init_pair(pair, colour, -1)
                self._attributes[style] = curses.color_pair(pair)

    def _attribute(self, style: Style) -> int:
        found = 0
        for one in style:
            found |= self._attributes[one]
        return found

    def _note_signal(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGWINCH:
            self._is_resized = True
        else:
            self.ended_by = number
