"""The selftest command on this host, with the shipped rules and receivers of every type that needs no server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
COMMAND = [str(Path(sys.executable).with_name("bpf-watchdog")), "selftest"]
CHECKS = ["full-disk", "hung-receiver", "full-ledger", "clock-step", "hostile-names", "kill"]
SETTINGS = """
[sampling]
interval = "500ms"

[[receiver]]
name = "hook"
type = "webhook"
url = "{url}"

[[receiver]]
name = "own"
type = "webhook"
url = "{url}"
content_type = "application/json"
template = '{{{{"text": "{{process}}: {{summary}}"}}}}'

[[receiver]]
name = "chat"
type = "slack"
webhook_url = "{url}"

[[receiver]]
name = "log"
type = "syslog"

[[receiver]]
name = "journal"
type = "journald"

[[receiver]]
name = "mail"
type = "email"
host = "127.0.0.1"
tls = "none"
from = "watchdog@example.net"
to = ["oncall@example.net"]

[[receiver]]
name = "program"
type = "command"
command = ["/bin/false"]
"""
# JSON without `content_type`, so that fields are not quoted: a quotation mark in a name ends the text around it.
UNQUOTED = """
[[receiver]]
name = "homemade"
type = "webhook"
url = "http://127.0.0.1:9/"
content_type = "text/plain"
template = '{{"text": "{process}"}}'
"""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def selftest(open_folder):
    """Return a function that runs the command with settings, and returns the completed process."""

    def run(settings, *arguments):
        file = open_folder / "watchdog.toml"
        file.write_text(settings)
        file.chmod(0o600)  # it has secrets in it
        command = [*COMMAND, "--config", str(file), "--rules", str(CHECKOUT / "rules"), *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=280)

    return run


def left_behind():
    return list(Path("/tmp").glob("bpf-watchdog-tmp-*"))


@pytest.fixture
def daemon(open_folder, wait_for):
    """Run a daemon beside the selftest; return its process and log file."""
    log = open_folder / "log"
    command = [COMMAND[0], "run", "--state-dir", str(open_folder / "state"), "--rules", str(CHECKOUT / "rules")]
    with log.open("wb") as written, subprocess.Popen(command, stdout=written, stderr=written) as process:
        wait_for(lambda: b" watches " in log.read_bytes(), "the daemon to guard", 60.0)
        yield process, log
        process.terminate()


def test_all_checks_are_ok_the_receivers_get_nothing_and_a_daemon_continues(selftest, server, daemon):
    before = left_behind()
    done = selftest(SETTINGS.format(url=server.url))
    print(done.stdout, done.stderr)
    lines = re.findall(r"^(\S+) +(ok|failed|skipped) +(.*)", done.stdout, re.MULTILINE)

    assert [(name, verdict) for name, verdict, _ in lines] == [(name, "ok") for name in CHECKS]
    assert done.returncode == 0
    assert re.match(r"\d+ rules of ", done.stderr)
    assert server.posts == []
    assert "secret-path" not in done.stdout + done.stderr
    assert left_behind() == before
    assert "selftest" not in Path("/proc/self/mounts").read_text()
    process, log = daemon
    assert process.poll() is None
    process.terminate()
    assert process.wait(60) == 0
    assert b"bpf-wd-selftest" not in log.read_bytes()  # the checks make no alert in the daemon


def test_it_runs_from_where_only_root_can_enter(private_command, open_folder):
    rules = private_command.parents[2] / "rules"
    command = [private_command, "selftest", "--rules", rules, "--json", "hung-receiver", "full-ledger", "kill"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100, cwd="/")
    print(done.stdout, done.stderr)

    assert [outcome["status"] for outcome in json.loads(done.stdout)] == ["ok"] * 3


def test_a_receiver_that_a_name_can_break_fails(selftest):
    done = selftest(UNQUOTED, "hostile-names", "kill", "--json")
    hostile, kill = json.loads(done.stdout)

    assert done.returncode == 1
    assert (hostile["check"], hostile["status"]) == ("hostile-names", "failed")
    assert re.match(
        r"receiver homemade \(webhook\), process '.*': (is no JSON any more|it has .* fields)", hostile["detail"]
    )
    assert (kill["status"], kill["seconds"] > 0) == ("ok", True)


def test_without_mount_the_full_disk_is_skipped_and_the_rest_is_checked(open_folder):
    drop = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-all"]
    rules = ["--rules", str(CHECKOUT / "rules")]
    (open_folder / "watchdog.toml").write_text("")
    command = [*drop, *COMMAND, "--config", str(open_folder / "watchdog.toml"), *rules, "full-disk", "kill", "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    print(done.stdout, done.stderr)
    disk, kill = json.loads(done.stdout)

    assert (done.returncode, disk["status"], kill["status"]) == (0, "skipped", "ok")
    assert disk["detail"].startswith("cannot mount a small disk: Operation not permitted")


@pytest.mark.parametrize(("arguments", "code", "said"), [(["full-disc"], 2, "did you mean"), ([], 4, "CAP_BPF")])
def test_unknown_checks_and_missing_privileges_are_reported(arguments, code, said):
    drop = ["setpriv", "--bounding-set", "-bpf,-perfmon,-sys_admin", "--inh-caps", "-all"] if code == 4 else []
    done = subprocess.run([*drop, *COMMAND, *arguments], check=False, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_a_selftest_that_is_terminated_leaves_nothing(wait_for, selftest):
    before = left_behind()
    with subprocess.Popen([*COMMAND, "--rules", str(CHECKOUT / "rules"), "clock-step"], stderr=subprocess.PIPE) as run:
        wait_for(lambda: len(left_behind()) > len(before), "a check to begin")
        time.sleep(0.2)
        os.kill(run.pid, signal.SIGTERM)
        assert run.wait(60) == 128 + signal.SIGTERM
    assert left_behind() == before
