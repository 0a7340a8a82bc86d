"""The steps of the system test, in their order: the life of the package on a host, from installation to purge."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from machine import GuestError, Machine

SHARE = "/run/system-test/share"
POSTS = "/var/tmp/posts.jsonl"
UNIT = "bpf-watchdog.service"
APT = "DEBIAN_FRONTEND=noninteractive apt-get -q"
STORM_RULE = """\
[[rule]]
id = "system-test-storm"
summary = "{process} opens connections at {value} (limit {threshold})"
metric = "connects"
stat = "rate"
window = "5s"
by = ["process"]
where = { direction = "out", process = "storm" }
fire_above = 5
keep_firing_for = "1h"
"""
EXTRA_RULE = STORM_RULE.replace("system-test-storm", "system-test-second").replace("= 5\n", "= 100000\n")
SETTINGS = """\
[rules]
shipped = true

[routing]
default = ["oncall"]
jitter = "0s"
group_interval = "5s"

[[receiver]]
name = "oncall"
type = "webhook"
url_credential = "oncall"
"""
# With the limits of memory that docs/operations.md names.
DROP_IN = """\
[Service]
LoadCredential=oncall:/etc/bpf-watchdog/secrets/oncall
MemoryHigh=300M
MemoryMax=400M
"""
MAX_EXPOSURE = 2.0
NO_CAPABILITY = "0000000000000000"
SETTLE_SECONDS = 10.0  # several ticks of an emulated guest


class StepFailure(Exception):
    """The host does not behave as it must; the text has the reason."""


def require(condition: object, text: str) -> None:
    """Raise StepFailure with `text` unless `condition` holds."""
    if not condition:
        raise StepFailure(text)


@dataclass
class Host:
    """A guest and the facts that later steps compare with. Packages: paths in the guest, the former one first."""

    machine: Machine
    former_package: str
    package: str
    files_before: str = ""
    accounts_before: str = ""
    fingerprint: str = ""

    def main_pid(self) -> int:
        """Return the process id of the daemon, 0 if it does not run."""
        return int(self.machine.output(f"systemctl show -P MainPID {UNIT}"))

    def write(self, path: str, text: str, mode: str = "0644") -> None:
        """Write a file of root."""
        self.machine.output(f"install -D -m {mode} /dev/stdin {path} <<'END'\n{text}END")

    def ask(self, command: str) -> Any:
        """Return the answer of a command of bpf-watchdog with --json; its exit code does not count."""
        done = self.machine.run(f"bpf-watchdog {command} --json 2>/dev/null")
        try:
            return json.loads(done.output)
        except ValueError:
            raise GuestError(f"bpf-watchdog {command}: exit code {done.code}\n{done.output}") from None

    def await_daemon(self, *, other_than: int = 0) -> float:
        """Wait until the service is active: its daemon has evaluated a sample; return the seconds of waiting."""
        return self.machine.until(
            f'[ "$(systemctl show -P ActiveState {UNIT})" = active ]'
            f' && [ "$(systemctl show -P MainPID {UNIT})" != {other_than} ]'
        )

    def notifications(self, rule: str, status: str) -> int:
        """Return the number of alerts of a rule in the bodies that the webhook server has got."""
        text = self.machine.output(f"cat {POSTS} 2>/dev/null || true")
        alerts = [alert for line in text.splitlines() for alert in json.loads(line)["alerts"]]
        return sum(alert["labels"]["alertname"] == rule and alert["status"] == status for alert in alerts)

    def await_notification(self, rule: str, status: str, *, more_than: int = 0, timeout: float = 180.0) -> float:
        """Wait for a notification; return the seconds of waiting."""
        began = time.monotonic()
        while self.notifications(rule, status) <= more_than:
            if time.monotonic() > began + timeout:
                raise StepFailure(f"no notification: rule={rule} status={status}")
            time.sleep(0.5)
        return time.monotonic() - began

    def storm_alert(self) -> dict[str, Any]:
        """Return the alert of the storm, which must fire."""
        found = [alert for alert in self.ask("alerts") if alert["rule"] == "system-test-storm"]
        require(len(found) == 1 and found[0]["state"] == "firing", f"the alert of the storm does not fire: {found}")
        return dict(found[0])

    def start_webhook(self) -> None:
        """Start the webhook server."""
        self.machine.output(f"systemd-run --unit=webhook --collect python3 {SHARE}/webhook.py 8099 {POSTS}")


def install(host: Host) -> str:
    """Install the former version on a host without it: the service guards at once, by the shipped rules."""
    host.files_before = host.machine.output(f"{SHARE}/list-files")
    host.accounts_before = host.machine.output("cat /etc/passwd /etc/group")
    done = host.machine.run(f"{APT} install -y {host.former_package}")
    require(done.code == 0, f"apt-get install failed:\n{done.output}")
    host.await_daemon()
    require(host.machine.output(f"systemctl is-enabled {UNIT}") == "enabled", "the service is not enabled")
    status = host.ask("status")
    require(status["rules"]["count"] >= 5, f"the shipped rules are not in force: {status['rules']}")
    require(status["account"] == "bpf-watchdog", f"the daemon runs as {status['account']}")
    return f"active, {status['rules']['count']} rules"


def confinement(host: Host) -> str:
    """Look at the confinement of the running daemon: exposure, capabilities, core dumps, owner of the settings."""
    machine = host.machine
    score = machine.output(f"systemd-analyze security --no-pager {UNIT} | tail -n 1")
    [exposure] = re.findall(r"exposure level for \S+: ([\d.]+)", score)
    require(float(exposure) <= MAX_EXPOSURE, f"exposure {exposure}")
    pid = host.main_pid()
    status = dict(re.findall(r"(\w+):\s*(.*)", machine.output(f"cat /proc/{pid}/status")))
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        require(status[name] == NO_CAPABILITY, f"{name} of the daemon: {status[name]}")
    require((status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), "NoNewPrivs or the filter of system calls")
    require(
        re.search(r"Max core file size +0 +0 ", machine.output(f"cat /proc/{pid}/limits")), "core dumps are possible"
    )
    owner = machine.output("stat -c '%U %a' /etc/bpf-watchdog")
    require(owner.startswith("root ") and not int(owner.split()[1], 8) & 0o022, f"/etc/bpf-watchdog: {owner}")
    as_account = "setpriv --reuid=bpf-watchdog --regid=bpf-watchdog --clear-groups"
    refused = machine.run(f"nsenter -t {pid} -m {as_account} touch /etc/bpf-watchdog/x")
    require(refused.code != 0, "the daemon's account can write to /etc/bpf-watchdog")
    return f"exposure {exposure}, no capability"


def configure(host: Host) -> str:
    """Give it a receiver with a credential, and a rule; restart it, because a credential is read at the start."""
    host.write("/etc/bpf-watchdog/watchdog.toml", SETTINGS)
    host.write("/etc/bpf-watchdog/rules.d/system-test.toml", STORM_RULE)
    host.write("/etc/bpf-watchdog/secrets/oncall", "http://127.0.0.1:8099/\n", "0600")
    host.write(f"/etc/systemd/system/{UNIT}.d/credential.conf", DROP_IN)
    host.start_webhook()
    before = host.ask("status")["rules"]["count"]
    checked = host.machine.run("bpf-watchdog check --here")
    require(checked.code == 0, f"check --here: {checked.output}")
    host.machine.output(f"systemctl daemon-reload; systemctl restart {UNIT}")
    rules = host.ask("status")["rules"]
    require(rules["count"] == before + 1, f"the rule is not in force beside the shipped ones: {rules}")
    return f"{rules['count']} rules"


def storm(host: Host) -> str:
    """Start a connection storm: the alert arrives at the webhook server."""
    host.machine.output(f"systemd-run --unit=storm --collect python3 {SHARE}/storm.py")
    seconds = host.await_notification("system-test-storm", "firing")
    host.fingerprint = host.storm_alert()["fingerprint"]
    return f"notified {seconds:.0f} s after the start of the storm"


def kill(host: Host) -> str:
    """Kill the daemon in the storm: it is restarted, the alert is restored, and nobody is notified again."""
    pid, notified = host.main_pid(), host.notifications("system-test-storm", "firing")
    host.machine.output(f"kill -KILL {pid}")
    seconds = host.await_daemon(other_than=pid)
    _require_restored(host, notified)
    return f"guarding again after {seconds:.0f} s"


def terminate(host: Host) -> str:
    """Send SIGTERM, as any tool could by mistake: it is restarted."""
    pid = host.main_pid()
    host.machine.output(f"kill -TERM {pid}")
    return f"guarding again after {host.await_daemon(other_than=pid):.0f} s"


def hang(host: Host) -> str:
    """Stop the daemon's process: systemd's watchdog restarts it, without a core dump."""
    pid = host.main_pid()
    host.machine.output(f"kill -STOP {pid}")
    seconds = host.await_daemon(other_than=pid)
    log = host.machine.output(f"journalctl -q -o cat -u {UNIT} | grep -c 'Watchdog timeout' || true")
    require(log != "0", "the restart was not that of systemd's watchdog")
    return f"guarding again after {seconds:.0f} s"


def good_reload(host: Host) -> str:
    """Add a rule and reload: `systemctl reload` returns when the rule is in force, and the status line has the time."""
    before = host.ask("status")["rules"]["count"]
    host.write("/etc/bpf-watchdog/rules.d/second.toml", EXTRA_RULE)
    done = host.machine.run(f"systemctl reload {UNIT}")
    require(done.code == 0, f"systemctl reload: {done.output}")
    require(host.ask("status")["rules"]["count"] == before + 1, "the rule is not in force when the reload returns")
    text = host.machine.output(f"systemctl show -P StatusText {UNIT}")
    require(re.fullmatch(rf"watching by {before + 1} rules, reloaded at .* UTC", text), f"status line: {text}")
    return text


def bad_reload(host: Host) -> str:
    """Break a rule and reload: it fails, the old rules stay, an alert reports it and resolves after the repair."""
    before, pid = host.ask("status")["rules"], host.main_pid()
    host.write("/etc/bpf-watchdog/rules.d/second.toml", EXTRA_RULE.replace('"connects"', '"conects"'))
    done = host.machine.run(f"systemctl reload {UNIT}")
    require(done.code != 0, "systemctl reload succeeded with a broken rule")
    require(host.ask("status")["rules"]["sha256"] == before["sha256"], "other rules are in force")
    require(host.main_pid() == pid, "the daemon was restarted")
    shown = host.machine.run(f"systemctl status --no-pager -n 30 {UNIT}").output
    require("reload refused" in shown and 'unknown metric "conects"' in shown, f"systemctl status:\n{shown}")
    seconds = host.await_notification("watchdog-reload-refused", "firing")
    host.write("/etc/bpf-watchdog/rules.d/second.toml", EXTRA_RULE)
    host.machine.output(f"systemctl reload {UNIT}")
    host.await_notification("watchdog-reload-refused", "resolved")
    return f"refused, notified after {seconds:.0f} s"


def clock_steps(host: Host) -> str:
    """Step the clock two hours forward and a day back: ticks continue, nobody is notified, nothing is restarted."""
    pid, notified = host.main_pid(), host.notifications("system-test-storm", "firing")
    for step in ("+2 hours", "-1 day", "+22 hours"):
        host.machine.output(f"date -s '{step}'")
        time.sleep(SETTLE_SECONDS)
        age = host.ask("status")["ticks"]["age_seconds"]
        require(age is not None and age < SETTLE_SECONDS, f"no tick since {age} s after {step}")
    require(host.main_pid() == pid, "the daemon was restarted")
    _require_restored(host, notified)
    return "ticks continue"


def reboot(host: Host) -> str:
    """Reboot: the service starts by itself and restores the alert."""
    notified = host.notifications("system-test-storm", "firing")
    # A moment later: the agent is to answer first.
    host.machine.output("systemd-run --on-active=2s --timer-property=AccuracySec=100ms systemctl reboot")
    seconds = host.machine.await_boot()
    host.start_webhook()
    host.await_daemon()
    host.machine.until(f"journalctl -q -b -o cat -u {UNIT} | grep 'still firing from before the start'")
    _require_restored(host, notified)
    return f"up after {seconds:.0f} s, alert restored"


def upgrade(host: Host) -> str:
    """Install the present version over the former one: settings, state and alerts are kept."""
    pid, notified = host.main_pid(), host.notifications("system-test-storm", "firing")
    settings = host.machine.output("cd /etc/bpf-watchdog; find . -type f | sort | xargs sha256sum")
    done = host.machine.run(f"{APT} install -y {host.package}")
    require(done.code == 0, f"apt-get install failed:\n{done.output}")
    host.await_daemon(other_than=pid)
    same = settings == host.machine.output("cd /etc/bpf-watchdog; find . -type f | sort | xargs sha256sum")
    require(same, "the upgrade changed files of /etc/bpf-watchdog")
    _require_restored(host, notified)
    cgroup = host.machine.output(f"systemctl show -P ControlGroup {UNIT}")
    peak = host.machine.output(f"cat /sys/fs/cgroup{cgroup}/memory.peak")
    resident = host.machine.output(f"grep VmRSS /proc/{host.main_pid()}/status").split()[1]
    return f"state kept; {int(resident) >> 10} MB resident, peak of the control group {int(peak) >> 20} MB"


def downgrade(host: Host) -> str:
    """Try to go back to a version that cannot read the state file: refused with the reason, the alert is kept."""
    notified = host.notifications("system-test-storm", "firing")
    done = host.machine.run(f"{APT} install -y --allow-downgrades {host.former_package}")
    require(done.code != 0, "the older version was installed")
    require("was written by a newer bpf-watchdog" in done.output, f"the reason is missing:\n{done.output}")
    require(not host.machine.output("dpkg --audit"), "the package is half installed")
    host.await_daemon()  # debhelper's postinst restarts the service after a refused upgrade too
    _require_restored(host, notified)
    return "refused"


def remove(host: Host) -> str:
    """Remove the package: nothing of it runs, settings and state stay."""
    pid = host.main_pid()
    host.machine.output(f"{APT} remove -y bpf-watchdog")
    require(host.machine.run(f"kill -0 {pid}").code != 0, "the daemon still runs")
    require(host.machine.run("pgrep -u bpf-watchdog").code != 0, "processes of the account still run")
    require(host.machine.run("command -v bpf-watchdog").code != 0, "the command is still there")
    host.machine.output("cat /etc/bpf-watchdog/rules.d/system-test.toml /var/lib/bpf-watchdog/state.sqlite3 >/dev/null")
    return "settings and state stay"


def purge(host: Host) -> str:
    """Purge the package: the file system is as before the installation, and so are the accounts."""
    host.machine.output(f"rm -r /etc/systemd/system/{UNIT}.d")  # of this test
    host.machine.output(f"{APT} purge -y bpf-watchdog; systemctl daemon-reload")
    before = set(host.files_before.splitlines())
    after = set(host.machine.output(f"{SHARE}/list-files").splitlines())
    changed = sorted([f"- {line}" for line in before - after] + [f"+ {line}" for line in after - before])
    require(not changed, "the file system differs:\n" + "\n".join(changed[:40]))
    require(host.machine.output("cat /etc/passwd /etc/group") == host.accounts_before, "the accounts differ")
    failed = host.machine.output("systemctl list-units --all --plain --no-legend 'bpf-watchdog*'")
    require(not failed, f"units are left: {failed}")
    return f"{len(after)} paths as before"


def _require_restored(host: Host, notified: int) -> None:
    """Require that the alert of the storm fires with its identity, and that nobody was notified again."""
    time.sleep(SETTLE_SECONDS)
    require(host.storm_alert()["fingerprint"] == host.fingerprint, "the alert has another fingerprint")
    now = host.notifications("system-test-storm", "firing")
    require(now == notified, f"notified again: {now} notifications instead of {notified}")


Step = Callable[[Host], str]
"""Tries one part, and returns the result for people. Raises StepFailure or GuestError."""
STEPS: tuple[Step, ...] = (
    *(install, confinement, configure, storm, kill, terminate, hang, good_reload, bad_reload, clock_steps, reboot),
    *(upgrade, downgrade, remove, purge),
)
