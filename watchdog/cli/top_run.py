"""The live view of `bpf-watchdog top`: its loop, and the source of its rows."""

from __future__ import annotations

import argparse
import curses
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

from watchdog.cli.daemon_options import daemon_socket
from watchdog.cli.top_feed import Answer, DaemonSource, Failure, OwnSource, ProcessCommand, TopFeed, TrafficSource
from watchdog.cli.top_filter import FilterProblem, parse_filter, quote_matcher
from watchdog.cli.top_layout import Screen, draw
from watchdog.cli.top_model import TopModel
from watchdog.cli.top_terminal import ESCAPE, Key, Terminal, TerminalGone
from watchdog.clock import SystemClock
from watchdog.config.durations import parse_duration
from watchdog.control.client import send_request
from watchdog.control.traffic_handler import parse_where
from watchdog.errors import DaemonUnreachable, UsageError
from watchdog.kernel.startup import start_collector
from watchdog.kernel.trusted_code import require_trusted_code
from watchdog.measure.traffic_view import VIEWS, TopView

_WAIT_SECONDS: Final = 1.0
_MAX_FILTER = 1_000  # characters
_BACKSPACES: Final = frozenset({"\b", "\x7f", curses.KEY_BACKSPACE})
_ENTERS: Final = frozenset({"\n", "\r", curses.KEY_ENTER})
_CLEAR_LINE = "\x15"  # Ctrl-U
_REDRAW = "\x0c"  # Ctrl-L
_ON_SIGNAL = 128  # exit code of shells, plus the signal's number


def run(args: argparse.Namespace) -> int:
    """Show the view until it is ended; return the exit code.

    Raises:
        UsageError: an option is wrong, or the terminal cannot show it.
        DaemonUnreachable: no daemon answers at the start, and this user cannot watch without one.
        WatchdogError: as the daemon's answer, or those of `start_collector`.
    """
    parse_where(args.where)
    interval_ns = _interval(args.every)
    terminal = Terminal()
    source, is_alone = _open_source(args, interval_ns)
    model = TopModel(TopView(args.view), tuple(args.where))
    feed = TopFeed(source, model.query())
    feed.start()
    try:
        with terminal:
            _Top(terminal, feed, Screen(model, is_alone)).run()
    except (TerminalGone, OSError):
        _discard_output()
        return 0 if terminal.ended_by is None else _ON_SIGNAL + terminal.ended_by
    finally:
        feed.stop()
    return 0 if terminal.ended_by is None else _ON_SIGNAL + terminal.ended_by


class _Top:
    """The loop: keys and answers change the model, each change is drawn."""

    def __init__(self, terminal: Terminal, feed: TopFeed, screen: Screen) -> None:
        self._terminal = terminal
        self._feed = feed
        self._screen = screen
        self._model = screen.model
        self._is_ended = False
        self._is_gone = False  # the notice is that of a daemon that does not answer
        self._last_filter = " ".join(quote_matcher(one) for one in screen.model.where)

    def run(self) -> None:
        """Run until `q` or a signal.

        Raises:
            TerminalGone: the terminal was closed.
            WatchdogError: there are no rows, and there will be none.
        """
        while not self._is_ended and self._terminal.ended_by is None:
            width, height = self._terminal.size()
            self._terminal.show(draw(self._screen, width, height, self._terminal.plain))
            for key in self._terminal.wait(self._feed.descriptor, _WAIT_SECONDS):
                self._press(key)
            self._feed.ask(self._model.query(), self._model.process)
            for event in self._feed.take():
                self._take(event)

    def _take(self, event: Answer | ProcessCommand | Failure) -> None:
        screen = self._screen
        match event:
            case Answer(query, traffic):
                if self._is_gone:
                    self._is_gone, screen.notice = False, ""
                self._model.take(query, traffic)
            case ProcessCommand(pid, found):
                if self._model.process is not None and self._model.process[0] == pid:
                    screen.command, screen.is_command_known = found, True
            case Failure(error):
                if event.is_final:
                    raise error
                self._is_gone, screen.notice = True, "daemon gone, reconnecting …"

    def _press(self, key: Key) -> None:
        if not self._is_gone:
            self._screen.notice = ""  # the answer to a key stays until the next one
        if self._screen.has_help:
            self._screen.has_help = False
        elif self._screen.editor is not None:
            self._edit(key, *self._screen.editor)
        elif key == ESCAPE:
            self._go_back()
        elif key in _ENTERS:
            self._screen.command, self._screen.is_command_known = None, False
            self._screen.notice = self._model.open_selected()
        elif isinstance(key, str):
            self._press_character(key)
        else:
            self._move(key)

    def _press_character(self, key: str) -> None:
        model = self._model
        actions: dict[str, Callable[[], object]] = {
            "q": self._end,
            "?": self._open_help,
            " ": model.toggle_paused,
            "f": model.toggle_frozen,
            "r": model.turn_sort,
            "<": lambda: model.move_sort(-1),
            ">": lambda: model.move_sort(1),
            _REDRAW: self._terminal.redraw,
        }
        if model.process is None:
            actions |= {
                "/": self._open_editor,
                "\t": lambda: model.show(VIEWS[(VIEWS.index(model.view) + 1) % len(VIEWS)]),
                **{str(number): partial(model.show, view) for number, view in enumerate(VIEWS, 1)},
            }
        actions.get(key, lambda: None)()

    def _end(self) -> None:
        self._is_ended = True

    def _open_help(self) -> None:
        self._screen.has_help = True

    def _open_editor(self) -> None:
        self._screen.editor = self._last_filter, len(self._last_filter)

    def _move(self, key: int) -> None:
        page, rows = self._screen.page, len(self._model.rows)
        steps = {
            curses.KEY_UP: -1,
            curses.KEY_DOWN: 1,
            curses.KEY_PPAGE: -page,
            curses.KEY_NPAGE: page,
            curses.KEY_HOME: -rows,
            curses.KEY_END: rows,
        }
        if key in steps:
            self._model.move(steps[key])
        elif key in {curses.KEY_LEFT, curses.KEY_RIGHT}:
            self._model.move_sort(1 if key == curses.KEY_RIGHT else -1)

    def _go_back(self) -> None:
        if self._model.process is not None:
            self._model.close_process()
        elif self._model.where:
            self._model.set_filter(())

    def _edit(self, key: Key, text: str, at: int) -> None:
        screen = self._screen
        if key == ESCAPE:
            screen.editor, screen.problem = None, None
            return
        if key in _ENTERS:
            self._apply(text)
            return
        screen.problem = None
        screen.editor = _edited(key, text, at)

    def _apply(self, text: str) -> None:
        found = parse_filter(text)
        if isinstance(found, FilterProblem):
            self._screen.problem = found
            return
        self._screen.editor, self._screen.problem = None, None
        self._last_filter = text
        self._model.set_filter(found)


def _edited(key: Key, text: str, at: int) -> tuple[str, int]:
    """Return text and cursor of a line after a key."""
    if key in _BACKSPACES:
        return text[: max(0, at - 1)] + text[at:], max(0, at - 1)
    if key == curses.KEY_DC:
        return text[:at] + text[at + 1 :], at
    if key == _CLEAR_LINE:
        return text[at:], 0
    if isinstance(key, str) and key.isprintable() and len(text) < _MAX_FILTER:
        return text[:at] + key + text[at:], at + 1
    moves = {curses.KEY_LEFT: at - 1, curses.KEY_RIGHT: at + 1, curses.KEY_HOME: 0, curses.KEY_END: len(text)}
    return text, max(0, min(len(text), moves.get(key, at) if isinstance(key, int) else at))


def _interval(text: str) -> int:
    try:
        interval_ns = parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--every: {error}") from error
    if interval_ns <= 0:
        raise UsageError("--every: must be longer than 0s")
    return interval_ns


def _open_source(args: argparse.Namespace, interval_ns: int) -> tuple[TrafficSource, bool]:
    """Return the source of the rows, and whether it needs no daemon."""
    path = daemon_socket(args)
    if not args.alone:
        try:
            send_request(path, "traffic")
        except DaemonUnreachable as error:
            if args.control or args.state_dir or os.geteuid() != 0:
                raise DaemonUnreachable(error.text, remedy="root can watch without a daemon: top --alone") from error
        else:
            return DaemonSource(path), False
    print("loading the programs of the kernel half …", file=sys.stderr, flush=True)
    require_trusted_code()
    clock = SystemClock()
    return OwnSource(start_collector(clock), clock, socket.gethostname(), interval_ns), True


def _discard_output() -> None:
    # What is left in the buffer cannot be written to a terminal that has gone.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
