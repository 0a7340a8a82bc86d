"""Time from the first connection of a storm to the request at the webhook: the real daemon, from kernel to HTTP.

Prints a Markdown row. The interval is 1 s and `for` is 0, so most of the time is the wait for the next tick; storms
start at random times between two ticks. Needs root.

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
CONFIG = """\
[[receiver]]
name = "hook"
type = "webhook"
url = "http://127.0.0.1:{port}/"

[routing]
group_interval = "0s"
jitter = "0s"
"""
RULE = f"""\
[[rule]]
id = "storm"
summary = "{{process}}: {{value}}"
metric = "connects"
stat = "rate"
window = "2s"
by = ["process"]
where = {{ process = "{NAME}" }}
fire_above = 1
"""


class Hook(http.server.BaseHTTPRequestHandler):
    """Keeps status and time of arrival of each notification."""

    arrivals: queue.Queue[tuple[float, str]] = queue.Queue()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.arrivals.put((time.monotonic(), json.loads(body)["status"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        """Log nothing."""


class StormProcess:
    """The process that opens the connections of the storm."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, str(STORM), NAME], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.process.stdout.readline()

    def set_rate(self, rate):
        self.process.stdin.write(f"rage {rate}\n")
        self.process.stdin.flush()
        self.process.stdout.readline()


def start_daemon(folder, port):
    (folder / "watchdog.toml").write_text(CONFIG.format(port=port))
    (folder / "rules.toml").write_text(RULE)
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


def arrival(status):
    while True:
        at, received_status = Hook.arrivals.get(timeout=PATIENCE_SECONDS)
        if received_status == status:
            return at


def measure(storms):
    storm_process, seconds = StormProcess(), []
    for _ in range(storms):
        time.sleep(random.random())
        started = time.monotonic()
        storm_process.set_rate(RATE)
        seconds.append(arrival("firing") - started)
        storm_process.set_rate(0)
        arrival("resolved")
    storm_process.process.stdin.close()
    storm_process.process.wait()
    return seconds


def main():
    storms = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    folder = Path(tempfile.mkdtemp(prefix="bpf-watchdog-bench-"))
    folder.chmod(0o755)  # the daemon gives up root
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    daemon = start_daemon(folder, server.server_port)
    try:
        seconds = sorted(measure(storms))
    finally:
        daemon.terminate()
        daemon.wait()
        server.shutdown()
        shutil.rmtree(folder)
    figures = (statistics.median(seconds), seconds[math.ceil(0.9 * storms) - 1], seconds[-1])
    print("| storm starts → webhook received | storms | median | p90 | max |")
    print("|---|---|---|---|---|")
    print(f"| 1 s interval, {RATE}/s against a limit of 1/s | {storms} |", *(f"{figure:.2f} s |" for figure in figures))


if __name__ == "__main__":
    main()
