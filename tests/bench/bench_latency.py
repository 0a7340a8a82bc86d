"""Time from the first connection of a storm to the request at the webhook: the real daemon, from kernel to HTTP.

Prints a Markdown table. The interval is 1 s and `for` is 0, so most of the time is the wait for the next tick; storms
start at random times between two ticks. The second row has default waits and two limits, which the rate passes one
after the other; its time is that of the critical notification. Needs root.

    python tests/bench/bench_latency.py [STORMS]
"""

from __future__ import annotations

import http.server
import json
import math
import queue
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

COMMAND = Path(sys.executable).with_name("bpf-watchdog")
STORM = Path(__file__).parents[1] / "integration/daemon/storm.py"
NAME = "bench-storm"
RATE = 500
PATIENCE_SECONDS = 15
PAUSE_SECONDS = 6  # between storms: more of them at a time are a burst, collected into one notification
CONFIG = """\
[[receiver]]
name = "hook"
type = "webhook"
url = "http://127.0.0.1:{port}/"

[routing]
jitter = "0s"
"""
NO_WAITS = 'group_interval = "0s"\n'
RULE = f"""\
[[rule]]
id = "storm"
summary = "{{process}}: {{value}}"
metric = "connects"
stat = "rate"
window = "2s"
by = ["process"]
where = {{ process = "{NAME}*" }}
"""
WARNING_LIMIT, CRITICAL_LIMIT = 10, 100


class Hook(http.server.BaseHTTPRequestHandler):
    """Keeps each notification with its time of arrival."""

    arrivals: queue.Queue[tuple[float, dict]] = queue.Queue()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.arrivals.put((time.monotonic(), json.loads(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        """Log nothing."""


class StormProcess:
    """The process that opens the connections of the storm."""

    def __init__(self, name):
        self.process = subprocess.Popen(
            [sys.executable, str(STORM), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.process.stdout.readline()

    def set_rate(self, rate):
        self.process.stdin.write(f"rage {rate}\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def start_daemon(folder, port, routing, limits):
    (folder / "watchdog.toml").write_text(CONFIG.format(port=port) + routing)
    (folder / "rules.toml").write_text(RULE + f"fire_above = {limits}\n")
    arguments = [
        "--config",
        folder / "watchdog.toml",
        "--rules",
        folder / "rules.toml",
        "--state-dir",
        folder / "state",
    ]
    daemon = subprocess.Popen(
        [COMMAND, "run", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    for line in daemon.stderr:
        if "SIGHUP" in line:
            threading.Thread(target=daemon.stderr.read, daemon=True).start()
            return daemon
    raise SystemExit("the daemon did not start")


def arrival(status, severity=None, process=None):
    wanted = {"severity": severity or "warning"} | ({"process": process} if process else {})
    while True:
        at, notification = Hook.arrivals.get(timeout=PATIENCE_SECONDS)
        for alert in notification["alerts"]:
            if alert["status"] == status and wanted.items() <= alert["labels"].items():
                return at


def measure_critical(storms):
    """Return the seconds to the critical notification; each storm is a process, and an alert, of its own."""
    seconds = []
    for number in range(storms):
        name = f"{NAME}{number}"
        storm_process = StormProcess(name)
        time.sleep(PAUSE_SECONDS + random.random())
        started = time.monotonic()
        storm_process.set_rate(RATE)
        seconds.append(arrival("firing", "critical", name) - started)
        storm_process.end()
    return seconds


def measure(storms):
    storm_process, seconds = StormProcess(NAME), []
    for _ in range(storms):
        time.sleep(random.random())
        started = time.monotonic()
        storm_process.set_rate(RATE)
        seconds.append(arrival("firing") - started)
        storm_process.set_rate(0)
        arrival("resolved")
    storm_process.end()
    return seconds


def run(storms, measurement, routing, limits):
    """Return median, 90th percentile and maximum of one measurement, with a daemon of its own."""
    folder = Path(tempfile.mkdtemp(prefix="bpf-watchdog-bench-"))
    folder.chmod(0o755)  # the daemon gives up root
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    daemon = start_daemon(folder, server.server_port, routing, limits)
    try:
        seconds = sorted(measurement(storms))
    finally:
        daemon.terminate()
        daemon.wait()
        server.shutdown()
        shutil.rmtree(folder)
    return statistics.median(seconds), seconds[math.ceil(0.9 * storms) - 1], seconds[-1]


def main():
    storms = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    print("| storm starts → webhook received | storms | median | p90 | max |")
    print("|---|---|---|---|---|")
    both = f"{{ warning = {WARNING_LIMIT}, critical = {CRITICAL_LIMIT} }}"
    for words, *options in (
        ("a limit of 1/s", measure, NO_WAITS, "1"),
        (f"{WARNING_LIMIT}/s and {CRITICAL_LIMIT}/s, critical, default waits", measure_critical, "", both),
    ):
        figures = run(storms, *options)
        print(f"| 1 s interval, {RATE}/s against {words} | {storms} |", *(f"{figure:.2f} s |" for figure in figures))


if __name__ == "__main__":
    main()
