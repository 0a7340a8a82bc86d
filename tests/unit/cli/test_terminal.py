"""Tables that fit the terminal, and colours only where they are wanted."""

from __future__ import annotations

import os
import pty

import pytest

from watchdog.cli import terminal
from watchdog.cli.main import main
from watchdog.cli.terminal import age_text, duration_text, fitted_table, output_width, paint, print_facts, print_wrapped

HEAD = ("FINGERPRINT", "RULE", "LABELS", "VALUE")
ROWS = [
    ("0123456789abcdef", "outbound-connection-storm", "process=crawler unit=crawler.service", "612/s"),
    ("fedcba9876543210", "x" * 64, "process=\n\x1b[2J" + "y" * 200, "3"),
]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_each_row_is_one_line_that_fits(width):
    lines = fitted_table(HEAD, ROWS, width)
    assert len(lines) == 3
    assert all(len(line) <= width and line.isprintable() for line in lines)
    assert lines[1].startswith("0123456789abcdef  outbound")


def test_a_wide_terminal_and_a_pipe_cut_nothing():
    lines = fitted_table(HEAD, ROWS, None)
    assert lines == fitted_table(HEAD, ROWS, 1000)
    assert lines[2].endswith("y" * 200 + "  3")
    assert "…" not in "".join(lines)


def test_a_narrow_terminal_leaves_out_the_last_columns():
    assert [line.split() for line in fitted_table(HEAD, ROWS[:1], 32)] == [
        ["FINGERPRINT", "RULE"],
        ["0123456789abcdef", "outbound-conn…"],
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (59.4, "59 s"), (60, "1 min"), (7_199, "1 h"), (172_800, "2 d")]
)
def test_an_age_has_one_unit(seconds, text):
    assert age_text(seconds) == text


def test_the_widest_column_is_cut_first():
    lines = fitted_table(("ID", "TEXT"), [("0123456789abcdef", "z" * 500)], 80)
    assert lines[1] == "0123456789abcdef  " + "z" * 61 + "…"


def test_a_pipe_has_no_width_and_columns_decides_if_it_is_set(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert output_width() is None
    monkeypatch.setenv("COLUMNS", "80")
    assert output_width() == 80


@pytest.mark.parametrize(
    ("environment", "is_coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_colours_obey_the_terminal_and_no_color(monkeypatch, environment, is_coloured):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    primary, secondary = pty.openpty()
    with os.fdopen(secondary, "w") as screen:
        monkeypatch.setattr(terminal.sys, "stdout", screen)
        assert paint("critical", "31") == ("\x1b[31mcritical\x1b[0m" if is_coloured else "critical")
        assert paint("pending", None) == "pending"
    os.close(primary)


def test_a_pipe_gets_no_colours(capsys):
    assert paint("critical", "31") == "critical"


def test_durations_are_as_in_rules():
    assert [duration_text(seconds) for seconds in (0.0, 0.55, 17.04, 60.0, 120.0, 150.4, 86_400.0)] == [
        "0s", "0.6s", "17s", "60s", "120s", "2m30s", "1d",
    ]  # fmt: skip


def test_files_are_cut_at_their_start():
    row = ("storm", "/etc/bpf-watchdog/rules.d/site.toml:12")
    assert fitted_table(("RULE", "FILE"), [row], 28)[1] == "storm  …rules.d/site.toml:12"
    assert fitted_table(("RULE", "FILE"), [row], None)[1].endswith(row[1])


def test_times_are_never_cut():
    rows = [("a1", "2025-06-15 15:06:40", "x" * 30, "y" * 30)]
    for width in (80, 60, 45):
        head, line = fitted_table(("ID", "ENDS (UTC)", "RULE", "LABELS"), rows, width)
        assert max(len(head), len(line)) <= width
        assert line.startswith("a1  2025-06-15 15:06:40  x")


PROBLEM = "reload refused, the former configuration stays in force: /etc/rules.d/" + "x" * 80 + ".toml:3: id"


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_long_text_goes_on_below_itself_at_words(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    facts = [("host", "web-1"), ("problem", PROBLEM), ("problem", "a\nb " * 60), ("explain", "word " * 40)]
    print_facts(facts, 10, commands=("explain",))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "host       web-1"
    assert lines[-1].rstrip() == "explain    " + ("word " * 40).rstrip()
    assert all(line.startswith(("problem    ", " " * 11)) for line in lines[1:-1])
    assert all(len(line) <= columns or "xxx" in line for line in lines[1:-1])  # the path stays whole
    texts = " ".join(line[11:] for line in lines[1:-1])
    assert texts == PROBLEM + " " + ("a\\x0ab " * 60).rstrip()


def test_no_text_is_broken_in_a_pipe(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "")
    print_facts([("problem", PROBLEM)], 10)
    assert capsys.readouterr().out == f"problem    {PROBLEM}\n"


@pytest.mark.parametrize(
    ("head", "indent", "lines"),
    [
        ("  ", 4, ["  " + "word " * 15, "    " + "word " * 5]),
        ("ok      BTF    ", None, ["ok      BTF    " + "word " * 13, " " * 15 + "word " * 7]),
        ("", 2, ["word " * 15 + "word", "  " + "word " * 4]),
    ],
)
def test_a_text_goes_on_with_an_indent(monkeypatch, capsys, head, indent, lines):
    monkeypatch.setenv("COLUMNS", "80")
    print_wrapped(head, ("word " * 20).rstrip(), indent)
    assert capsys.readouterr().out.splitlines() == [line.rstrip() for line in lines]
    monkeypatch.setenv("COLUMNS", "")
    print_wrapped(head, ("word " * 20).rstrip(), indent)
    assert capsys.readouterr().out == head + ("word " * 20).rstrip() + "\n"


def test_the_catalogue_of_metrics_fits_a_terminal_and_has_one_line_a_fact_in_a_pipe(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["metrics"]) == 0
    fitted = capsys.readouterr().out
    assert max(map(len, fitted.splitlines())) <= 80
    monkeypatch.setenv("COLUMNS", "")
    assert main(["metrics"]) == 0
    piped = capsys.readouterr().out
    assert piped.split() == fitted.split()
    assert {line[:12] for line in piped.splitlines() if line.startswith("    ")} == {
        line[:12] for line in fitted.splitlines() if line.startswith("    ") and line[4] != " "
    }
