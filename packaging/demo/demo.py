"""Show the watchdog at work: a storm and a byte spike on loopback, told by the shipped rules, in under a minute.

Starts the daemon with its state in a folder of its own and one webhook receiver, which is this script; starts two
processes that misbehave; prints what the daemon says and when; ends with a table, and with exit code 1 if an alert was
missing, late, or named the wrong process.
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
LONGEST_SECONDS = 50
# What is to be told: rule, and the process at fault.
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
group_interval = "1s"      # the demo has no time for the default of a minute
jitter = "0s"
"""


class Inbox(BaseHTTPRequestHandler):
    """Receives what the daemon posts."""

    news: queue.Queue[tuple[float, dict[str, object]]] = queue.Queue()

    def do_POST(self) -> None:
        """Keep the notice with the time at which it came."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.news.put((time.monotonic(), json.loads(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: the daemon's own words are to be read."""


def start_daemon(folder: Path, port: int) -> subprocess.Popen[str]:
    """Start the daemon, print what it says, and return once it guards."""
    config = folder / "watchdog.toml"
    config.write_text(CONFIG.format(port=port), encoding="utf-8")
    daemon = subprocess.Popen(
        [COMMAND, "run", "--config", config, "--state-dir", folder / "state"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    guards = threading.Event()
    threading.Thread(target=show, args=(daemon, guards), daemon=True).start()
    if not guards.wait(20) or daemon.poll() is not None:
        daemon.kill()
        raise SystemExit("the daemon did not start: what it said is above")
    return daemon


def show(daemon: subprocess.Popen[str], guards: threading.Event) -> None:
    """Print the daemon's lines, indented, and tell when it guards."""
    for line in daemon.stdout or ():
        print(f"    {line.rstrip()}", flush=True)
        if "SIGHUP" in line:  # the last line of its introduction
            guards.set()
    guards.set()


def misbehave(folder: Path, name: str) -> tuple[subprocess.Popen[bytes], float]:
    """Start a process called `name` that does what its name says; return it and the time at which it began."""
    # Its own name in `ps` and in alerts: the kernel takes it from the program's file.
    program = folder / name
    program.symlink_to(Path(sys.executable).resolve())
    process = subprocess.Popen(
        [program, FOLDER / "misbehave.py", name, str(MISBEHAVE_SECONDS)],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    if process.stdout is not None:
        process.stdout.readline()  # it says when it begins
    return process, time.monotonic()


def follow(onsets: dict[str, float]) -> dict[str, dict[str, float]]:
    """Wait until every expected alert has fired and resolved; return the seconds from onset to each."""
    told: dict[str, dict[str, float]] = {rule: {} for rule in EXPECTED}
    end = time.monotonic() + LONGEST_SECONDS
    while any("resolved" not in times for times in told.values()):
        try:
            at, notification = Inbox.news.get(timeout=max(0.1, end - time.monotonic()))
        except queue.Empty:
            break
        for alert in notification["alerts"]:  # type: ignore[attr-defined]
            labels = alert["labels"]
            rule = labels["alertname"]
            if EXPECTED.get(rule) == labels.get("process"):
                told[rule].setdefault(alert["status"], at - onsets[EXPECTED[rule]])
    return told


def report(told: dict[str, dict[str, float]]) -> bool:
    """Print the table; return whether all was as promised."""
    good = True
    print(f"\n{'rule':<28}{'process at fault':<19}{'told after':<13}resolved after")
    for rule, process in EXPECTED.items():
        fired, resolved = told[rule].get("firing"), told[rule].get("resolved")
        good &= fired is not None and fired <= LIMIT_SECONDS and resolved is not None
        shown = [f"{seconds:.1f} s" if seconds is not None else "never" for seconds in (fired, resolved)]
        print(f"{rule:<28}{process:<19}{shown[0]:<13}{shown[1]}")
    print(
        "both told in time, and over" if good else f"NOT as promised: both within {LIMIT_SECONDS:.0f} s, then resolved"
    )
    return good


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
        for name, what in (("demo-storm", "300 connections a second"), ("demo-spike", "400 MB a second")):
            process, onsets[name] = misbehave(folder, name)
            processes.append(process)
            print(f"\n{name} begins: {what} over loopback, for {MISBEHAVE_SECONDS} s", flush=True)
        good = report(follow(onsets))
    finally:
        for process in processes:
            process.kill()
            process.wait()
        if daemon is not None:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(10)
        server.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"the demo took {time.monotonic() - began:.0f} s; `make run` guards this host for good", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    if os.geteuid() != 0:
        raise SystemExit("the demo loads BPF programs: run it as root")
    sys.exit(main())
