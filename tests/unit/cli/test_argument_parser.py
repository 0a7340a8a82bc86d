"""The parser of the command line: help texts and repeated options."""

from __future__ import annotations

import subprocess
import sys

import pytest

from watchdog.cli.main import main

COMMANDS = [
    [],
    ["run"],
    ["sample"],
    ["check"],
    ["notify"],
    ["notify", "test"],
    ["notifications"],
    ["notifications", "list"],
    ["notifications", "show"],
    ["notifications", "retry"],
    ["metrics"],
    ["doctor"],
    ["selftest"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_fits_a_terminal_of_80_columns(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample", "--for", "1s", "--for", "2s"],
        ["run", "--config", "a.toml", "--config", "b.toml"],
        ["check", "--config", "a.toml", "--config", "a.toml"],
        ["notifications", "list", "--receiver", "a", "--receiver", "b"],
    ],
    ids=" ".join,
)
def test_an_option_that_is_given_twice_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert f"argument {arguments[-2]}: given twice: give it once" in capsys.readouterr().err


def test_the_default_of_an_option_is_no_first_value():
    done = subprocess.run(
        [sys.executable, "-m", "watchdog", "sample", "--for", "1s", "--every", "2s"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, "bpf-watchdog: --every: 2s is longer than --for: 1s\n")
