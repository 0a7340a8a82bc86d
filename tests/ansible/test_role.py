"""The Ansible role against a real daemon in a folder of its own: `make test-ansible`. Needs root and ansible-core."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
ROLE = CHECKOUT / "packaging" / "ansible"
COMMAND = Path(sys.executable).parent / "bpf-watchdog"
SETTINGS = '[routing]\njitter = "0s"\n\n[[receiver]]\nname = "oncall"\ntype = "command"\ncommand = ["/bin/true"]\n'
HOOK = '\n[[receiver]]\nname = "hook"\ntype = "webhook"\nurl_file = "{secrets}/hook"\n'
RULE = """\
[[rule]]
id = "{id}"
summary = "{{value}} connections"
metric = "open"
stat = "last"
window = "10s"
fire_above = {limit}
receivers = ["{receiver}"]
"""
# Starts the daemon in the background, or ends it first: what a service manager does elsewhere.
CONTROL = """\
#!/bin/sh
cd {folder} || exit 1
if [ "$1" = restart ]; then
  kill "$(cat pid)"
  while kill -0 "$(cat pid)" 2>/dev/null; do sleep 0.2; done
fi
etc={folder}/etc
setsid {command} run --config $etc/watchdog.toml --rules $etc/rules.d --state-dir {folder}/state </dev/null >>log 2>&1 &
echo $! >pid
"""
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the role and the daemon need root"),
    pytest.mark.timeout(600),
]


def rule(name: str, limit: int = 1_000_000, receiver: str = "oncall") -> str:
    return RULE.format(id=name, limit=limit, receiver=receiver)


@dataclass(frozen=True)
class Play:
    """The end of one run of ansible-playbook."""

    code: int
    output: str

    @property
    def changed(self) -> int:
        return int(re.findall(r"changed=(\d+)", self.output)[-1])


class Host:
    """A folder with configuration and daemon, which the role manages in place of a whole host."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.etc = folder, folder / "etc"
        self.control = folder / "control"
        self.control.write_text(CONTROL.format(folder=folder, command=COMMAND))
        self.control.chmod(0o755)
        (folder / "play.yml").write_text("- hosts: localhost\n  gather_facts: false\n  roles: [bpf_watchdog]\n")

    def play(self, *flags: str, **variables: object) -> Play:
        given = {
            "ansible_python_interpreter": "/usr/bin/python3",
            "bpf_watchdog_package": "",
            "bpf_watchdog_start_timeout": 240,
            "bpf_watchdog_command": str(COMMAND),
            "bpf_watchdog_config_dir": str(self.etc),
            "bpf_watchdog_control": str(self.folder / "state" / "control.sock"),
            "bpf_watchdog_start_command": [str(self.control), "start"],
            "bpf_watchdog_restart_command": [str(self.control), "restart"],
            **{f"bpf_watchdog_{name}": value for name, value in variables.items()},
        }
        (self.folder / "vars.json").write_text(json.dumps(given))
        environment = {
            **os.environ,
            "ANSIBLE_HOME": str(self.folder / "ansible"),
            "ANSIBLE_ROLES_PATH": str(ROLE / "roles"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_NOCOLOR": "true",
            "LC_ALL": "C.UTF-8",
        }
        done = subprocess.run(
            [
                *(sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-c", "local"),
                *("-e", f"@{self.folder}/vars.json", *flags, str(self.folder / "play.yml")),
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Play(done.returncode, done.stdout)

    def ask(self, *arguments: str) -> dict:
        command = [COMMAND, *arguments, "--json", "--state-dir", self.folder / "state"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        return json.loads(done.stdout)

    def rules_in_force(self) -> set[str]:
        return {one["id"] for one in self.ask("rules") if not one["id"].startswith("watchdog-")}

    def end(self) -> None:
        pid = int((self.folder / "pid").read_text())
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 60
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.2)


@pytest.fixture(scope="module")
def host():
    # Not in pytest's own folder, which the account of the daemon cannot enter.
    with tempfile.TemporaryDirectory(prefix="watchdog-role-") as name:
        Path(name).chmod(0o755)
        host = Host(Path(name))
        yield host
        if (host.folder / "pid").exists():
            host.end()


@pytest.fixture
def running(host):
    """The host with one rule and a running daemon."""
    played = host.play(settings=SETTINGS, rules={"a.toml": rule("first")}, purge_rules=True, purge_secrets=True)
    assert played.code == 0, played.output
    assert host.rules_in_force() == {"first"}
    return host


def test_a_bare_host_can_be_checked_before_anything_is_installed(tmp_path):
    host = Host(tmp_path)
    played = host.play(
        *("--check", "--diff"), settings=SETTINGS, rules={"a.toml": rule("first")}, secrets={"hook": "s3cret-of-hook"},
        command=str(tmp_path / "missing"), group="no-such-group",
    )  # fmt: skip
    assert played.code == 0, played.output
    assert '+id = "first"' in played.output
    assert "s3cret-of-hook" not in played.output
    assert not host.etc.exists()


def test_a_second_run_changes_nothing(running):
    before = running.ask("status")
    wanted = {"settings": SETTINGS, "rules": {"a.toml": rule("first")}}
    for flags in ((), ("--check", "--diff")):
        played = running.play(*flags, **wanted, rules_sha256=before["rules"]["sha256"])
        assert (played.code, played.changed) == (0, 0), played.output
    after = running.ask("status")
    assert (after["pid"], after["reload"]) == (before["pid"], before["reload"])


def test_a_change_comes_into_force_and_check_mode_only_shows_it(running):
    wanted = {"settings": SETTINGS, "rules": {"a.toml": rule("first", 5_000_000), "b.toml": rule("second")}}
    shown = running.play("--check", "--diff", **wanted)
    assert shown.code == 0, shown.output
    assert "+fire_above = 5000000" in shown.output
    assert running.rules_in_force() == {"first"}
    played = running.play(**wanted)
    assert played.code == 0, played.output
    assert running.rules_in_force() == {"first", "second"}


@pytest.mark.parametrize("flags", [(), ("--check",)], ids=["run", "check"])
@pytest.mark.parametrize(
    ("rules", "settings"),
    [
        ({"a.toml": rule("first"), "z.toml": rule("broken").replace("metric", "metrik")}, SETTINGS),
        ({"a.toml": rule("first"), "z.toml": rule("first")}, SETTINGS),
        ({"a.toml": rule("first"), "z.toml": rule("other", receiver="nobody")}, SETTINGS),
        ({"a.toml": rule("first")}, SETTINGS + "[sampling]\nintervall = '1s'\n"),
    ],
    ids=["misspelt key", "id taken", "unknown receiver", "settings"],
)
def test_a_broken_set_fails_the_play_and_replaces_nothing(running, rules, settings, flags):
    before = {file: file.read_bytes() for file in running.etc.rglob("*.toml")}
    played = running.play(*flags, settings=settings, rules=rules)
    assert played.code == 2, played.output
    assert re.search(r"etc/(rules.d/z|watchdog).toml:\d+: ", played.output), played.output
    assert {file: file.read_bytes() for file in running.etc.rglob("*.toml")} == before
    assert running.rules_in_force() == {"first"}
    assert running.ask("status")["problems"] == []
    assert not list(Path("/tmp").glob("bpf-watchdog.*"))


def test_files_that_are_right_only_together_are_replaced_together(running):
    renamed = SETTINGS.replace("oncall", "night")
    played = running.play(settings=renamed, rules={"a.toml": rule("first", receiver="night")})
    assert played.code == 0, played.output
    assert running.ask("status")["receivers"][0]["name"] == "night"


@pytest.mark.parametrize("lost", ["rule", "settings", "refusal"])
def test_files_whose_reload_was_lost_come_into_force_at_the_next_run(running, lost):
    wanted = {"settings": SETTINGS, "rules": {"a.toml": rule("first")}}
    if lost == "rule":  # as by a play that failed between the files and the reload
        (running.etc / "rules.d" / "a.toml").write_text(rule("first", 7_000_000))
        wanted["rules"] = {"a.toml": rule("first", 7_000_000)}
    elif lost == "settings":
        (running.etc / "watchdog.toml").write_text(SETTINGS + '[labels]\nteam = "net"\n')
        wanted["settings"] = SETTINGS + '[labels]\nteam = "net"\n'
    else:
        (running.etc / "rules.d" / "a.toml").write_text("broken")
        assert running.ask("reload")["accepted"] is False
    played = running.play(**wanted)
    assert played.code == 0, played.output
    assert running.ask("status")["reload"]["result"] == "accepted"
    compared = running.ask("reload", "--dry-run")
    assert (compared["changed"], compared["settings"]) == ([], [])


def test_a_setting_that_needs_a_restart_gets_one(running):
    pid = running.ask("status")["pid"]
    wanted = {"settings": SETTINGS + "[sampling]\nledger = 1_000\n", "rules": {"a.toml": rule("first")}}
    played = running.play(**wanted)
    assert played.code == 0, played.output
    assert running.ask("status")["pid"] != pid
    again = running.play(**wanted)
    assert (again.code, again.changed) == (0, 0), again.output


def test_unmanaged_rules_stay_unless_they_are_to_be_purged(running):
    other = running.etc / "rules.d" / "other.toml"
    other.write_text(rule("other"))
    wanted = {"settings": SETTINGS, "rules": {"a.toml": rule("first")}}
    assert running.play(**wanted).code == 0
    assert running.rules_in_force() == {"first", "other"}
    assert running.play("--check", **wanted, purge_rules=True).changed == 1
    assert other.exists()
    assert running.play(**wanted, purge_rules=True).code == 0
    assert running.rules_in_force() == {"first"}
    assert not other.exists()


def test_a_rotated_secret_is_written_and_never_shown(running):
    wanted = {"settings": SETTINGS + HOOK.format(secrets=running.etc / "secrets"), "rules": {"a.toml": rule("first")}}
    first, second = (f"http://127.0.0.1:9/{name}" for name in ("first-s3cret", "second-s3cret"))
    played = running.play("--diff", "-vvv", **wanted, secrets={"hook": first})
    assert played.code == 0, played.output
    file = running.etc / "secrets" / "hook"
    assert oct(file.stat().st_mode & 0o777) == "0o640"
    rotated = running.play("--diff", "-vvv", **wanted, secrets={"hook": second})
    assert (rotated.code, rotated.changed) == (0, 1), rotated.output
    assert file.read_text() == second
    again = running.play(**wanted, secrets={"hook": second})
    assert (again.code, again.changed) == (0, 0)
    assert "s3cret" not in played.output + rotated.output + again.output
