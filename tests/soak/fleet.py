"""Hundreds of daemons, each with its own host name, send to two Alertmanagers: each alert is notified once per state.

Each daemon is a process of its own; only its measurements are replayed (`replaying_daemon.py`). All run in a network
namespace of their own. Needs root. Arguments: number of daemons (default 200); `--light`, for a machine short of CPU:
one rule and ticks every 10 s, else the shipped rules and ticks every 2 s.
Exit code 1 when an alert has another number of notifications than one, firing and resolved, or a daemon ends. After a
member was started again, Alertmanager itself repeats a few.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "peers"))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a process with threads cannot be forked

import alertmanagers  # noqa: E402 - from where the tests have it
import replaying_daemon  # noqa: E402
from notification_webhook import NotificationWebhook  # noqa: E402

STARTS_AT_ONCE = 4
PATIENCE_SECONDS = 240
OBSERVED_SECONDS = 60
PEER_TIMEOUT_SECONDS = 5
SETTLED_SECONDS = 20  # after the last notification: a repetition would have come
STORMS_OF_ONE_HOST = 20
MAX_SHOWN = 10
# A member that was started again flushes its groups at other times than the other one. An alert that resolves then is
# notified once more, firing and resolved, if the other member flushes while it waits: PEER_TIMEOUT_SECONDS squared by
# twice the group_interval squared, 3 % here. Source: Alertmanager, notify/notify.go, WaitStage before DedupStage.
MAX_REPEATED_SHARE, MAX_REPEATED = 0.1, 2
# Each alert has a notification of its own at /hosts, where it must come once; people get one per rule, at /people.
CONFIGURATION = """
route:
  receiver: people
  group_by: [alertname]
  group_wait: 5s
  group_interval: 20s
  repeat_interval: 4h
  routes:
    - {{receiver: hosts, group_by: ['...'], continue: true}}
    - {{receiver: people}}
receivers:
  - name: hosts
    webhook_configs: [{{url: "{url}hosts", send_resolved: true}}]
  - name: people
    webhook_configs: [{{url: "{url}people", send_resolved: true}}]
"""
POSTED = [f'alertmanager_alerts_received_total{{status="{status}",version="v2"}}' for status in ("firing", "resolved")]
MEMORY = "process_resident_memory_bytes"
LIGHT_RULE = f"""
[[rule]]
id = "{replaying_daemon.STORM_RULE}"
summary = "{{process}} opens connections at {{value}} (limit {{threshold}})"
metric = "connects"
stat = "rate"
window = "20s"
by = ["process", "unit"]
fire_above = {{ warning = 50, critical = 500 }}
keep_firing_for = "10s"
"""
SETTINGS = """
[sampling]
interval = "{interval}"
[[receiver]]
name = "fleet"
type = "alertmanager"
urls = ["{urls}"]
"""


class Fleet:
    """The daemons, the Alertmanagers and the webhook behind them; `expected` counts notifications."""

    def __init__(self, folder, count, *, light):
        self.count = count
        self.hosts = [f"host-{number:03}" for number in range(1, count + 1)]
        self.storms = replaying_daemon.Storms(count)
        self.webhook = NotificationWebhook()
        self.members = alertmanagers.pair(folder, self.webhook.url, CONFIGURATION, PEER_TIMEOUT_SECONDS)
        self.expected = Counter()
        self._folder = folder
        self._pids = {}
        settings, rules = folder / "watchdog.toml", folder / "rules.d"
        rules.mkdir(0o755)
        self._options = ["--config", settings]
        if light:
            (rules / "storm.toml").write_text(LIGHT_RULE)
            self._options += ["--rules", rules]
        settings.write_text(
            SETTINGS.format(interval="10s" if light else "2s", urls='", "'.join(one.url for one in self.members))
        )
        settings.chmod(0o644)

    def start(self):
        """Start everything: the daemons first, while this process has no thread."""
        for first in range(0, self.count, STARTS_AT_ONCE):
            hosts = list(enumerate(self.hosts))[first : first + STARTS_AT_ONCE]
            for index, host in hosts:
                arguments = [*self._options, "--state-dir", self._folder / host]
                self._pids[host] = replaying_daemon.fork_daemon(host, arguments, self._log(host), self.storms, index)
            for _, host in hosts:
                wait_for(lambda: replaying_daemon.READY in self._log(host).read_text(), f"start of {host}")  # noqa: B023
        self.webhook.start()
        for member in self.members:
            member.start()
        wait_for(lambda: all(member.is_joined() for member in self.members), "cluster")

    def set_storms(self, hosts, processes):
        """Let each of the first `hosts` hosts have `processes` storming processes; expect their notifications."""
        for index in range(*hosts):
            for status, numbers in (
                ("firing", range(self.storms[index], processes)),
                ("resolved", range(processes, self.storms[index])),
            ):
                for number in numbers:
                    self.expected[self.hosts[index], replaying_daemon.storm_process(number), status] += 1
            self.storms[index] = processes

    def posted(self):
        """Return the number of alerts that each member was sent since it started; 0 while it does not run."""
        return [sum(member.metric(name) for name in POSTED) for member in self.members]

    def memory(self):
        """Return the memory of the daemons in MiB; what they share is counted once."""
        kilobytes = 0
        for pid in self._pids.values():
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return kilobytes / 1024

    def cpu_seconds(self):
        """Return the CPU time of the daemons so far."""
        stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self._pids.values()]
        return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")

    def ended(self):
        """Return the hosts whose daemons do not run."""
        states = {
            host: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            for host, pid in self._pids.items()
        }
        return [host for host, state in states.items() if state == "Z"]

    def stop(self):
        """End everything; return the hosts whose daemons did not end with 0."""
        for pid in self._pids.values():
            os.kill(pid, 15)
        codes = {host: os.waitpid(pid, 0)[1] for host, pid in self._pids.items()}
        for member in self.members:
            if member.process is not None:
                member.kill()
        self.webhook.stop()
        return [host for host, code in codes.items() if code]

    def _log(self, host):
        return self._folder / f"{host}.log"


class Report:
    """A table with one line per scenario; `good` while every alert was notified once per state."""

    def __init__(self, fleet):
        self.good = True
        self.in_phase = True  # the members flush at the same times
        self._fleet = fleet
        print("| scenario | expected | received | missing | repeated | s to the last | to people | alerts posted |")
        print("|---|---|---|---|---|---|---|---|")

    def run(self, scenario, change, observed_seconds=0, ready=lambda: True):
        """Call `change`, wait for the expected notifications and for `ready`; print the result."""
        fleet, webhook = self._fleet, self._fleet.webhook
        people, before = len(webhook.notifications("/people")), fleet.webhook.counts(replaying_daemon.STORM_RULE)
        expected, before_it, began = fleet.expected.copy(), fleet.posted(), time.monotonic()
        change()
        wait_for(lambda: self._is_complete() and ready(), scenario, fatal=False)
        seconds = time.monotonic() - began
        time.sleep(max(observed_seconds - seconds, SETTLED_SECONDS))
        found, wanted = webhook.counts(replaying_daemon.STORM_RULE) - before, fleet.expected - expected
        missing, repeated = (wanted - found).total(), (found - wanted).total()
        resolved = sum(times for alert, times in wanted.items() if alert[-1] == "resolved")
        allowed = 0 if self.in_phase else MAX_REPEATED + MAX_REPEATED_SHARE * resolved
        self.good &= not missing and repeated <= 2 * allowed
        took = f"{seconds:.1f}" if wanted else "–"
        notified = len(webhook.notifications("/people")) - people
        # A member that was started again counts from 0.
        counters = zip(fleet.posted(), before_it, strict=True)
        posted = sum(int(now - (0 if now < then else then)) for now, then in counters)
        figures = (wanted.total(), found.total(), missing, repeated, took, notified, posted)
        print(f"| {scenario} | {' | '.join(map(str, figures))} |", flush=True)
        for deviation, counts in (("missing", wanted - found), ("repeated", found - wanted)):
            for alert, times in sorted(counts.items())[:MAX_SHOWN]:
                print(f"  {deviation} {times}: {' '.join(alert)}", flush=True)

    def _is_complete(self):
        found = self._fleet.webhook.counts(replaying_daemon.STORM_RULE)
        return all(found[key] >= times for key, times in self._fleet.expected.items())


def main():
    """Run the soak; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("daemons", type=int, nargs="?", default=200)
    parser.add_argument("--light", action="store_true")
    args = parser.parse_args()
    replaying_daemon.enter_own_network()
    replaying_daemon.import_everything()
    with tempfile.TemporaryDirectory(prefix="bpf-watchdog-soak-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the daemons give up root
        fleet, failed = Fleet(folder, args.daemons, light=args.light), []
        try:
            fleet.start()
            good = run_scenarios(fleet)
            show_others(fleet)
        finally:
            failed = fleet.stop()
        if failed:
            print(f"daemons that did not end with 0: {', '.join(failed)}")
    good &= not failed
    print("one notification per alert and state" if good else "NOT one notification per alert and state")
    return 0 if good else 1


def run_scenarios(fleet):
    """Run one scenario after another; return whether each alert was notified once per state."""
    everyone, half = (0, fleet.count), (0, fleet.count // 2)
    others = (fleet.count // 2, fleet.count)
    report = Report(fleet)
    cpu_seconds = fleet.cpu_seconds()
    report.run(f"at rest, {OBSERVED_SECONDS} s", bool, OBSERVED_SECONDS)
    at_rest = (fleet.cpu_seconds() - cpu_seconds) / OBSERVED_SECONDS
    report.run("storms of one host begin", lambda: fleet.set_storms((0, 1), STORMS_OF_ONE_HOST))
    report.run("… end", lambda: fleet.set_storms((0, 1), 0))
    report.run("every host has a storm", lambda: fleet.set_storms(everyone, 1), OBSERVED_SECONDS + SETTLED_SECONDS)
    report.run("a member is killed, half of the hosts have another storm", lambda: kill_member(fleet, half))
    report.run("it returns, and learns every alert", fleet.members[0].start, ready=lambda: knows_all(fleet))
    report.in_phase = False
    report.run("both unreachable for a minute, storms begin and end", lambda: cut_off(fleet, half, others))
    alerts = sum(fleet.storms[index] for index in range(fleet.count))
    sizes = [f"{member.metric(MEMORY) / 2**20:.0f}" for member in fleet.members]
    report.run("every storm ends", lambda: fleet.set_storms(everyone, 0))
    ended = fleet.ended()
    memory = fleet.memory() / fleet.count
    print(f"\nmemory of a daemon {memory:.0f} MiB, CPU at rest {at_rest / fleet.count:.2%}")
    print(f"memory of the Alertmanagers with {alerts} alerts {' and '.join(sizes)} MiB")
    if ended:
        print(f"daemons that ended: {', '.join(ended)}")
    return report.good and not ended


def kill_member(fleet, hosts):
    """Kill the member that notifies first, then let `hosts` have a second storm."""
    fleet.members[0].kill()
    fleet.set_storms(hosts, 2)


def knows_all(fleet):
    """Return whether both members have every alert that fires."""
    firing = sum(fleet.storms[index] for index in range(fleet.count))
    return all(member.count_alerts(replaying_daemon.STORM_RULE) == firing for member in fleet.members)


def cut_off(fleet, ending, beginning):
    """Drop all packets to the members for a minute, while storms begin and end."""
    ports = ",".join(member.url.rpartition(":")[2] for member in fleet.members)
    rules = f"table inet cut {{ chain input {{ type filter hook input priority 0; tcp dport {{ {ports} }} drop; }}; }}"
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    fleet.set_storms(ending, 1)
    fleet.set_storms(beginning, 2)
    time.sleep(OBSERVED_SECONDS)
    subprocess.run(["nft", "delete", "table", "inet", "cut"], check=True)


def show_others(fleet):
    """Print the number of notifications about other rules, and the sizes of those that people get."""
    found = fleet.webhook.rules()
    others = {rule: counts for rule, counts in found.items() if rule != replaying_daemon.STORM_RULE}
    for rule, counts in others.items():
        print(f"{rule}: {counts['firing']} firing, {counts['resolved']} resolved")
    bodies = [one for one in fleet.webhook.notifications("/people") if one.alerts[0][0] == replaying_daemon.STORM_RULE]
    sizes = ", ".join(f"{len(one.alerts)} alerts {one.length / 1000:.0f} kB" for one in bodies)
    print(f"notifications to people about the storms: {sizes}")


def wait_for(condition, awaited, *, fatal=True):
    """Wait until `condition` holds, for a bounded time."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            if fatal:
                raise SystemExit(f"timeout: no {awaited}")
            return
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
