"""Show bpf-watchdog at work: the shipped rules detect a connection storm and a byte spike on loopback, in a minute.

Start the daemon with a state folder of its own and one webhook receiver, which is this script; start two processes that
misbehave; print the daemon's lines; end with a table, and with exit code 1 if an alert was missing, late, or named the
wrong process.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(__file__).parent
COMMAND = Path(sys.executable).with_name("bpf-watchdog")
MISBEHAVE_SECONDS = 6
MAX_SECONDS = 50
START_SECONDS = 90  # the compiler of the programs is slow on a busy host
# Expected alerts: rule id -> process.
EXPECTED = {"outbound-connection-storm": "demo-storm", "bytes-sent-spike": "demo-spike"}
LIMIT_SECONDS = 3.0
CONFIG = """\
[[receiver]]
name = "terminal"
type = "console"

[[receiver]]
name = "demo"
type = "webhook"
url = "http://127.0.0.1:{port}/"

[routing]
default = ["terminal", "demo"]
group_interval = "1s"      # the default of a minute is too long for the demo
jitter = "0s"
"""


class Inbox(BaseHTTPRequestHandler):
    """The webhook receiver."""

    arrivals: queue.Queue[tuple[float, dict[str, object]]] = queue.Queue()

    def do_POST(self) -> None:
        """Keep the notification with the time of its arrival."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.arrivals.put((time.monotonic(), json.loads(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing between the lines of the daemon."""


def start_daemon(folder: Path, port: int) -> subprocess.Popen[str]:
    """Start the daemon, print its lines, and return once it has started."""
    config = folder / "watchdog.toml"
    config.write_text(CONFIG.format(port=port), encoding="utf-8")
    daemon = subprocess.Popen(
        [COMMAND, "run", "--config", config, "--state-dir", folder / "state"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    started = threading.Event()
    threading.Thread(target=show, args=(daemon, started), daemon=True).start()
    if not started.wait(START_SECONDS):
        daemon.kill()
        raise SystemExit(f"the daemon has not started within {START_SECONDS} s: this host is too busy for the demo")
    if daemon.poll() is not None:
        raise SystemExit("the daemon did not start: see its lines above")
    return daemon


def show(daemon: subprocess.Popen[str], started: threading.Event) -> None:
    """Print the daemon's lines, indented, and set `started` after the last one of its start, or after its end."""
    for line in daemon.stdout or ():
        print(f"    {line.rstrip()}", flush=True)
        if "SIGHUP" in line:  # the last line of its start
            started.set()
    daemon.wait()
    started.set()


def misbehave(folder: Path, name: str) -> tuple[subprocess.Popen[bytes], float]:
    """Start a process called `name` that misbehaves accordingly; return it and the time of its begin."""
    # The kernel takes the name that `ps` and alerts show from the program's file.
    program = folder / name
    program.symlink_to(Path(sys.executable).resolve())
    process = subprocess.Popen(
        [program, FOLDER / "misbehave.py", name, str(MISBEHAVE_SECONDS)],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    if process.stdout is not None:
        process.stdout.readline()  # printed when it begins
    return process, time.monotonic()


def collect_times(onsets: dict[str, float]) -> dict[str, dict[str, float]]:
    """Wait until every expected alert has fired and resolved; return the seconds from onset to each."""
    seconds: dict[str, dict[str, float]] = {rule: {} for rule in EXPECTED}
    end = time.monotonic() + MAX_SECONDS
    while any("resolved" not in times for times in seconds.values()):
        try:
            at, notification = Inbox.arrivals.get(timeout=max(0.1, end - time.monotonic()))
        except queue.Empty:
            break
        for alert in notification["alerts"]:  # type: ignore[attr-defined]
            labels = alert["labels"]
            rule = labels["alertname"]
            if EXPECTED.get(rule) == labels.get("process"):
                seconds[rule].setdefault(alert["status"], at - onsets[EXPECTED[rule]])
    return seconds


def report(times: dict[str, dict[str, float]]) -> bool:
    """Print the table; return whether every alert was in time."""
    in_time = True
    print(f"\n{'rule':<28}{'process':<19}{'notified after':<16}resolved after")
    for rule, process in EXPECTED.items():
        fired, resolved = times[rule].get("firing"), times[rule].get("resolved")
        in_time &= fired is not None and fired <= LIMIT_SECONDS and resolved is not None
        shown = [f"{seconds:.1f} s" if seconds is not None else "never" for seconds in (fired, resolved)]
        print(f"{rule:<28}{process:<19}{shown[0]:<16}{shown[1]}")
    print(
        "both notified in time, and resolved"
        if in_time
        else f"FAILED: both must be notified within {LIMIT_SECONDS:.0f} s, then resolved"
    )
    return in_time


def main() -> int:
    """Run the demo; return the exit code."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="bpf-watchdog-demo-"))
    folder.chmod(0o755)  # the daemon gives up root
    server = ThreadingHTTPServer(("127.0.0.1", 0), Inbox)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    processes: list[subprocess.Popen[bytes]] = []
    daemon: subprocess.Popen[str] | None = None
    try:
        print("starting the daemon on the shipped rules:")
        daemon = start_daemon(folder, server.server_port)
        onsets = {}
        for name, action in (("demo-storm", "300 connections a second"), ("demo-spike", "400 MB a second")):
            process, onsets[name] = misbehave(folder, name)
            processes.append(process)
            print(f"\n{name} begins: {action} over loopback, for {MISBEHAVE_SECONDS} s", flush=True)
        passed = report(collect_times(onsets))
    finally:
        for process in processes:
            process.kill()
            process.wait()
        if daemon is not None:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(10)
        server.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"the demo took {time.monotonic() - began:.0f} s; `make run` watches this host permanently", flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    if os.geteuid() != 0:
        raise SystemExit("the demo loads BPF programs: run it as root")
    sys.exit(main())
