"""The screen of `top` fits every terminal with any names, and has all information without colours."""

import time

import pytest

from watchdog.cli.sample_table import text_width
from watchdog.cli.standard_streams import to_ascii
from watchdog.cli.top_filter import FilterProblem
from watchdog.cli.top_layout import Screen, Style, draw, sparkline
from watchdog.cli.top_model import TopModel
from watchdog.control.traffic_handler import AlertSummary, Traffic, WorstAlert
from watchdog.measure.procfs import CommandLine, UnreadReason
from watchdog.measure.traffic_view import SUMMED, TopView

NAMES = ["nginx", "\x1b[2J\x1b[31mX\n\r", "漢字漢字漢", "a\u202etxt", "e" + "\u0301" * 7, "b\udcff\udcfe", "-" * 15]


def make_alert():
    return WorstAlert("firing", "critical", "storm", {"process": NAMES[1]}, "612/s", "500/s", time.time() - 125)


def make_screen(view=TopView.PROCESSES, where=(), alerts=None):
    model = TopModel(view, where)
    alerts = (make_alert(),) if alerts is None else alerts
    rows = []
    for number, name in enumerate(NAMES):
        row = {**dict.fromkeys(view.columns, name), **dict.fromkeys(SUMMED, 3.0 * 10 ** (number % 3))}
        row |= {"rtt": 0.0123, "rtt.p99": None, "pid": 2**22 - number, "netns": number, "local_port": 443}
        row |= {"remote_port": 65_535, "local": "10.0.0.1", "remote": "1112:1314:1516:1718:191a:1b1c:1d1e:1f20"}
        if view is TopView.PEERS:
            row["remote"] = f"10.0.0.{number}"
        rows.append([row[name] for name in view.columns])
    summary = AlertSummary(1, 2, 3, alerts)
    losses = {"missed_events": 5}
    totals = dict.fromkeys(SUMMED, 1e6)
    model.take(model.query(), Traffic("web-1", 1, 1.75e9, 1.0, 1.0, rows, len(rows), totals, losses, summary))
    return Screen(model, is_alone=False)


def shown(screen, width, height=24, plain=str):
    frame = draw(screen, width, height, plain)
    assert len(frame.lines) <= height
    lines = []
    for line in frame.lines:
        text = ""
        for one in line:
            assert one.text.isprintable()
            assert text_width(text) <= one.column, (text, one)
            text += " " * (one.column - text_width(text)) + one.text
        assert text_width(text) <= width, text
        lines.append(text.rstrip())
    return lines


@pytest.mark.parametrize("view", list(TopView))
def test_each_line_fits_at_every_size(view):
    screen = make_screen(view, ("process=漢字", "remote!=10.0.0.0/8"))
    for width in (1, 20, 39, *range(40, 240, 7), 400):
        for height in (1, 9, 10, 24, 60):
            shown(screen, width, height)
    screen.editor, screen.problem = ("process=漢字 " * 30, 100), FilterProblem(7, 500, "wrong " * 50)
    screen.has_help = False
    for width in (40, 80, 200):
        shown(screen, width)
    screen.editor, screen.has_help = None, True
    assert any("filter" in line for line in shown(screen, 80))


def test_a_terminal_of_ascii_has_ascii_only():
    for view in TopView:
        for line in shown(make_screen(view), 200, plain=to_ascii):
            assert to_ascii(line).isascii()
    assert to_ascii("漢…▁█") == "\\u6f22~.#"


def test_at_80_columns_a_process_has_its_pid_bytes_and_connects():
    lines = shown(make_screen(), 80)
    head = next(line for line in lines if line.startswith("process "))
    assert head.split() == ["process", "pid", "bytes_sent", "bytes_received", "connects", "connect_failures"]
    assert any(line.startswith("\\x1b[2J") and line.rstrip().endswith("30/s") for line in lines)


def test_at_200_columns_there_is_a_history_and_a_user():
    head = next(line for line in shown(make_screen(), 200) if line.startswith("process "))
    assert head.split()[-1] == "history"
    assert {"user", "unit", "rtt.p99", "open"} < set(head.split())


def test_the_sorted_column_is_always_shown():
    for view in TopView:
        screen = make_screen(view)
        for _ in range(40):
            screen.model.move_sort(1)
            if sort := screen.model.sort:
                frame = draw(screen, 80, 24, str)
                marked = [
                    one.text.strip() for line in frame.lines for one in line if one.style == Style.BOLD | Style.REVERSE
                ]
                assert marked == [sort[: len(marked[0])]], (view, sort)


def test_alerts_stand_on_top_with_their_number_and_the_worst_one():
    lines = shown(make_screen(), 100, height=24)
    at = next(number for number, line in enumerate(lines) if line.startswith("alerts:"))
    assert lines[at] == "alerts: 1 critical, 2 warnings firing; 3 pending"
    assert lines[at + 1] == r"  critical storm  process=\x1b[2J\x1b[31mX\x0a\x0d  612/s, limit 500/s, for 2 min"
    assert lines[at - 1] == "incomplete: 5 missed_events"


def test_columns_do_not_get_narrower():
    screen = make_screen()
    shown(screen, 120)
    wide = dict(screen.widths)
    small = make_screen()
    screen.model.rows = dict(list(small.model.rows.items())[:1])
    shown(screen, 120)
    assert screen.widths == wide


def test_a_selected_row_is_on_the_screen():
    screen = make_screen()
    for _ in range(len(NAMES)):
        screen.model.move(1)
        frame = draw(screen, 80, 14, str)
        selected = [line[0].text.strip() for line in frame.lines[4:-2] if line and line[0].style is Style.REVERSE]
        assert len(selected) == 1


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (
            CommandLine(("curl", "-u", "joe:password", "--token=abc"), "/usr/bin/curl"),
            "command curl -u joe:*** --token=***",
        ),
        (CommandLine(()), "command none (kernel thread, or a zombie)"),
        (UnreadReason.HELD, "command not read: the process holds it"),
        (None, "command unknown: the process has ended, or is not of this pid namespace"),
    ],
)
def test_a_process_has_its_command_line_without_secrets(found, text):
    screen = make_screen(TopView.SOCKETS)
    screen.model.process = (4711, "curl")
    screen.command, screen.is_command_known = found, True
    lines = shown(screen, 100)
    assert text in lines
    assert any(line.startswith("process curl  pid 4711") for line in lines)


def test_a_sparkline_has_the_newest_values_up_to_their_maximum():
    assert sparkline([9.0, 0.0, 1.0, 4.0, 8.0], 4) == " ▁▄█"
    assert sparkline([None, 0.0], 3) == "   "
    assert sparkline([1e-9, 1.0], 2) == "▁█"
