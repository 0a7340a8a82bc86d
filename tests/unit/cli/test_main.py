"""The command line from a shell: output, error output and exit code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from watchdog.cli import metrics
from watchdog.cli.commands import COMMANDS, parser_of
from watchdog.cli.main import main

COMMAND = [sys.executable, "-m", "watchdog"]


def test_without_arguments_it_says_where_to_start(capsys):
    assert main([]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "start here:\n  bpf-watchdog doctor " in printed.err


def test_an_interrupt_is_no_error(monkeypatch):
    def interrupt(_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(metrics, "run", interrupt)
    assert main(["metrics"]) == 130


@pytest.mark.parametrize("arguments", [["metrics", "--help"], ["metrics"], ["--help"], ["metrics", "--json"]])
def test_a_reader_that_has_seen_enough_is_no_error(arguments):
    reading_nothing = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reading_nothing.wait()
    done = subprocess.run(
        [*COMMAND, *arguments], stdout=reading_nothing.stdin, stderr=subprocess.PIPE, text=True, check=False
    )
    reading_nothing.stdin.close()

    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_under_its_output_is_reported_in_a_line():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, "metrics"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    message = "bpf-watchdog: cannot write to standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, message)


def test_each_of_several_problems_begins_its_line(tmp_path, capsys):
    file = tmp_path / "a.toml"
    file.write_text("nonsense = 1\nmore = 2\n")
    assert main(["notify", "test", "x", "--config", str(file)]) == 1
    head, *problems = capsys.readouterr().err.splitlines()
    assert head == "bpf-watchdog: 2 problems:"
    assert [one.split(": ")[0] for one in problems] == [f"{file}:1", f"{file}:2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "--for", "0"], "--for: not a duration: '0'; write it like 5s, 1m30s, 500ms"),
        (["sample", "--for", "1ns"], "--for: not a duration: '1ns'; write it like 5s, 1m30s, 500ms"),
        (["sample", "--for", "0s"], "--for: must be longer than 0s"),
        (["sample", "--every", ""], "--every: not a duration: ''; write it like 5s, 1m30s, 500ms"),
        (["sample", "--by", "process,process"], "--by: duplicate entry process"),
        (
            ["sample", "--by", "remote_country"],
            "--by: remote_country is for rules only: it needs a file that the daemon has",
        ),
        (["sample", "--limit", "-1"], "--limit: must not be negative; 0 shows all rows"),
        (["run", "--interval", "0s"], "--interval: must be 100ms to 1h, not 0s"),
        (["run", "--interval", ""], "--interval: not a duration: ''; write it like 5s, 1m30s, 500ms"),
        (
            ["notify", "test", "nobody"],
            'unknown receiver "nobody": known are console: /etc/bpf-watchdog/watchdog.toml is not there',
        ),
        (["sample", "--by", "process", "--by", "unit"], "--by: given 2 times; write --by process,unit"),
        (["sample", "--every", "10s", "--for", "1s"], "--every: 10s is longer than --for: 1s"),
    ],
    ids=" ".join,
)
def test_wrong_arguments_are_refused(capsys, arguments, message):
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"bpf-watchdog: {message}\n"


def test_a_dimension_without_a_name_is_refused(capsys):
    assert main(["sample", "--by", ""]) == 2
    assert capsys.readouterr().err.startswith('bpf-watchdog: --by: unknown dimension "": known are ')


def test_the_page_on_rules_has_the_dimensions_that_metrics_shows(capsys):
    page = (Path(__file__).parents[3] / "docs" / "rules.md").read_text()
    table = page.partition("| metric | dimensions |\n|---|---|\n")[2].partition("\n\n")[0]
    documented = {
        name: dimensions.replace("`", "")
        for names, dimensions in re.findall(r"^\| (.*?) \| (.*?) \|$", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert main(["metrics"]) == 0
    shown = re.findall(r"^(\w+)  \(.*?^    dimensions: (.*?)$", capsys.readouterr().out, re.MULTILINE | re.DOTALL)
    assert documented == dict(shown)


LOADED = """\
import sys
from watchdog.cli.main import main
try:
    main({arguments})
except SystemExit:
    pass
print(*sys.modules)
"""


def modules_after(*arguments):
    code = LOADED.format(arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("option", ["--help", "-h", "--version", "no-such-command"])
def test_the_help_of_all_commands_loads_none_of_them(option):
    ours = {name for name in modules_after(option) if name.startswith("watchdog.")}
    assert ours == {
        "watchdog.cli",
        "watchdog.cli.argument_parser",
        "watchdog.cli.commands",
        "watchdog.cli.main",
        "watchdog.cli.standard_streams",
        "watchdog.errors",
        "watchdog.sanitize",
    }


def test_the_help_of_a_command_loads_neither_numpy_nor_a_transport():
    names = [*COMMANDS]
    code = f"import sys; from watchdog.cli.commands import parser_of; [*map(parser_of, {names})]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not {"numpy", "requests", "urllib3", "apscheduler", "bcc", "curses"} & loaded
    # Each takes tens of milliseconds.
    slow = ("measure.meter", "state.audit", "routing.notification", "rules.language.load", "receivers.registry")
    assert not {f"watchdog.{name}" for name in slow} & loaded


def test_every_command_has_its_line_in_the_help(capsys):
    assert main_exits("--help") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {command.summary}" in printed for name, command in COMMANDS.items())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_module_with_its_parser_and_its_description(command, capsys):
    with pytest.raises(SystemExit) as ended:
        parser_of(command).parse_args([command, "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert shown.startswith(f"usage: bpf-watchdog {command} ")
    assert re.search(r"\n\n[A-Z][^\n]* ", shown), "a description"


@pytest.mark.parametrize("arguments", [["no-such-command"], ["--json", "status"], ["--", "status"], [""]])
def test_a_line_without_a_known_command_in_front_is_wrong_usage(arguments, capsys):
    assert main_exits(*arguments) == 2
    assert capsys.readouterr().err.startswith("usage: ")


def main_exits(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code
