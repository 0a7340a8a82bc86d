"""Steps with the running daemon: it guards, confined, through crashes, reloads, clock steps and a reboot."""

import re
import time

from configuration import BROKEN_RULE, QUIET_RULE
from host import APT, SETTLE_SECONDS, SHARE, UNIT, Host, require

MAX_EXPOSURE = 2.0
NO_CAPABILITY = "0000000000000000"
CORE = "/var/tmp/core"
LATE_NAME = "late-name"
KNOWS_LATE_NAME = f'bpf-watchdog status --json 2>/dev/null | grep -F \'"host": "{LATE_NAME}"\''
# One block for each thread of the service.
THREADS = f"""\
for thread in $(cat /sys/fs/cgroup$(systemctl show -P ControlGroup {UNIT})/cgroup.threads); do
  echo "thread $thread"
  grep -E '^(Name|Tgid|Uid|Cap...|NoNewPrivs|Seccomp):' /proc/$thread/status
  grep 'Max core file size' /proc/$thread/limits
done
"""
# Names of the files with entries of the service.
FILES_OF_JOURNAL = f"""\
cd /var/log/journal/*
for file in *; do
  [ -z "$(journalctl -q --file=$file -n 1 -o cat _SYSTEMD_UNIT={UNIT})" ] || printf '%s ' $file
done
"""


def install(host: Host) -> str:
    """Install the package on a host without it: the service guards at once, by the shipped rules."""
    host.files_before = host.machine.output(f"{SHARE}/list-files")
    host.accounts_before = host.machine.output("cat /etc/passwd /etc/group")
    done = host.machine.run(f"{APT} install -y {host.package}")
    require(done.code == 0, f"apt-get install failed:\n{done.output}")
    host.await_daemon()
    require(host.machine.output(f"systemctl is-enabled {UNIT}") == "enabled", "the service is not enabled")
    status = host.ask("status")
    require(status["rules"]["count"] >= 5, f"the shipped rules are not in force: {status['rules']}")
    require(status["account"] == "bpf-watchdog", f"the daemon runs as {status['account']}")
    text = host.machine.output(f"systemctl show -P StatusText {UNIT}")
    require(text == f"watching by {status['rules']['count']} rules", f"status line: {text}")
    return f"active, {status['rules']['count']} rules"


def storm(host: Host) -> str:
    """Start a connection storm: the alert arrives at the webhook server."""
    host.start_storm()
    seconds = host.await_notification("system-test-storm", "firing")
    host.fingerprint = host.storm_alert()["fingerprint"]
    return f"notified {seconds:.0f} s after the start of the storm"


def confinement(host: Host) -> str:
    """Look at all threads of the service: exposure, capabilities, core dumps, settings that it cannot change."""
    machine, pid = host.machine, host.main_pid()
    score = machine.output(f"systemd-analyze security --no-pager {UNIT} | tail -n 1")
    [exposure] = re.findall(r"exposure level for \S+: ([\d.]+)", score)
    require(float(exposure) <= MAX_EXPOSURE, f"exposure {exposure}")
    account = machine.output("id -u bpf-watchdog")
    threads = machine.output(THREADS).split("thread ")[1:]
    processes = {_require_confined(text, account) for text in threads}
    require(str(pid) in processes, f"the daemon {pid} is not in the control group: {processes}")
    owner = machine.output("stat -c '%U %a' /etc/bpf-watchdog")
    require(owner.startswith("root ") and not int(owner.split()[1], 8) & 0o022, f"/etc/bpf-watchdog: {owner}")
    for path in ("/etc/bpf-watchdog/x", "/etc/bpf-watchdog/watchdog.toml", "/usr/lib/bpf-watchdog/x"):
        refused = machine.run(f"LC_ALL=C nsenter -t {pid} -m touch {path}").output
        require("Read-only file system" in refused, f"{path} can be written, even as root: {refused}")
    return f"exposure {exposure}, no capability in {len(threads)} threads of {len(processes)} processes"


def _require_confined(text: str, account: str) -> str:
    """Require that a thread has no capability and no core dump; return the id of its process."""
    status = dict(re.findall(r"(\w+):\s*(.*)", text))
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        require(status[name] == NO_CAPABILITY, f"{name} of a thread:\n{text}")
    require((status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), f"NoNewPrivs, or filter of system calls:\n{text}")
    require(status["Uid"].split() == [account] * 4, f"not of the account:\n{text}")
    require(re.search(r"Max core file size +0 +0 ", text), f"core dumps are possible:\n{text}")
    return status["Tgid"]


def journal(host: Host) -> str:
    """Read the journal as root and as a member of the group adm: both see the daemon's lines and the alert."""
    for reader in ("", "setpriv --reuid=nobody --regid=nogroup --groups=adm "):
        lines = host.machine.output(f"{reader}journalctl -q -o cat -u {UNIT}")
        require("runs as bpf-watchdog" in lines, f"{reader}journalctl has no line of the daemon:\n{lines}")
        alerts = host.machine.output(f"{reader}journalctl -q -o cat -u {UNIT} WATCHDOG_RULE=system-test-storm")
        require("storm opens connections" in alerts, f"{reader}journalctl has no alert:\n{alerts}")
    files = host.machine.output(FILES_OF_JOURNAL)
    return f"entries in {files}"


def host_name(host: Host) -> str:
    """Set the host's name late, as cloud-init may: notifications from then on have the new one."""
    host.machine.output(f"hostname {LATE_NAME}")
    return f"known {host.machine.until(KNOWS_LATE_NAME):.0f} s later"


def kill(host: Host) -> str:
    """Kill the daemon in the storm: it is restarted, the alert is restored, and nobody is notified again."""
    pid, notified = host.main_pid(), host.notifications("system-test-storm", "firing")
    host.machine.output(f"kill -KILL {pid}")
    seconds = host.await_daemon(other_than=pid)
    host.require_restored(notified)
    return f"guarding again after {seconds:.0f} s"


def terminate(host: Host) -> str:
    """Send SIGTERM, as any tool could by mistake: it is restarted."""
    pid = host.main_pid()
    host.machine.output(f"kill -TERM {pid}")
    return f"guarding again after {host.await_daemon(other_than=pid):.0f} s"


def hang(host: Host) -> str:
    """Stop the daemon's process: systemd's watchdog restarts it, and a program for core dumps gets none."""
    pid = host.main_pid()
    host.machine.output(f"echo '|/usr/bin/dd of={CORE}.%P' >/proc/sys/kernel/core_pattern")
    host.machine.until(f"sh -c 'kill -ABRT $$'; ls {CORE}.*")  # of another program: LimitCORE= does not stop it
    host.machine.output(f"rm {CORE}.*; kill -STOP {pid}")
    seconds = host.await_daemon(other_than=pid)
    log = host.machine.output(f"journalctl -q -o cat -u {UNIT} | grep -c 'Watchdog timeout' || true")
    require(log != "0", "the restart was not that of systemd's watchdog")
    require(host.machine.run(f"ls {CORE}.*").code != 0, "there is a core dump")
    return f"guarding again after {seconds:.0f} s"


def good_reload(host: Host) -> str:
    """Add a rule and reload: `systemctl reload` returns when the rule is in force, and the status line has the time."""
    before = host.ask("status")["rules"]["count"]
    host.write("/etc/bpf-watchdog/rules.d/quiet.toml", QUIET_RULE)
    done = host.machine.run(f"systemctl reload {UNIT}")
    require(done.code == 0, f"systemctl reload: {done.output}")
    require(host.ask("status")["rules"]["count"] == before + 1, "the rule is not in force when the reload returns")
    text = host.machine.output(f"systemctl show -P StatusText {UNIT}")
    require(re.fullmatch(rf"watching by {before + 1} rules, reloaded at .* UTC", text), f"status line: {text}")
    return text


def bad_reload(host: Host) -> str:
    """Break a rule and reload: it fails, the old rules stay, an alert reports it and resolves after the repair."""
    before, pid = host.ask("status")["rules"], host.main_pid()
    host.write("/etc/bpf-watchdog/rules.d/quiet.toml", BROKEN_RULE)
    done = host.machine.run(f"systemctl reload {UNIT}")
    require(done.code != 0, "systemctl reload succeeded with a broken rule")
    require(host.ask("status")["rules"]["sha256"] == before["sha256"], "other rules are in force")
    require(host.main_pid() == pid, "the daemon was restarted")
    shown = host.machine.run(f"systemctl status --no-pager -n 30 {UNIT}").output
    require("reload refused" in shown and 'unknown metric "conects"' in shown, f"systemctl status:\n{shown}")
    text = host.machine.output(f"systemctl show -P StatusText {UNIT}")
    require("reload refused" in text, f"status line: {text}")
    seconds = host.await_notification("watchdog-reload-refused", "firing")
    host.write("/etc/bpf-watchdog/rules.d/quiet.toml", QUIET_RULE)
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
    host.require_restored(notified)
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
    host.require_restored(notified)
    return f"up after {seconds:.0f} s, alert restored"
