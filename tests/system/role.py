"""Steps that configure the host by the role for Ansible, which runs on the host itself."""

import json
import re
import shlex
from dataclasses import dataclass

from configuration import BROKEN_RULE, MEMORY_LIMITS, SECOND_RULE, SETTINGS, STORM_RULE
from guarding import LATE_NAME
from host import POSTS, SHARE, UNIT, Host, require

ADDRESS = "http://127.0.0.1:8099/"
VARIABLES = "/var/tmp/variables.json"
ENVIRONMENT = {
    "ANSIBLE_ROLES_PATH": f"{SHARE}/ansible/roles",
    "ANSIBLE_PIPELINING": "true",
    "ANSIBLE_LOCALHOST_WARNING": "false",
    "ANSIBLE_NOCOLOR": "true",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
}


@dataclass(frozen=True, slots=True)
class Play:
    """The end of a run of the role."""

    code: int
    changed: int
    output: str


def play(host: Host, rules: dict[str, str], address: str = ADDRESS) -> Play:
    """Run the role with the settings of the test, rules by file name, and the receiver's address as a credential."""
    variables = {
        "ansible_python_interpreter": "/usr/bin/python3",
        "bpf_watchdog_settings": SETTINGS,
        "bpf_watchdog_rules": rules,
        "bpf_watchdog_credentials": {"oncall": address},
    }
    host.write(VARIABLES, json.dumps(variables) + "\n", "0600")
    environment = shlex.join(f"{name}={value}" for name, value in ENVIRONMENT.items())
    command = f"ansible-playbook -i localhost, -e @{VARIABLES} {SHARE}/play.yml"
    done = host.machine.run(f"cd {SHARE} && env {environment} {command}")
    changed = re.findall(r"\bchanged=(\d+)", done.output)
    require(changed, f"no end of a play:\n{done.output}")
    return Play(done.code, int(changed[-1]), done.output)


def configure(host: Host) -> str:
    """Run the role: a receiver with a credential, for which it restarts the service, and a rule."""
    host.write(f"/etc/systemd/system/{UNIT}.d/memory.conf", MEMORY_LIMITS)
    host.start_webhook()
    before = host.ask("status")["rules"]["count"]
    done = play(host, {"storm.toml": STORM_RULE})
    require(done.code == 0, done.output)
    rules = host.ask("status")["rules"]
    require(rules["count"] == before + 1, f"the rule is not in force beside the shipped ones: {rules}")
    return f"{done.changed} changes, {rules['count']} rules"


def second_run(host: Host) -> str:
    """Run the role again: nothing changes."""
    pid = host.main_pid()
    done = play(host, {"storm.toml": STORM_RULE})
    require(done.code == 0 and done.changed == 0, done.output)
    require(host.main_pid() == pid, "the daemon was restarted")
    return "0 changes"


def broken_rule(host: Host) -> str:
    """Run the role with a broken rule: the play fails with the reason, files and rules in force stay."""
    files, rules, pid = host.settings_digest(), host.ask("status")["rules"]["sha256"], host.main_pid()
    done = play(host, {"storm.toml": STORM_RULE, "second.toml": BROKEN_RULE})
    require(done.code != 0, "the play succeeded with a broken rule")
    require('unknown metric \\"conects\\"' in done.output, f"the reason is missing:\n{done.output}")
    require(host.settings_digest() == files, "files of /etc/bpf-watchdog differ")
    require(host.ask("status")["rules"]["sha256"] == rules, "other rules are in force")
    require(host.main_pid() == pid, "the daemon was restarted")
    return "refused"


def rotate(host: Host) -> str:
    """Run the role with another credential and a second rule: the next notification goes to the new address."""
    pid, notified = host.main_pid(), host.notifications("system-test-storm", "firing")
    done = play(host, {"storm.toml": STORM_RULE, "second.toml": SECOND_RULE}, f"{ADDRESS}rotated")
    require(done.code == 0, done.output)
    require(host.main_pid() != pid, "the role did not restart the service")
    host.await_notification("system-test-second", "firing")
    [post] = [post for post in host.posts(POSTS) if "system-test-second" in post["groupKey"]]
    require(post["path"] == "/rotated", f"sent to the former address: {post['path']}")
    name = post["commonLabels"]["host"]
    require(name == LATE_NAME, f"the notification has the former name of the host: {name}")
    host.require_restored(notified)
    return f"{done.changed} changes, sent to the new address"
