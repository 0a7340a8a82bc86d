"""Files that another account can change: `run` and a reload refuse them, `check` and `doctor` report them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NOBODY = 65534
CHECKOUT = Path(__file__).parents[3]


@pytest.fixture
def files(watchdog, server, storm, open_folder):
    """Write files that work; return the rule file."""
    watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.crowd_rule()})
    return watchdog.rules / "test.toml"


def check(watchdog, *more):
    command = [watchdog.command, "check", "--config", watchdog.config, watchdog.rules, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    return done.returncode, done.stdout


def make_theirs(part):
    os.chown(part, NOBODY, NOBODY)


def make_shared(part):
    part.chmod(0o775 if part.is_dir() else 0o664)


def make_open(part):
    part.chmod(0o777 if part.is_dir() else 0o666)


@pytest.mark.parametrize("level", [0, 1, 2], ids=["file", "folder", "folder above"])
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (make_theirs, "belongs to nobody, who can change it: chown root"),
        (make_shared, "writable by the group root (mode 0{}): chmod g-w"),
        (make_open, "writable by everyone on this host (mode 0{}): chmod go-w"),
    ],
)
def test_a_start_is_refused_and_check_has_the_same_line(watchdog, files, level, spoil, reason):
    part = [files, *files.parents][level]
    spoil(part)
    line = f"{part}:1: file: {reason.format(format(part.stat().st_mode & 0o777, 'o'))} {part}"
    watchdog.launch()

    assert watchdog.process.wait(60) == 1
    assert line in watchdog.log().replace("bpf-watchdog: ", "").splitlines()
    for more in ((), ("--here",)):
        code, printed = check(watchdog, *more)
        assert (code, line in printed.splitlines()) == (1, True), printed


def test_files_of_root_are_no_problem(watchdog, files):
    assert check(watchdog)[0] == 0


def test_an_ordinary_user_gets_notes(watchdog, files, open_command):
    files.chmod(0o666)
    as_user = ["setpriv", "--reuid=61234", "--regid=61234", "--clear-groups"]
    done = subprocess.run(
        [*as_user, open_command, "check", files], capture_output=True, text=True, check=False, cwd="/"
    )
    note = f"{files}:1: file: note: writable by everyone on this host (mode 0666): chmod go-w {files}"
    assert (done.returncode, note in done.stdout.splitlines()) == (0, True), done.stdout


def test_a_candidate_of_another_account_is_judged_by_its_content(watchdog, files, open_folder):
    candidate = open_folder / "candidate"
    shutil.copy(files, candidate)
    make_theirs(candidate)
    command = [watchdog.command, "check", "--rules", watchdog.rules, "--config", watchdog.config, "--as", "test.toml"]
    done = subprocess.run([*command, candidate], capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, "nobody" in done.stdout) == (0, False), done.stdout


def test_a_reload_is_refused_and_the_former_rules_stay_in_force(watchdog, files, storm, notified):
    watchdog.start()
    make_theirs(files)
    refusal = watchdog.reload()

    assert "reload refused, the former configuration stays in force:\n" in refusal
    assert f"{files}:1: file: belongs to nobody, who can change it: chown root {files}" in refusal
    os.chown(files, 0, 0)
    assert "reloaded: rules=" in watchdog.reload()
    storm.hold()
    notified("firing")


def test_rules_in_a_folder_like_tmp_are_refused(watchdog, files):
    watchdog.rules.chmod(0o1777)
    watchdog.launch()

    assert watchdog.process.wait(60) == 1
    assert f"{watchdog.rules}:1: file: other users can add files to it: chmod go-w {watchdog.rules}" in watchdog.log()


def test_secrets_authorities_and_commands_of_others_are_refused(watchdog, storm, open_folder):
    names = ("secret", "authorities", "program")
    for name in names:
        (open_folder / name).write_text("#!/bin/sh\n# -----BEGIN CERTIFICATE-----\n")
        (open_folder / name).chmod(0o700 if name == "program" else 0o600)
        make_theirs(open_folder / name)
    receivers = {
        "a": {"type": "webhook", "url_file": f"{open_folder}/secret"},
        "b": {"type": "webhook", "url": "https://127.0.0.1/", "ca_file": f"{open_folder}/authorities"},
        "c": {"type": "command", "command": [f"{open_folder}/program"]},
    }
    watchdog.configure(receivers, {"storm": storm.rule()})
    watchdog.launch()

    assert watchdog.process.wait(60) == 1
    for name in names:
        path = open_folder / name
        assert f"'{path}': belongs to nobody, who can change it: chown root {path}" in watchdog.log()


# ---------------------------------------------------------------------------------------------------------- the program


@pytest.fixture
def copy(open_folder):
    """Return a copy of the program that only root can change."""
    folder = open_folder / "copy"
    for name in ("watchdog", "bpf", "rules"):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def run_copy(copy, *arguments):
    """Run a command of the copy; return exit code and output."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "watchdog", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=copy, env=environment)
    return done.returncode, done.stdout + done.stderr


SPOILED = ["", "watchdog/kernel/loader.py", "watchdog/receivers/render", "bpf/connection.bpf.c", "rules", "watchdog"]


@pytest.mark.parametrize("part", SPOILED)
def test_a_program_that_others_can_change_does_not_start(copy, open_folder, part):
    path = copy / part if part else copy
    if part.endswith(".py"):
        make_theirs(path)
        reason = f"{path}: belongs to nobody, who can change it: chown root {path}"
    else:
        make_open(path)
        option = "-R " if path.is_dir() else ""
        mode = format(path.stat().st_mode & 0o777, "04o")
        reason = f"{path}: writable by everyone on this host (mode {mode}): chmod {option}go-w {path}"
    code, output = run_copy(copy, "run", "--state-dir", str(open_folder / "state"))

    assert code == 4
    assert f"bpf-watchdog: others can change the program: {reason}\n" in output
    assert not (open_folder / "state").exists()
    assert run_copy(copy, "sample", "--for", "1s")[0] == 4


def test_doctor_reports_each_part_once_with_its_remedy(copy):
    for path in copy.rglob("*"):
        make_open(path)
    (copy / "watchdog").chmod(0o755)
    code, output = run_copy(copy, "doctor")
    reported = [line.split()[2].rstrip(":") for line in output.splitlines() if line.startswith("missing code ")]
    entries = {str(path) for path in (copy / "watchdog").iterdir()}

    assert code == 4
    assert set(reported) == entries | {str(copy / "bpf"), str(copy / "rules")}
    assert len(reported) == len(set(reported))
    assert f"-> chmod -R go-w {copy}/bpf\n" in output


def test_the_checkout_of_the_caller_of_sudo_starts_and_is_noted(copy, monkeypatch):
    for path in (copy, *copy.rglob("*")):
        os.chown(path, 61_234, 61_234)
    assert run_copy(copy, "sample", "--for", "100ms")[0] == 4
    monkeypatch.setenv("SUDO_UID", "61234")
    assert run_copy(copy, "sample", "--for", "100ms")[0] == 0
    code, output = run_copy(copy, "doctor")
    assert (code, "missing" in output) == (0, False), output
    assert "the service would refuse it, unlike a daemon that you start by sudo" in output


def test_an_import_path_to_which_everyone_can_add_modules_is_refused(copy, open_folder):
    shared = open_folder / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    environment = {**os.environ, "PYTHONPATH": f"{copy}:{shared}"}
    command = [sys.executable, "-m", "watchdog", "sample", "--for", "100ms"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=copy, env=environment)

    assert done.returncode == 4
    assert f"{shared}: modules are imported from it, and other users can add files to it: start it from" in done.stderr
