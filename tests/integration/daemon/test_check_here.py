"""`check --here` against the daemon itself: what the start or a reload refuses is a problem, and nothing else."""

from __future__ import annotations

import subprocess

import pytest

HOOK = '[[receiver]]\nname = "hook"\ntype = "webhook"\n'
COMMAND = '[[receiver]]\nname = "script"\ntype = "command"\ncommand = ["{}/private/script"]\n'


@pytest.fixture
def files(watchdog, open_folder, storm):
    """Write settings that work and files that only root can read; return the folder."""
    watchdog.configure({"hook": {"type": "webhook", "url": "http://127.0.0.1:9/"}}, {"storm": storm.rule()})
    for name in ("private", "closed"):
        (open_folder / name).mkdir()
        (open_folder / name).chmod(0o700)
    (open_folder / "private" / "script").write_text("#!/bin/sh\n")
    (open_folder / "private" / "script").chmod(0o755)
    (open_folder / "secret").write_text("https://hooks.example.net/secret\n")
    (open_folder / "secret").chmod(0o600)
    return open_folder


def check_here(watchdog, *more):
    command = [watchdog.command, "check", "--here", "--config", watchdog.config, "--rules", watchdog.rules, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


def refuses(watchdog):
    """Return whether the daemon refuses to start, or logs that a reload would be refused."""
    watchdog.launch()
    try:
        watchdog.wait_for(
            lambda: watchdog.process.poll() is not None or "SIGHUP reads the files" in watchdog.log(), "the daemon"
        )
        return watchdog.process.poll() == 1 or "a reload (SIGHUP) would be refused" in watchdog.log()
    finally:
        watchdog.process.terminate()
        watchdog.process.wait()


def test_files_that_work_are_no_problem(watchdog, files):
    assert check_here(watchdog) == (0, "")
    assert not refuses(watchdog)


@pytest.mark.parametrize(
    ("settings", "mode", "message"),
    [
        (HOOK + 'url_file = "{}/missing"\n', 0o640, "cannot read '{}/missing': No such file or directory"),
        (
            HOOK + 'url_file = "{}/secret"\n',
            0o640,
            "cannot read '{}/secret': Permission denied: it must be readable to",
        ),
        (
            '[[receiver]]\nname = "chat"\ntype = "slack"\nbot_token = "xoxb-1"\nchannel = "C1"\n',
            0o644,
            "is written in a file that is open to everyone on this host",
        ),
        (HOOK + 'url = "http://127.0.0.1:9/"\n', 0o600, "cannot read: Permission denied: it must be readable to"),
        (COMMAND, 0o640, "the account bpf-watchdog cannot enter the folder {}/private: chgrp bpf-watchdog {}/private"),
    ],
    ids=["missing", "root's", "inline", "settings", "folder"],
)
def test_what_the_daemon_refuses_is_a_problem(watchdog, files, settings, mode, message):
    watchdog.config.write_text(settings.replace("{}", str(files)))
    watchdog.config.chmod(mode)
    subprocess.run(["chgrp", "bpf-watchdog", watchdog.config], check=True)
    code, printed = check_here(watchdog)
    assert (code, message.replace("{}", str(files)) in printed) == (1, True), printed
    assert refuses(watchdog)


def test_a_rule_file_of_root_is_a_problem_and_a_candidate_of_root_is_read(watchdog, files, storm):
    candidate = files / "closed" / "copy"
    candidate.write_text((watchdog.rules / "test.toml").read_text())
    candidate.chmod(0o600)
    assert check_here(watchdog, "--as", "test.toml", candidate) == (0, "")
    (watchdog.rules / "test.toml").chmod(0o600)
    code, printed = check_here(watchdog)
    assert (code, f"{watchdog.rules}/test.toml:1: file: cannot read: Permission denied" in printed) == (1, True)


def test_secrets_that_only_the_service_has_are_noted(watchdog, files, storm):
    watchdog.configure({"hook": {"type": "webhook", "url_env": "NOT_SET_HERE"}}, {"storm": storm.rule()})
    code, printed = check_here(watchdog)
    assert (code, "receiver.url_env: note: not checked: " in printed) == (0, True)


def test_an_ordinary_user_cannot_judge_as_the_account(watchdog, files):
    command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", watchdog.command, "check", "--here"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, "run it as root" in done.stderr) == (4, True)
