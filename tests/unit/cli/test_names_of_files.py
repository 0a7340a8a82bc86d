"""Hostile names of files in the output of commands."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

RULE = '[[rule]]\nid = "a"\nsummary = "a"\nmetric = "connects"\nstat = "rate"\nwindow = "10s"\nfire_above = 1\nx = 1\n'
HOSTILE_NAME = b"a\xff\n\x1b[31m\xe2\x80\xae.toml"
SHOWN_NAME = r"a\xff\x0a\x1b[31m\u202e.toml"


def run(*arguments, encoding):
    command = [sys.executable, "-m", "watchdog", *arguments]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    return subprocess.run(command, check=False, capture_output=True, env=environment)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8:surrogateescape"])
def test_the_name_of_a_file_gives_the_terminal_no_command_and_makes_no_line(tmp_path, encoding):
    with open(os.fsencode(tmp_path) + b"/" + HOSTILE_NAME, "w", encoding="utf-8") as file:  # noqa: PTH123 - bytes
        file.write(RULE)
    checked = run("check", str(tmp_path), encoding=encoding)
    exported = run("export", "prometheus-rules", str(tmp_path), encoding=encoding)

    problem = rf"{tmp_path}/{SHOWN_NAME}:8: rule.x: unknown key "
    assert checked.stdout.decode("ascii").startswith(problem)
    assert checked.stdout.count(b"\n") == 1
    assert exported.stderr.decode("ascii").startswith(f"bpf-watchdog: {problem}")
    assert exported.stderr.count(b"\n") == 1
