"""Notifications under disturbed delivery: the real daemon next to Debian's Alertmanager, with the same hook.

Prints a Markdown table. Each case runs for an alert that lasts, and for one that ends during the disturbance; with hard
waits (group_wait 0 s, group_interval 1 s), with Alertmanager's defaults (30 s, 5 min), and the daemon also with its
own defaults (0 s, 60 s; if the kill comes during group_wait, 5 or 30 s). Alertmanager gets its alerts as from
Prometheus: firing and resolved alerts are posted repeatedly, also after its restart. Needs root, and the package
prometheus-alertmanager. All cases run at once: three minutes for the hard waits, eight for all.

    python tests/bench/bench_delivery.py [hard]
"""

from __future__ import annotations

import datetime as dt
import http.server
import ipaddress
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from watchdog import __version__

COMMAND = Path(sys.executable).with_name("bpf-watchdog")
STORM = Path(__file__).parents[1] / "integration/daemon/storm.py"
ALERTMANAGER = "prometheus-alertmanager"
HELD = 51
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Waits:
    """Durations of one column, in seconds.

    `group_wait_killed`: in place of `group_wait` if the kill comes while an alert waits. `resend`: until a source posts
    again. `watch`: maximum wait for a notification after the disturbance.
    """

    name: str
    group_wait: int
    group_wait_killed: int
    group_interval: int
    resend: int
    outage: int
    watch: int


# Alertmanager allows a flush at least 10 s: outages are longer. `watch` is longer than the maximum wait between two
# attempts of the daemon after that many refusals.
HARD = Waits("hard waits", 0, 5, 1, resend=5, outage=20, watch=150)
ALERTMANAGERS = Waits("its own waits", 30, 30, 300, resend=60, outage=120, watch=360)
OURS = Waits("its own waits", 0, 30, 60, resend=60, outage=120, watch=360)

# ------------------------------------------------------------------------------------------------------------- the hook


class Hook(http.server.ThreadingHTTPServer):
    """Receives notifications. A notification counts when the hook responded with 200."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HookHandler)
        self.received: list[tuple[float, str]] = []
        self.refused = self.hanging = 0
        self.refuse: Callable[[], int | None] = lambda: None  # the HTTP status of a refusal, None to accept
        self.hang = False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_: object) -> None:
        """Log nothing about clients that were killed."""


class HookHandler(http.server.BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if all(alert["labels"]["alertname"].startswith("watchdog-") for alert in document["alerts"]):
            self._answer(200)  # about the daemon itself on a busy machine, not about the disturbed alert
            return
        if self.server.hang:
            self.server.hanging += 1
            self.rfile.read(1)  # blocks until the client is killed
            return
        refusal = self.server.refuse()
        if refusal is None:
            self.server.received.append((time.monotonic(), document["status"]))
        self._answer(refusal or 200)
        self.server.refused += refusal is not None

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def wait_for(condition: Callable[[], object], awaited: str, seconds: float = PATIENCE_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"timeout: no {awaited}")
        time.sleep(0.02)


# --------------------------------------------------------------------------------------------------------- the subjects


class Subject:
    """A program that sends notifications about one alert."""

    def __init__(self, folder: Path, hook: Hook) -> None:
        self.folder = folder
        self.hook = hook
        self.process: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Watchdog(Subject):
    """The daemon, with its own process that causes the alert."""

    name = "bpf-watchdog"
    _starting = threading.Lock()  # each start compiles
    _count = 0

    def __init__(self, folder: Path, hook: Hook, waits: Waits, group_wait: int) -> None:
        super().__init__(folder, hook)
        with Watchdog._starting:
            Watchdog._count += 1
            name = f"disturbed-{Watchdog._count}"
        (folder / "watchdog.toml").write_text(f"""\
[sampling]
interval = "200ms"
[routing]
group_wait = "{group_wait}s"
group_interval = "{waits.group_interval}s"
jitter = "0s"
[[receiver]]
name = "hook"
type = "webhook"
url = "http://127.0.0.1:{hook.server_port}/"
""")
        (folder / "rules.toml").write_text(f"""\
[[rule]]
id = "disturbed"
summary = "{{process}} holds {{value}}"
metric = "open"
stat = "last"
window = "1s"
by = ["process"]
where = {{ process = "{name}", direction = "out" }}
fire_above = {HELD - 1}
""")
        self._log = folder / "log"
        self._storm_process = subprocess.Popen(
            [sys.executable, str(STORM), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._storm_process.stdout.readline()

    def start(self) -> None:
        files = ["--config", "watchdog.toml", "--rules", "rules.toml", "--state-dir", "state"]
        arguments = [name if name.startswith("--") else self.folder / name for name in files]
        with Watchdog._starting, self._log.open("wb") as log:
            self.process = subprocess.Popen([COMMAND, "run", *arguments], stdout=subprocess.DEVNULL, stderr=log)
            wait_for(lambda: b"SIGHUP" in self._log.read_bytes(), "start of the daemon")

    def start_alert(self) -> None:
        self._send_command(f"hold {HELD}")

    def has_alert(self) -> bool:
        return b"firing: disturbed" in self._log.read_bytes()

    def end_alert(self) -> None:
        self._send_command("release")

    def stop(self) -> None:
        self.kill()
        self._storm_process.stdin.close()
        self._storm_process.wait()

    def _send_command(self, command: str) -> None:
        self._storm_process.stdin.write(f"{command}\n")
        self._storm_process.stdin.flush()
        self._storm_process.stdout.readline()


class Alertmanager(Subject):
    """Debian's Alertmanager, with alerts as from Prometheus (rules/manager.go: endsAt is four resends ahead)."""

    name = "Alertmanager"
    _numbers = itertools.count(1)

    def __init__(self, folder: Path, hook: Hook, waits: Waits, group_wait: int) -> None:
        super().__init__(folder, hook)
        (folder / "alertmanager.yml").write_text(f"""\
route:
  receiver: hook
  group_by: [alertname]
  group_wait: {group_wait}s
  group_interval: {waits.group_interval}s
  repeat_interval: 4h
receivers:
  - name: hook
    webhook_configs:
      - url: http://127.0.0.1:{hook.server_port}/
        send_resolved: true
""")
        # Its own address: another process could have a port chosen by the kernel before the second start.
        own = ipaddress.IPv4Address("127.64.0.0") + (os.getpid() << 8) % 2**22 + next(self._numbers)
        self._address = f"{own}:9093"
        self._resend = waits.resend
        self._began = self._ended = 0.0
        self._stopping = threading.Event()
        self._source = threading.Thread(target=self._post_again, daemon=True)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                ALERTMANAGER,
                f"--config.file={self.folder}/alertmanager.yml",
                f"--storage.path={self.folder}/data",
                f"--web.listen-address={self._address}",
                "--cluster.listen-address=",
                "--log.level=error",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: self._get("/-/ready") is not None, "start of Alertmanager")

    def start_alert(self) -> None:
        self._began = time.time()
        wait_for(self._post, "alert accepted by Alertmanager")
        self._source.start()

    def has_alert(self) -> bool:
        return bool(json.loads(self._get("/api/v2/alerts") or "[]"))

    def end_alert(self) -> None:
        self._ended = time.time()
        self._post()

    def stop(self) -> None:
        self._stopping.set()
        self.kill()

    def _post_again(self) -> None:
        while not self._stopping.wait(self._resend):
            self._post()

    def _post(self) -> bool:
        ends = self._ended or time.time() + 4 * self._resend
        alert = {
            "labels": {"alertname": "disturbed"},
            "startsAt": timestamp(self._began),
            "endsAt": timestamp(ends),
        }
        return self._get("/api/v2/alerts", json.dumps([alert]).encode()) is not None

    def _get(self, path: str, body: bytes | None = None) -> bytes | None:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://{self._address}{path}", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                return response.read()
        except OSError:
            return None  # killed, or still starting: Prometheus also tries again at its next turn


def timestamp(wall: float) -> str:
    return dt.datetime.fromtimestamp(wall, dt.UTC).isoformat()


# ------------------------------------------------------------------------------------------------------------ the cases


def asked_to_wait(subject: Subject, hook: Hook, waits: Waits) -> Iterator[None]:
    """The hook responds once with 429."""
    statuses = iter([429])
    hook.refuse = lambda: next(statuses, None)
    subject.start_alert()
    wait_for(lambda: hook.refused, "refused notification")
    yield


def outage(subject: Subject, hook: Hook, waits: Waits) -> Iterator[None]:
    """The hook responds with 500 for some time."""
    hook.refuse = lambda: 500
    subject.start_alert()
    wait_for(lambda: hook.refused, "refused notification")
    time.sleep(waits.outage / 2)
    yield
    time.sleep(waits.outage / 2)
    hook.refuse = lambda: None


def killed_waiting(subject: Subject, hook: Hook, waits: Waits) -> Iterator[None]:
    """The subject is killed while the alert waits in its group."""
    subject.start_alert()
    wait_for(subject.has_alert, "alert in the subject")
    time.sleep(1)
    subject.kill()
    yield
    subject.start()


def killed_sending(subject: Subject, hook: Hook, waits: Waits) -> Iterator[None]:
    """The subject is killed while the response to the notification is outstanding."""
    hook.hang = True
    subject.start_alert()
    wait_for(lambda: hook.hanging, "notification")
    time.sleep(1)
    subject.kill()
    yield
    hook.hang = False
    subject.start()


CASES = {
    "429 once": asked_to_wait,
    "500 for {outage} s": outage,
    "SIGKILL while the alert waits in its group": killed_waiting,
    "SIGKILL with the answer outstanding": killed_sending,
}


def run(kind: type[Watchdog | Alertmanager], case: Callable[..., Iterator[None]], waits: Waits, *, lasts: bool) -> str:
    """Run one case; return a text with the notifications."""
    folder = Path(tempfile.mkdtemp(prefix="bpf-watchdog-bench-"))
    folder.chmod(0o755)  # the daemon gives up root
    hook = Hook()
    subject = kind(folder, hook, waits, waits.group_wait_killed if case is killed_waiting else waits.group_wait)
    try:
        subject.start()
        disturbance = case(subject, hook, waits)
        next(disturbance)
        if not lasts:
            subject.end_alert()
        for _ in disturbance:  # the disturbance ends
            pass
        recovered = time.monotonic()
        wanted = "firing" if lasts else "resolved"
        while not hook.received or hook.received[-1][1] != wanted:
            if time.monotonic() > recovered + waits.watch:
                break
            time.sleep(0.05)
    finally:
        subject.stop()
        hook.shutdown()
        hook.server_close()
        shutil.rmtree(folder)
    return describe(hook.received, recovered, wanted, waits.watch)


def describe(received: list[tuple[float, str]], recovered: float, wanted: str, watch: int) -> str:
    if not received:
        return f"**lost**: nothing in {watch} s"
    text = ", ".join(f"{status} after {max(0.0, at - recovered):.0f} s" for at, status in received)
    return text if received[-1][1] == wanted else f"**wrong**: {text}, no end in {watch} s"


def main() -> None:
    """Run all cases at once; print the table."""
    columns = [(Alertmanager, HARD), (Watchdog, HARD)]
    if "hard" not in sys.argv[1:]:
        columns += [
            (Alertmanager, ALERTMANAGERS),
            (Watchdog, replace(ALERTMANAGERS, name="Alertmanager's waits")),
            (Watchdog, OURS),
        ]
    rows = [(text, case, lasts) for text, case in CASES.items() for lasts in (True, False)]
    with ThreadPoolExecutor(len(rows) * len(columns)) as pool:
        cells = [
            [pool.submit(run, kind, case, waits, lasts=lasts) for kind, waits in columns] for _, case, lasts in rows
        ]
    shown = subprocess.run([ALERTMANAGER, "--version"], capture_output=True, text=True, check=True)
    version = (shown.stdout + shown.stderr).split(",")[1].split()[1]
    print(f"bpf-watchdog {__version__}, Alertmanager {version}, {dt.datetime.now(dt.UTC):%Y-%m-%d}\n")
    print("| disturbance | alert |", *(f"{kind.name}, {waits.name} |" for kind, waits in columns))
    print("|" + "---|" * (2 + len(columns)))
    outages = " or ".join(str(outage) for outage in sorted({waits.outage for _, waits in columns}))
    for (text, _, lasts), row_cells in zip(rows, cells, strict=True):
        alert = "lasts" if lasts else "ends meanwhile"
        print(f"| {text.format(outage=outages)} | {alert} |", *(f"{cell.result()} |" for cell in row_cells))


if __name__ == "__main__":
    main()
