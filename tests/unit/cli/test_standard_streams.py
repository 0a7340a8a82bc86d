"""Commands with closed standard streams, or in a locale with few characters."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def run(*arguments, closed="", **environment):
    """Run a command with these redirections of a shell."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "watchdog", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", [["metrics"], ["--version"]])
def test_a_closed_stream_is_no_error(closed, arguments):
    done = run(*arguments, closed=closed)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (">&-" not in closed)


def test_with_standard_error_closed_an_error_does_not_go_to_standard_output():
    done = run("check", "/nowhere", closed="2>&-")
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("locale", ["POSIX", "en_US.ISO-8859-1"])
def test_a_locale_without_a_character_gets_a_similar_one(locale):
    plain = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "80"}
    done = run("sample", "--help", **plain)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--by DIM,~ " in done.stdout
    assert "--by DIM,… " in run("sample", "--help", LC_ALL="C.UTF-8", COLUMNS="80").stdout
