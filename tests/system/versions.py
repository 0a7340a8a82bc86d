"""Steps from one version to another: the way from a former version to the present one, removal and purge."""

from configuration import FORMER_SETTINGS, SECOND_RULE, STORM_RULE
from host import APT, SHARE, UNIT, Host, require

STATE = "/var/lib/bpf-watchdog"
LATE_POSTS = "/var/tmp/late.jsonl"
SCHEMA = f"""\
import sqlite3
print(sqlite3.connect("file:{STATE}/state.sqlite3?mode=ro", uri=True).execute("PRAGMA user_version").fetchone()[0])
"""


def schema_version(host: Host) -> int:
    """Return the version of the state file, as SQLite sees it while the daemon writes."""
    return int(host.machine.output(f"python3 -c '{SCHEMA}'"))


def remove(host: Host) -> str:
    """Remove the package: nothing of it runs, settings and state stay."""
    pid = host.main_pid()
    host.machine.output(f"{APT} remove -y bpf-watchdog")
    require(host.machine.run(f"kill -0 {pid}").code != 0, "the daemon still runs")
    require(host.machine.run("pgrep -u bpf-watchdog").code != 0, "processes of the account still run")
    require(host.machine.run("command -v bpf-watchdog").code != 0, "the command is still there")
    host.machine.output("cat /etc/bpf-watchdog/rules.d/storm.toml /var/lib/bpf-watchdog/state.sqlite3 >/dev/null")
    return "settings and state stay"


def former(host: Host) -> str:
    """Install a version with an older state file: an alert fires, one is acknowledged, a notification is pending."""
    machine, notified = host.machine, host.notifications("system-test-storm", "firing")
    machine.output(f"rm -r {STATE}; rm /etc/bpf-watchdog/rules.d/*")
    host.write("/etc/bpf-watchdog/watchdog.toml", FORMER_SETTINGS)
    host.write("/etc/bpf-watchdog/rules.d/storm.toml", STORM_RULE)
    host.write("/etc/bpf-watchdog/rules.d/second.toml", SECOND_RULE)
    done = machine.run(f"{APT} install -y {host.former_package}")
    require(done.code == 0, f"apt-get install failed:\n{done.output}")
    host.await_daemon()
    host.start_storm()
    host.await_notification("system-test-storm", "firing", more_than=notified)
    host.fingerprint = host.storm_alert()["fingerprint"]
    [second] = [alert for alert in host.ask("alerts") if alert["rule"] == "system-test-second"]
    machine.output(f"bpf-watchdog ack {second['fingerprint']} --comment known")
    machine.output("bpf-watchdog silence add process=backup --for 6h --comment backup")
    host.silences = _silences(host)
    require(len(host.silences) == 2, f"silences: {host.silences}")
    host.late_id = _pending_to_late(host)
    return f"state file of version {schema_version(host)}, 1 notification pending"


def upgrade(host: Host) -> str:
    """Upgrade to the present version: settings, alerts, silences stay, and a pending notification is delivered once."""
    machine, pid, notified = host.machine, host.main_pid(), host.notifications("system-test-storm", "firing")
    settings, before = host.settings_digest(), schema_version(host)
    done = machine.run(f"{APT} install -y {host.package}")
    require(done.code == 0, f"apt-get install failed:\n{done.output}")
    host.await_daemon(other_than=pid)
    require(settings == host.settings_digest(), "the upgrade changed files of /etc/bpf-watchdog")
    known, after = int(machine.output("cat /usr/lib/bpf-watchdog/state-version")), schema_version(host)
    require(before < after == known, f"version of the state file: {before} before, {after} after, {known} expected")
    require(_silences(host) == host.silences, f"silences before {host.silences}, after {_silences(host)}")
    host.start_webhook(8098, LATE_POSTS)
    host.await_notification("system-test-storm", "firing", file=LATE_POSTS)
    host.require_restored(notified)
    late = [post["notification_id"] for post in host.posts(LATE_POSTS) if "system-test-storm" in post["groupKey"]]
    require(late == [host.late_id], f"pending before: {host.late_id}; delivered after: {late}")
    peak = machine.output(f"cat /sys/fs/cgroup$(systemctl show -P ControlGroup {UNIT})/memory.peak")
    resident = machine.output(f"grep VmRSS /proc/{host.main_pid()}/status").split()[1]
    memory = f"{int(resident) >> 10} MB resident, peak of the control group {int(peak) >> 20} MB"
    return f"state file from version {before} to {after}; {memory}"


def downgrade(host: Host) -> str:
    """Try to go back to a version that cannot read the state file: refused with the reason, the alert is kept."""
    notified = host.notifications("system-test-storm", "firing")
    done = host.machine.run(f"{APT} install -y --allow-downgrades {host.former_package}")
    require(done.code != 0, "the older version was installed")
    require("was written by a newer bpf-watchdog" in done.output, f"the reason is missing:\n{done.output}")
    require(not host.machine.output("dpkg --audit"), "the package is half installed")
    host.await_daemon()  # debhelper's postinst restarts the service after a refused upgrade too
    host.require_restored(notified)
    return "refused"


def purge(host: Host) -> str:
    """Purge the package: the file system is as before the installation, and so are the accounts."""
    host.machine.output(f"{APT} purge -y bpf-watchdog; systemctl daemon-reload")
    before = set(host.files_before.splitlines())
    after = set(host.machine.output(f"{SHARE}/list-files").splitlines())
    changed = sorted([f"- {line}" for line in before - after] + [f"+ {line}" for line in after - before])
    require(not changed, "the file system differs:\n" + "\n".join(changed[:40]))
    require(host.machine.output("cat /etc/passwd /etc/group") == host.accounts_before, "the accounts differ")
    failed = host.machine.output("systemctl list-units --all --plain --no-legend 'bpf-watchdog*'")
    require(not failed, f"units are left: {failed}")
    return f"{len(after)} paths as before"


def _silences(host: Host) -> frozenset[str]:
    """Return the ids of silences and acknowledgements."""
    return frozenset(silence["id"] for silence in host.ask("silence list")["silences"])


def _pending_to_late(host: Host) -> str:
    """Return the id of the notification about the storm that its receiver could not get yet."""
    found = host.ask("notifications list")
    wanted = ("late", "system-test-storm", "pending")
    pending = [one for one in found if (one["receiver"], one["group_key"], one["state"]) == wanted]
    require(len(pending) == 1, f"pending for the receiver that is down: {found}")
    return str(pending[0]["notification_id"])
