"""Twenty daemons, each with its own host name, send to two Alertmanagers: they send one notification per alert.

Needs root (BPF, and a namespace for each host name). Arguments: number of daemons (default 20), of storms (default 3).
All daemons see the same storms, because they watch one kernel. Exit code 1 when an alert does not have exactly one
notification.
"""

import http.server
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tests/peers"))

import alertmanagers  # noqa: E402 - from where the tests have it

COMMAND = CHECKOUT / ".venv/bin/bpf-watchdog"
STORM = CHECKOUT / "tests/integration/daemon/storm.py"
NAME = "fleet-storm"
DEFAULTS = [20, 3]
PATIENCE_SECONDS = 120
SETTINGS = """
[[receiver]]
name = "fleet"
type = "alertmanager"
urls = {urls}
[routing]
group_interval = "1s"
"""
RULE = f"""
[[rule]]
id = "crowd"
summary = "{{process}} holds {{value}} (limit {{threshold}})"
metric = "open"
stat = "last"
window = "2s"
by = ["process"]
where = {{ process = "{NAME}", direction = "out" }}
fire_above = {{ critical = 50 }}
clear_below = {{ critical = 50 }}
"""


class Webhook(http.server.ThreadingHTTPServer):
    """Keeps the notifications of the Alertmanagers."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def notifications(self):
        """Return the number of notifications per (host, severity, status)."""
        return Counter(alertmanagers.notified_alerts(list(self.bodies)))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Log nothing."""


class Storm:
    """The process that all daemons see; see storm.py of the daemon's tests."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, STORM, NAME], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._process.stdout.readline()

    def send(self, command):
        print(command, file=self._process.stdin, flush=True)
        self._process.stdout.readline()

    def stop(self):
        self._process.stdin.close()
        self._process.wait(10)


def main():
    """Run the soak; return the exit code."""
    given = [int(word) for word in sys.argv[1:]]
    count, storms = [*given, *DEFAULTS[len(given) :]]
    with tempfile.TemporaryDirectory(prefix="bpf-watchdog-soak-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the daemons give up root
        webhook = Webhook()
        instances = alertmanagers.pair(folder, f"http://127.0.0.1:{webhook.server_port}/")
        daemons = []
        try:
            for instance in instances:
                instance.start()
            wait_for(lambda: all(instance.is_joined() for instance in instances), "cluster")
            configure(folder, instances)
            # One by one, each added at once: when one fails to start, the others are ended.
            daemons.extend(start(folder, f"host-{number}") for number in range(1, count + 1))
            return report(webhook, count, storms)
        finally:
            for process in daemons:
                process.terminate()
            for process in daemons:
                process.wait(30)
            for instance in instances:
                instance.kill()


def configure(folder, instances):
    """Write the files that all daemons read."""
    settings = folder / "watchdog.toml"
    settings.write_text(SETTINGS.format(urls=json.dumps([instance.url for instance in instances])))
    settings.chmod(0o644)
    rules = folder / "rules.d"
    rules.mkdir(0o755)
    (rules / "crowd.toml").write_text(RULE)


def start(folder, host):
    """Start the daemon of `host`, and return it when it runs: compiling uses the whole CPU."""
    log = folder / f"{host}.log"
    naming = f'echo {host} >/proc/sys/kernel/hostname; exec "$@"'
    arguments = [
        "run",
        "--config",
        folder / "watchdog.toml",
        "--rules",
        folder / "rules.d",
        "--state-dir",
        folder / host,
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["unshare", "--uts", "sh", "-c", naming, "sh", COMMAND, *arguments], stdout=output, stderr=output
        )
    ready = "SIGHUP reads the files again"
    wait_for(lambda: ready in log.read_text() or process.poll() is not None, f"start of {host}")
    if process.poll() is not None:
        raise SystemExit(log.read_text())
    return process


def report(webhook, count, storms):
    """Start and end storms, print the notifications as a table; return the exit code."""
    storm = Storm()
    expected = Counter()
    print("| | expected | received | missing | repeated | seconds to the last |\n|---|---|---|---|---|---|")
    good = True
    for number in range(1, storms + 1):
        for command, status in (("hold 51", "firing"), ("release", "resolved")):
            expected += Counter((f"host-{host}", "critical", status) for host in range(1, count + 1))
            began = time.monotonic()
            storm.send(command)
            received = webhook.notifications
            wait_for(lambda: all(received()[key] >= times for key, times in expected.items()), status, fatal=False)  # noqa: B023
            seconds = time.monotonic() - began
            time.sleep(alertmanagers.PEER_TIMEOUT_SECONDS + 3)
            found = received()
            missing, repeated = (expected - found).total(), (found - expected).total()
            good &= not missing and not repeated
            figures = (expected.total(), found.total(), missing, repeated, f"{seconds:.1f}")
            print(f"| storm {number} {status} | {' | '.join(map(str, figures))} |", flush=True)
    storm.stop()
    print("exactly one notification per alert" if good else "NOT exactly one notification per alert")
    return 0 if good else 1


def wait_for(condition, awaited, *, fatal=True):
    """Wait until `condition` holds, for a bounded time."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            if fatal:
                raise SystemExit(f"timeout: no {awaited}")
            return
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
