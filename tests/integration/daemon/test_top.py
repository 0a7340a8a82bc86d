"""`top` on a terminal: the view of a running daemon by an account without privileges, and terminals that fail."""

from __future__ import annotations

import signal
import subprocess

import pytest

from terminal_screen import TerminalScreen
from watchdog.config.permissions import ACCOUNT

HOSTILE = "ev\x1b[31mil"
ESCAPED = r"ev\x1b[31mil"
DOWN, RIGHT, ESCAPE, ENTER, CLEAR_LINE = "\x1b[B", "\x1b[C", "\x1b", "\r", "\x15"


@pytest.fixture
def start_top(watchdog, open_command):
    """Return a function that starts `top` as the daemon's account, which has no capability."""
    opened = []

    def start(columns=80, lines=24, **environment):
        account = ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--clear-groups"]
        command = [*account, open_command, "top", "--state-dir", watchdog.state]
        opened.append(TerminalScreen(command, columns, lines, **environment))
        return opened[-1]

    yield start
    for top in opened:
        top.__exit__()


def row_of(name):
    return lambda lines: any(line.startswith(f"{name} ") for line in lines)


@pytest.mark.timeout(600)  # patience adds up: see PATIENCE
def test_a_storm_is_walked_through_on_a_terminal_and_the_daemon_comes_back(
    start_daemon, start_storm, start_top, watchdog, storm
):
    start_daemon()
    start_storm(HOSTILE).hold()
    storm.hold()
    top = start_top()
    top.wait("1 warning firing")
    top.wait(row_of(storm.name))
    top.wait(row_of(ESCAPED))
    assert any(f"storm  process={storm.name}" in line for line in top.lines())
    head = next(line for line in top.lines() if line.startswith("process "))
    assert head.split() == ["process", "pid", "bytes_sent", "bytes_received", "connects", "connect_failures"]
    assert top.lines()[-2] == "bpf-watchdog sample --by process,pid"
    top.press(ENTER)
    top.wait("no row is selected: Up and Down select one")
    time_shown = top.lines()[0]
    top.wait(lambda lines: lines[0] != time_shown)
    assert "no row is selected" in top.text()  # until the next key
    top.resize(200, 40)
    top.wait(lambda lines: any(line.startswith("process ") and line.endswith("history") for line in lines))

    walk_through_filter_and_sort(top, storm.name)
    walk_through_views(top, storm)

    watchdog.kill()
    top.wait("daemon gone, reconnecting")
    watchdog.start()
    top.wait(lambda lines: "daemon gone" not in "".join(lines) and row_of(storm.name)(lines))
    top.press("q")
    assert top.end() == 0
    assert top.is_restored()

    end_by_signals(start_top)
    gone = start_top()
    gone.wait(row_of(storm.name))
    gone.hang_up()
    assert gone.process.wait(60) != 0


def walk_through_filter_and_sort(top, name):
    # A wrong filter is shown with its place; the line is still there to be put right.
    top.press("/")
    top.wait("filter:")
    top.press(f"proces={name}{ENTER}")
    top.wait('did you mean "process"?')
    top.wait(lambda lines: lines[-1].strip() == "^" * len(f"proces={name}"))
    top.press(f"{CLEAR_LINE}process={name}{ENTER}")
    top.wait(lambda lines: not row_of(ESCAPED)(lines) and row_of(name)(lines))
    assert top.lines()[-2] == f"bpf-watchdog sample --by process,pid --where process={name}"
    top.press(RIGHT + RIGHT)
    top.wait("--sort pid")
    top.press("r")
    top.wait("by pid, reversed")
    top.press("f ")
    top.wait(lambda lines: "PAUSED" in lines[0] and "FROZEN" in lines[0])
    top.press("f ")
    top.wait(row_of(name))


def walk_through_views(top, storm):
    # The process in detail: its sockets with their states, and its command line.
    top.press(DOWN + ENTER)
    top.wait(f"process {storm.name}  pid {storm.process.pid}")
    top.wait("storm.py")
    top.wait(lambda lines: sum("ESTABLISHED" in line for line in lines) > 10)
    top.wait(lambda lines: any(line.startswith("local") and "send_queue" in line for line in lines))
    top.press(ESCAPE)
    top.wait("2 processes")
    for key, column in (("1", "remote"), ("3", "container"), ("4", "remote"), ("\t", "direction"), ("\t", "process")):
        top.press(key)
        top.wait(lambda lines, column=column: any(column in line.split() for line in lines))
    top.press("?")
    top.wait("any key: back")
    top.press("x")


def end_by_signals(start_top):
    for number, environment in (
        (signal.SIGINT, {"LC_ALL": "C", "NO_COLOR": "1"}),
        (signal.SIGTERM, {}),
        (signal.SIGHUP, {}),
    ):
        top = start_top(**environment)
        top.wait(row_of(ESCAPED))
        top.process.send_signal(number)
        assert top.end() == 128 + number
        assert top.is_restored()
        assert top.output.isascii() == bool(environment)
        assert (b"\x1b[31m" in top.output or b"\x1b[33m" in top.output) == (not environment)


@pytest.mark.parametrize(
    ("kind", "code", "reason"),
    [
        ("dumb", 2, "a terminal of the type dumb cannot place text: bpf-watchdog sample prints tables anywhere"),
        ("no-such-terminal", 2, "a terminal of the type no-such-terminal cannot place text"),
        ("linux", 3, "no daemon answers at"),
    ],
)
def test_a_terminal_that_cannot_show_it_and_a_daemon_that_is_not_there_are_one_line(watchdog, kind, code, reason):
    with TerminalScreen([watchdog.command, "top", "--state-dir", watchdog.state], 200, TERM=kind) as top:
        assert top.end() == code
        [line] = filter(None, top.lines())
        assert line.startswith(f"bpf-watchdog: {reason}")
        assert top.is_restored()


def test_without_a_terminal_it_names_the_command_that_needs_none(watchdog):
    done = subprocess.run(
        [watchdog.command, "top"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        "bpf-watchdog: top needs a terminal for its input and output: bpf-watchdog sample prints tables anywhere\n"
    )


def test_root_watches_without_a_daemon(watchdog, start_storm):
    storm = start_storm("alone")
    storm.hold()
    with TerminalScreen([watchdog.command, "top", "--alone", "--every", "200ms", "--where", "process=alone"]) as top:
        top.wait("(no daemon)")
        top.wait(row_of("alone"))
        top.wait(lambda lines: any(line.startswith("102 open") for line in lines))
        top.press("q")
        assert top.end() == 0
        assert top.is_restored()
