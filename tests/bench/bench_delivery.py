"""What is told when delivery is disturbed: the real daemon beside Debian's Alertmanager, before the same hook.

Prints a Markdown table. Each case is run for an alert that lasts and for one that ends while it cannot be told; with
hard waits (group_wait 0 s, group_interval 1 s), with Alertmanager's own (30 s, 5 min), and the daemon with its own too
(0 s, 60 s; where the kill is to come in group_wait, that is 5 or 30 s). Alertmanager is fed as Prometheus does it: what
fires and what has ended is posted again and again, also to one that was restarted. Needs root, and the package
prometheus-alertmanager. All cases run at once: three minutes for the hard waits alone, eight for all.

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
    """How long things take: `group_wait` and `group_interval`, until a source posts again, an outage, a watch for news.

    All in seconds. `group_wait_killed` stands in where the kill is to come while an alert waits.
    """

    name: str
    group_wait: int
    group_wait_killed: int
    group_interval: int
    resend: int
    outage: int
    watch: int


# Alertmanager gives a flush 10 s at least: outages are longer than that. Watches are longer than the longest wait
# between two tries of ours after so many refusals.
HARD = Waits("hard waits", 0, 5, 1, resend=5, outage=20, watch=150)
ALERTMANAGERS = Waits("its own waits", 30, 30, 300, resend=60, outage=120, watch=360)
OURS = Waits("its own waits", 0, 30, 60, resend=60, outage=120, watch=360)

# ------------------------------------------------------------------------------------------------------------- the hook


class Hook(http.server.ThreadingHTTPServer):
    """Takes notices, and keeps what it has taken: a notice counts when 200 was answered."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HookHandler)
        self.told: list[tuple[float, str]] = []
        self.refused = self.hanging = 0
        self.refuse: Callable[[], int | None] = lambda: None  # the status to refuse with
        self.hang = False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that were killed."""


class HookHandler(http.server.BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.hang:
            self.server.hanging += 1
            self.rfile.read(1)  # until it is killed
            return
        refusal = self.server.refuse()
        if refusal is None:
            self.server.told.append((time.monotonic(), document["status"]))
        self.send_response(refusal or 200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.refused += refusal is not None

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def wait_for(condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"waited in vain for {what}")
        time.sleep(0.02)


# --------------------------------------------------------------------------------------------------------- the subjects


class Subject:
    """Something that tells of one alert."""

    def __init__(self, folder: Path, hook: Hook) -> None:
        self.folder = folder
        self.hook = hook
        self.process: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Ours(Subject):
    """The daemon, with a process of its own to be told of."""

    name = "bpf-watchdog"
    _starting = threading.Lock()  # each compiles
    _count = 0

    def __init__(self, folder: Path, hook: Hook, waits: Waits, group_wait: int) -> None:
        super().__init__(folder, hook)
        with Ours._starting:
            Ours._count += 1
            name = f"disturbed-{Ours._count}"
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
        self._culprit = subprocess.Popen(
            [sys.executable, str(STORM), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._culprit.stdout.readline()

    def start(self) -> None:
        files = ["--config", "watchdog.toml", "--rules", "rules.toml", "--state-dir", "state"]
        arguments = [name if name.startswith("--") else self.folder / name for name in files]
        with Ours._starting, self._log.open("wb") as log:
            self.process = subprocess.Popen([COMMAND, "run", *arguments], stdout=subprocess.DEVNULL, stderr=log)
            wait_for(lambda: b"SIGHUP" in self._log.read_bytes(), "the daemon to start")

    def begin(self) -> None:
        self._order(f"hold {HELD}")

    def knows(self) -> bool:
        return b"firing: disturbed" in self._log.read_bytes()

    def end(self) -> None:
        self._order("release")

    def stop(self) -> None:
        self.kill()
        self._culprit.stdin.close()
        self._culprit.wait()

    def _order(self, order: str) -> None:
        self._culprit.stdin.write(f"{order}\n")
        self._culprit.stdin.flush()
        self._culprit.stdout.readline()


class Alertmanager(Subject):
    """Debian's, fed as Prometheus does it (rules/manager.go: endsAt is four times the resend away)."""

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
        # An address of its own: a port that the kernel chose could be another's by the time of the second start.
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
        wait_for(lambda: self._get("/-/ready") is not None, "Alertmanager to start")

    def begin(self) -> None:
        self._began = time.time()
        wait_for(self._post, "Alertmanager to take the alert")
        self._source.start()

    def knows(self) -> bool:
        return bool(json.loads(self._get("/api/v2/alerts") or "[]"))

    def end(self) -> None:
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
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.read()
        except OSError:
            return None  # killed, or still starting: Prometheus tries again at its next turn too


def timestamp(wall: float) -> str:
    return dt.datetime.fromtimestamp(wall, dt.UTC).isoformat()


# ------------------------------------------------------------------------------------------------------------ the cases


def asked_to_wait(subject: Subject, hook: Hook, waits: Waits) -> Iterator[None]:
    """The hook answers 429 once."""
    answers = iter([429])
    hook.refuse = lambda: next(answers, None)
    subject.begin()
    wait_for(lambda: hook.refused, "the refused notice")
    yield


def outage(subject: Subject, hook: Hook, waits: Waits) -> Iterator[None]:
    """The hook answers 500 for a while."""
    hook.refuse = lambda: 500
    subject.begin()
    wait_for(lambda: hook.refused, "the refused notice")
    time.sleep(waits.outage / 2)
    yield
    time.sleep(waits.outage / 2)
    hook.refuse = lambda: None


def killed_waiting(subject: Subject, hook: Hook, waits: Waits) -> Iterator[None]:
    """It is killed while the alert waits in its group."""
    subject.begin()
    wait_for(subject.knows, "the alert to be known")
    time.sleep(1)
    subject.kill()
    yield
    subject.start()


def killed_sending(subject: Subject, hook: Hook, waits: Waits) -> Iterator[None]:
    """It is killed while the answer to the notice is outstanding."""
    hook.hang = True
    subject.begin()
    wait_for(lambda: hook.hanging, "the notice")
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


def run(kind: type[Ours | Alertmanager], case: Callable[..., Iterator[None]], waits: Waits, *, lasts: bool) -> str:
    """Run one case; return in words what was told."""
    folder = Path(tempfile.mkdtemp(prefix="bpf-watchdog-bench-"))
    folder.chmod(0o755)  # the daemon gives up root
    hook = Hook()
    subject = kind(folder, hook, waits, waits.group_wait_killed if case is killed_waiting else waits.group_wait)
    try:
        subject.start()
        disturbance = case(subject, hook, waits)
        next(disturbance)
        if not lasts:
            subject.end()
        for _ in disturbance:  # it passes
            pass
        recovered = time.monotonic()
        wanted = "firing" if lasts else "resolved"
        while not hook.told or hook.told[-1][1] != wanted:
            if time.monotonic() > recovered + waits.watch:
                break
            time.sleep(0.05)
    finally:
        subject.stop()
        hook.shutdown()
        hook.server_close()
        shutil.rmtree(folder)
    return words(hook.told, recovered, wanted, waits.watch)


def words(told: list[tuple[float, str]], recovered: float, wanted: str, watch: int) -> str:
    if not told:
        return f"**lost**: nothing in {watch} s"
    said = ", ".join(f"{status} after {max(0.0, at - recovered):.0f} s" for at, status in told)
    return said if told[-1][1] == wanted else f"**wrong**: {said}, no end in {watch} s"


def main() -> None:
    """Run all cases at once; print the table."""
    columns = [(Alertmanager, HARD), (Ours, HARD)]
    if "hard" not in sys.argv[1:]:
        columns += [
            (Alertmanager, ALERTMANAGERS),
            (Ours, replace(ALERTMANAGERS, name="Alertmanager's waits")),
            (Ours, OURS),
        ]
    rows = [(text, case, lasts) for text, case in CASES.items() for lasts in (True, False)]
    with ThreadPoolExecutor(len(rows) * len(columns)) as pool:
        cells = [
            [pool.submit(run, kind, case, waits, lasts=lasts) for kind, waits in columns] for _, case, lasts in rows
        ]
    said = subprocess.run([ALERTMANAGER, "--version"], capture_output=True, text=True, check=True)
    version = (said.stdout + said.stderr).split(",")[1].split()[1]
    print(f"bpf-watchdog {__version__}, Alertmanager {version}, {dt.datetime.now(dt.UTC):%Y-%m-%d}\n")
    print("| disturbance | alert |", *(f"{kind.name}, {waits.name} |" for kind, waits in columns))
    print("|" + "---|" * (2 + len(columns)))
    outages = " or ".join(str(outage) for outage in sorted({waits.outage for _, waits in columns}))
    for (text, _, lasts), told in zip(rows, cells, strict=True):
        alert = "lasts" if lasts else "ends meanwhile"
        print(f"| {text.format(outage=outages)} | {alert} |", *(f"{cell.result()} |" for cell in told))


if __name__ == "__main__":
    main()
