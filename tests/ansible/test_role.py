"""The Ansible role against a real daemon in a folder of its own: `make test-ansible`. Needs root and ansible-core."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]
ROLE = CHECKOUT / "packaging" / "ansible"
ROLE_FOLDER = ROLE / "roles" / "bpf_watchdog"
COMMAND = Path(sys.executable).parent / "bpf-watchdog"
OLDEST_ANSIBLE = Path(sys.prefix) / "ansible-2.14" / "bin" / "python"
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
# Starts the daemon in the background, or ends it first, in place of a service manager.
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
PLAY = "- hosts: localhost\n  gather_facts: false\n  roles: [{role: bpf_watchdog, tags: [watchdog]}]\n"
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the role and the daemon need root"),
    pytest.mark.timeout(1800),
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
        (folder / "play.yml").write_text(PLAY)

    def play(self, *flags: str, python: Path | str = sys.executable, **variables: object) -> Play:
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
                *(python, "-m", "ansible", "playbook", "-i", "localhost,", "-c", "local"),
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
        done = subprocess.run(self._command(*arguments), stdout=subprocess.PIPE, text=True, check=False)
        return json.loads(done.stdout)

    def _command(self, *arguments: str) -> list[str | Path]:
        return [COMMAND, *arguments, "--json", "--state-dir", self.folder / "state"]

    def rules_in_force(self) -> set[str]:
        return {one["id"] for one in self.ask("rules") if not one["id"].startswith("watchdog-")}

    def reset(self) -> None:
        """Let the daemon run with `SETTINGS` and the rule `first` alone, without a play."""
        for file in (*(self.etc / "rules.d").iterdir(), *(self.etc / "secrets").iterdir()):
            file.unlink()
        (self.etc / "watchdog.toml").write_text(SETTINGS)
        (self.etc / "rules.d" / "a.toml").write_text(rule("first"))
        for file in self.etc.rglob("*.toml"):
            shutil.chown(file, 0, "bpf-watchdog")
            file.chmod(0o640)
        answer = self.ask("reload")
        assert answer["accepted"], answer
        if answer["restart_keys"]:
            subprocess.run([self.control, "restart"], check=True)
            wait_until(self.has_judged)

    def has_judged(self) -> bool:
        done = subprocess.run(self._command("status"), capture_output=True, text=True, check=False)
        return done.returncode in (0, 1) and json.loads(done.stdout)["ticks"]["age_seconds"] is not None

    def end(self) -> None:
        pid = int((self.folder / "pid").read_text())
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{pid}").exists())


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
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


@pytest.fixture(scope="module")
def first_run(host):
    """The first play on a host with a folder made by hand, with variables as an inventory in INI form gives them."""
    (host.etc / "rules.d").mkdir(parents=True)
    host.etc.chmod(0o700)
    (host.etc / "rules.d" / "other.toml").write_text(rule("other"))
    no = {f"purge_{kind}": "false" for kind in ("rules", "secrets")}
    return host.play(**no, started="true", fail_on_problems="false", settings=SETTINGS, rules={"a.toml": rule("first")})


@pytest.fixture
def running(host, first_run):
    """The host with one rule and a running daemon."""
    assert first_run.code == 0, first_run.output
    host.reset()
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


def test_the_first_run_starts_the_daemon_and_keeps_unmanaged_rules(host, first_run):
    assert first_run.code == 0, first_run.output
    assert host.rules_in_force() == {"first", "other"}
    modes = {path.name: oct(path.stat().st_mode & 0o7777) for path in (host.etc, *host.etc.iterdir())}
    assert modes == {"etc": "0o750", "rules.d": "0o750", "secrets": "0o750", "watchdog.toml": "0o640"}


def test_a_host_image_gets_the_files_and_no_daemon():
    with tempfile.TemporaryDirectory(prefix="watchdog-role-") as name:
        Path(name).chmod(0o755)
        host = Host(Path(name))
        played = host.play(settings=SETTINGS, rules={"a.toml": rule("first")}, started="false")
        assert played.code == 0, played.output
        assert (host.etc / "rules.d" / "a.toml").read_text() == rule("first")
        assert not (host.folder / "pid").exists()


def test_a_secret_without_content_is_named(running):
    played = running.play(settings=SETTINGS, secrets={"hook": None, "other": "http://127.0.0.1:9/s3cret"})
    assert played.code == 2, played.output
    assert "No content: hook." in played.output
    assert "s3cret" not in played.output
    assert not list((running.etc / "secrets").iterdir())


def test_a_second_run_changes_nothing(running):
    before = running.ask("status")
    wanted = {"settings": SETTINGS, "rules": {"a.toml": rule("first")}}
    for flags in ((), ("--check", "--diff")):
        played = running.play(*flags, **wanted, rules_sha256=before["rules"]["sha256"])
        assert (played.code, played.changed) == (0, 0), played.output
    after = running.ask("status")
    assert (after["pid"], after["reload"]) == (before["pid"], before["reload"])


def test_a_change_comes_into_force_and_check_mode_only_shows_it(running):
    source = running.folder / "second.toml"
    source.write_bytes(rule("second").replace("connections", "{{ Größe }} ✓").replace("\n", "\r\n").encode())
    second = f"{{{{ lookup('ansible.builtin.file', '{source}', rstrip=false) }}}}"
    wanted = {"settings": SETTINGS, "rules": {"a.toml": rule("first", 5_000_000).rstrip(), "b.toml": second}}
    shown = running.play("--check", "--diff", **wanted)
    assert shown.code == 0, shown.output
    assert "+fire_above = 5000000" in shown.output
    assert running.rules_in_force() == {"first"}
    played = running.play("--tags", "watchdog", **wanted)
    assert played.code == 0, played.output
    assert running.rules_in_force() == {"first", "second"}
    assert (running.etc / "rules.d" / "b.toml").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("flags", [(), ("--check",)], ids=["run", "check"])
@pytest.mark.parametrize(
    ("rules", "settings"),
    [
        ({"a.toml": rule("first"), "z.toml": rule("broken").replace("metric", "metrik")}, SETTINGS),
        ({"a.toml": rule("first"), "z.toml": rule("first")}, SETTINGS),
        ({"a.toml": rule("first"), "z.toml": rule("other", receiver="nobody")}, SETTINGS),
        ({"a.toml": rule("first")}, SETTINGS + "[sampling]\nintervall = '1s'\n"),
        ({"a.toml": rule("first")}, SETTINGS + HOOK.format(secrets="{{ bpf_watchdog_config_dir }}/secrets of root")),
    ],
    ids=["misspelt key", "id taken", "unknown receiver", "settings", "secret of root"],
)
def test_a_broken_set_fails_the_play_and_replaces_nothing(running, rules, settings, flags):
    before = {file: file.read_bytes() for file in running.etc.rglob("*.toml")}
    temporary = set(Path("/tmp").glob("bpf-watchdog.*"))
    unreadable = running.etc / "secrets of root" / "hook"
    unreadable.parent.mkdir(mode=0o700, exist_ok=True)
    unreadable.write_text("http://127.0.0.1:9/hook")
    played = running.play(*flags, settings=settings, rules=rules)
    assert played.code == 2, played.output
    assert re.search(r"etc/(rules.d/z|watchdog).toml:\d+: ", played.output), played.output
    assert {file: file.read_bytes() for file in running.etc.rglob("*.toml")} == before
    assert running.rules_in_force() == {"first"}
    assert running.ask("status")["problems"] == []
    assert set(Path("/tmp").glob("bpf-watchdog.*")) <= temporary


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
        shown = running.play("--check", **wanted)
        assert (shown.code, shown.changed) == (0, 1), shown.output
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
    shared = running.etc / "shared.toml"
    shared.write_text(rule("other"))
    shutil.chown(shared, 0, "bpf-watchdog")
    other = running.etc / "rules.d" / "other.toml"
    other.symlink_to("../shared.toml")
    tests_of_rules = running.etc / "rules.d" / "other.test.toml"
    tests_of_rules.write_text("")
    wanted = {"settings": SETTINGS, "rules": {"a.toml": rule("first")}}
    assert running.play(**wanted).code == 0
    assert running.rules_in_force() == {"first", "other"}
    assert running.play("--check", **wanted, purge_rules=True).changed == 1
    assert other.exists()
    assert running.play(**wanted, purge_rules=True).code == 0
    assert running.rules_in_force() == {"first"}
    assert not other.is_symlink()
    assert tests_of_rules.exists()
    shared.unlink()


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


class Hook(http.server.BaseHTTPRequestHandler):
    """Takes posts to the path `/right`, and counts the tests among them."""

    taken = 0

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        is_right = self.path == "/right"
        Hook.taken += is_right and b"TEST" in body
        self.send_response(200 if is_right else 404)
        self.end_headers()

    def log_message(self, *_):
        """Keep the output of the tests clean."""


@pytest.fixture
def hook():
    """Return the URL of a server that takes posts to the path `/right`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_settings_are_replaced_only_after_their_receivers_took_a_test(running, hook):
    wanted = {
        "settings": SETTINGS + HOOK.format(secrets=running.etc / "secrets"),
        "rules": {"a.toml": rule("first")},
        "test_receivers": ["oncall", "hook"],
    }
    for _ in range(2):  # a second run does not forget it
        failed = running.play(**wanted, secrets={"hook": f"{hook}/wrong-s3cret"})
        assert failed.code == 2, failed.output
        assert "answered 404" in failed.output
        assert "s3cret" not in failed.output
        assert (running.etc / "watchdog.toml").read_text() == SETTINGS
    shown = running.play("--check", **wanted, secrets={"hook": f"{hook}/right"})
    assert (shown.code, Hook.taken) == (0, 0), shown.output
    for changed in (True, False):
        played = running.play(**wanted, secrets={"hook": f"{hook}/right"})
        assert (played.code, played.changed > 0, Hook.taken) == (0, changed, 2), played.output  # firing and resolved
    assert {one["name"] for one in running.ask("status")["receivers"]} == {"oncall", "hook"}


def test_a_play_that_fails_leaves_the_secrets_of_the_configuration_in_force(running):
    secret = running.etc / "secrets" / "hook"
    secret.write_text("http://127.0.0.1:9/hook")
    wanted = {"settings": SETTINGS, "rules": {"a.toml": rule("first")}, "purge_secrets": True}
    failed = running.play(**wanted, rules_sha256="0" * 64)
    assert failed.code == 2, failed.output
    assert "the rules in force have the hash" in failed.output
    assert secret.exists()
    assert running.play(**wanted).code == 0
    assert not secret.exists()


def test_the_oldest_ansible_that_is_supported_does_the_same(running):
    wanted = {"settings": SETTINGS, "rules": {"a.toml": rule("first"), "b.toml": rule("second")}}
    wanted["test_receivers"] = ["oncall"]
    for changed in (1, 0):
        played = running.play(**wanted, python=OLDEST_ANSIBLE, purge_rules="false")
        assert (played.code, played.changed > 0) == (0, changed), played.output
        assert running.rules_in_force() == {"first", "second"}
    broken = {**wanted, "rules": {"a.toml": rule("first").replace("metric", "metrik")}}
    failed = running.play(**broken, python=OLDEST_ANSIBLE, purge_rules="true")
    assert failed.code == 2, failed.output
    assert "rules.d/a.toml:4: " in failed.output
    assert running.rules_in_force() == {"first", "second"}


def test_each_variable_is_described_with_its_default():
    defaults = yaml.safe_load((ROLE_FOLDER / "defaults" / "main.yml").read_text())
    specs = yaml.safe_load((ROLE_FOLDER / "meta" / "argument_specs.yml").read_text())
    options = specs["argument_specs"]["main"]["options"]
    assert {name: option["default"] for name, option in options.items()} == defaults
    page = (CHECKOUT / "docs" / "configuration-management.md").read_text()
    rows = dict(re.findall(r"^\| `(bpf_watchdog_\w+)` \| `(.*?)` \|", page, re.MULTILINE))
    assert rows
    assert {name: yaml.safe_load(text) for name, text in rows.items()} == {name: defaults[name] for name in rows}


def test_ansible_lint_finds_nothing():
    command = [COMMAND.parent / "ansible-lint", "--offline", "--profile", "production", "roles", "site.yml"]
    environment = {**os.environ, "PATH": f"{COMMAND.parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROLE, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
