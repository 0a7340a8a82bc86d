"""The host that the steps of the system test act on."""

import json
import time
from dataclasses import dataclass
from typing import Any

from machine import GuestError, Machine

SHARE = "/run/system-test/share"
POSTS = "/var/tmp/posts.jsonl"
UNIT = "bpf-watchdog.service"
APT = "DEBIAN_FRONTEND=noninteractive apt-get -q"
SETTLE_SECONDS = 10.0  # several ticks of an emulated guest


class StepFailure(Exception):
    """The host does not behave as it must; the text has the reason."""


def require(condition: object, text: str) -> None:
    """Raise StepFailure with `text` unless `condition` holds."""
    if not condition:
        raise StepFailure(text)


@dataclass
class Host:
    """A guest and the facts that later steps compare with.

    Packages: paths in the guest. `late_id`: id of the notification that was pending before the upgrade.
    """

    machine: Machine
    former_package: str
    package: str
    files_before: str = ""
    accounts_before: str = ""
    fingerprint: str = ""
    late_id: str = ""
    silences: frozenset[str] = frozenset()

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
            f' && pid=$(systemctl show -P MainPID {UNIT}) && [ "$pid" != 0 ] && [ "$pid" != {other_than} ]'
        )

    def posts(self, file: str = POSTS) -> list[dict[str, Any]]:
        """Return the bodies that a webhook server has got, each with the path of its request."""
        return [json.loads(line) for line in self.machine.output(f"cat {file} 2>/dev/null || true").splitlines()]

    def notifications(self, rule: str, status: str, file: str = POSTS) -> int:
        """Return the number of alerts of a rule in the bodies that a webhook server has got."""
        alerts = [alert for post in self.posts(file) for alert in post["alerts"]]
        return sum(alert["labels"]["alertname"] == rule and alert["status"] == status for alert in alerts)

    def await_notification(
        self, rule: str, status: str, *, more_than: int = 0, file: str = POSTS, timeout: float = 300.0
    ) -> float:
        """Wait for a notification; return the seconds of waiting."""
        began = time.monotonic()
        while self.notifications(rule, status, file) <= more_than:
            if time.monotonic() > began + timeout:
                raise StepFailure(f"no notification: rule={rule} status={status}")
            time.sleep(0.5)
        return time.monotonic() - began

    def storm_alert(self) -> dict[str, Any]:
        """Return the alert of the storm, which must fire."""
        found = [alert for alert in self.ask("alerts") if alert["rule"] == "system-test-storm"]
        require(len(found) == 1 and found[0]["state"] == "firing", f"the alert of the storm does not fire: {found}")
        return dict(found[0])

    def require_restored(self, notified: int) -> None:
        """Require that the alert of the storm fires with its identity, and that nobody was notified again."""
        time.sleep(SETTLE_SECONDS)
        require(self.storm_alert()["fingerprint"] == self.fingerprint, "the alert has another fingerprint")
        now = self.notifications("system-test-storm", "firing")
        require(now == notified, f"notified again: {now} notifications instead of {notified}")

    def settings_digest(self) -> str:
        """Return the checksum of each file of /etc/bpf-watchdog."""
        return self.machine.output("cd /etc/bpf-watchdog; find . -type f | sort | xargs sha256sum")

    def start_storm(self) -> None:
        """Start a process that opens connections."""
        self.machine.output(f"systemd-run --unit=storm --collect python3 {SHARE}/storm.py")

    def start_webhook(self, port: int = 8099, file: str = POSTS) -> None:
        """Start a webhook server that appends each notification to a file."""
        self.machine.output(f"systemd-run --unit=webhook-{port} --collect python3 {SHARE}/webhook.py {port} {file}")
