"""Real things to work with: servers that keep what arrives, a rsyslog, the daemon, a process that storms."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PATIENCE = 15.0
COMMAND = Path(sys.executable).with_name("bpf-watchdog")
STORM = Path(__file__).with_name("storm.py")


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until `condition` holds, for a bounded time."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


@pytest.fixture
def wait_for() -> Callable[[Callable[[], object], str], None]:
    """Return a function that waits until a condition holds, for a bounded time."""
    return until


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that every account can enter: the daemon gives up root, pytest's own folders are root's."""
    folder = Path(tempfile.mkdtemp(prefix="bpf-watchdog-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------------ HTTP and syslog


class KeepingServer(http.server.ThreadingHTTPServer):
    """Answers every POST with `answer` and keeps what was posted, (path, headers, body), before it answers.

    While `answering` is cleared, requests are kept and left waiting for their answer.
    """

    daemon_threads = True

    def __init__(self, port: int, context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", port), KeepingHandler)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.posts: list[tuple[str, dict[str, str], bytes]] = []
        self.answer: tuple[int, dict[str, str], bytes] = (200, {}, b"ok")
        self.answering = threading.Event()
        self.answering.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/in/secret-path?token=secret-token"

    def documents(self) -> list[tuple[str, dict]]:
        """Return (notification id, parsed body) of all that came, copies included."""
        return [(headers["X-Notification-Id"], json.loads(body)) for _, headers, body in list(self.posts)]

    def notices(self) -> dict[str, dict]:
        """Return the bodies by notification id, in the order of their first arrival."""
        return dict(self.documents())

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that were killed, or broke off a handshake."""


class KeepingHandler(http.server.BaseHTTPRequestHandler):
    server: KeepingServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append((self.path, dict(self.headers), body))
        self.server.answering.wait()
        status, headers, content = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def start_server() -> Iterator[Callable[..., KeepingServer]]:
    """Return a function that serves HTTP (HTTPS with a context) on a port of 127.0.0.1, a free one by itself."""
    running: list[tuple[KeepingServer, threading.Thread]] = []

    def start(port: int = 0, context: ssl.SSLContext | None = None) -> KeepingServer:
        server = KeepingServer(port, context)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.answering.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server(start_server: Callable[..., KeepingServer]) -> KeepingServer:
    """Serve HTTP on a free port of 127.0.0.1."""
    return start_server()


@pytest.fixture
def other_server(start_server: Callable[..., KeepingServer]) -> KeepingServer:
    """Serve HTTP on another port."""
    return start_server()


@pytest.fixture
def unused_port() -> Callable[[int], int]:
    """Return a function that returns a port of 127.0.0.1 on which nobody listens."""
    return free_port


def free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


RSYSLOG_PORTS = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM, "ptcp": socket.SOCK_STREAM}
RSYSLOG_CONFIGURATION = """
module(load="imuxsock" sysSock.use="off")
module(load="imudp")
module(load="imtcp")
module(load="imptcp")
template(name="facts" type="list" option.jsonf="on") {{
    property(outname="pri" name="pri" format="jsonf")
    property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
    property(outname="host" name="hostname" format="jsonf")
    property(outname="app" name="app-name" format="jsonf")
    property(outname="procid" name="procid" format="jsonf")
    property(outname="msgid" name="msgid" format="jsonf")
    property(outname="data" name="structured-data" format="jsonf")
    property(outname="msg" name="msg" format="jsonf")
    property(outname="raw" name="rawmsg" format="jsonf")
}}
input(type="imuxsock" socket="{folder}/log" useSpecialParser="on")
input(type="imuxsock" socket="{folder}/log5424" useSpecialParser="off" parseHostname="on" ignoreTimestamp="off")
input(type="imudp" address="127.0.0.1" port="{udp}")
input(type="imtcp" address="127.0.0.1" port="{tcp}")
input(type="imptcp" address="127.0.0.1" port="{ptcp}")
action(type="omfile" file="{folder}/arrived" template="facts")
"""


class Rsyslog:
    """A rsyslogd of our own, with all it needs in one folder."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("rsyslogd", path="/usr/sbin:/sbin:" + os.environ["PATH"])
        assert program is not None, "these tests need rsyslog: apt-get install rsyslog"
        self.folder = folder
        self.ports = {name: free_port(kind) for name, kind in RSYSLOG_PORTS.items()}
        configuration = folder / "rsyslog.conf"
        configuration.write_text(RSYSLOG_CONFIGURATION.format(folder=folder, **self.ports))
        self._command = [program, "-n", "-f", str(configuration), "-i", str(folder / "pid")]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def address(self, wire: str) -> str:
        if wire in self.ports:
            return f"{wire.removeprefix('p')}://127.0.0.1:{self.ports[wire]}"
        return f"unix://{self.folder}/{wire}"

    def start(self) -> None:
        self._process = subprocess.Popen(self._command)
        until(lambda: all(self._listens(wire) for wire in ("log", "log5424", *self.ports)), "rsyslog to listen")

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.wait(PATIENCE) == 0

    def _listens(self, wire: str) -> bool:
        if wire not in self.ports:
            return (self.folder / wire).is_socket()
        table = Path("/proc/net/udp" if wire == "udp" else "/proc/net/tcp").read_text()
        return f"0100007F:{self.ports[wire]:04X} 00000000:0000" in table

    def arrived(self, count: int) -> list[dict[str, str]]:
        """Return what has arrived, once it is `count` records."""
        file = self.folder / "arrived"
        until(lambda: file.exists() and file.read_bytes().count(b"\n") >= count, f"{count} records to arrive")
        return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def rsyslog(open_folder: Path) -> Iterator[Rsyslog]:
    """Run a rsyslogd that takes records over each wire."""
    running = Rsyslog(open_folder)
    yield running
    running.stop()


# --------------------------------------------------------------------------------------------- the daemon and a culprit


class Watchdog:
    """`bpf-watchdog run` with its files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.config, self.rules, self.state = folder / "watchdog.toml", folder / "rules.d", folder / "state"
        self.rules.mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        self._log = folder / "stderr"
        self._output = folder / "stdout"
        self._began_at = 0

    def configure(self, receivers: dict[str, dict], rules: dict[str, dict], interval: str = "200ms") -> None:
        """Write the settings and one file of rules, all of them by name."""
        tables = [f"[sampling]\ninterval = {_toml(interval)}", '[routing]\ngroup_interval = "500ms"']
        self.config.write_text("\n".join([*tables, *(_table("receiver", "name", *item) for item in receivers.items())]))
        (self.rules / "test.toml").write_text("\n".join(_table("rule", "id", *item) for item in rules.items()))

    def launch(self, *command: str, **environment: str) -> None:
        """Start it, by `command` where it is given, without waiting for anything."""
        arguments = ["run", "--config", self.config, "--rules", self.rules, "--state-dir", self.state]
        self._began_at = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log, self._output.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, COMMAND, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                env={**os.environ, **environment},
            )

    def start(self, *command: str, **environment: str) -> None:
        """Start it and wait until it guards."""
        self.launch(*command, **environment)
        until(lambda: "SIGHUP reads the files again" in self.log() or self.process.poll() is not None, "the daemon")
        assert self.process.poll() is None, self.log()

    def log(self) -> str:
        """Return what it has said since it was started last."""
        if not self._log.exists():
            return ""
        return self._log.read_bytes()[self._began_at :].decode(errors="replace")

    def reload(self) -> str:
        """Have it read its files again; return what it says of that."""
        before = len(self.log())
        self.process.send_signal(signal.SIGHUP)
        until(lambda: " reload" in self.log()[before:] and self.log().endswith("\n"), "the reload")
        return self.log()[before:]

    def kill(self) -> None:
        self.process.kill()
        assert self.process.wait(PATIENCE) == -signal.SIGKILL

    def terminate(self) -> tuple[int, float]:
        """Send SIGTERM; return the exit code and the seconds that it took."""
        began = time.monotonic()
        self.process.terminate()
        return self.process.wait(PATIENCE), time.monotonic() - began

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


def _table(kind: str, key: str, name: str, values: dict) -> str:
    lines = [f"{key} = {_toml(value)}" for key, value in {key: name, **values}.items()]
    return "\n".join([f"[[{kind}]]", *lines])


def _toml(value: object) -> str:
    # JSON's texts, numbers and arrays are TOML's too.
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(entry)}" for key, entry in value.items()) + " }"
    return json.dumps(value)


@pytest.fixture
def watchdog(open_folder: Path) -> Iterator[Watchdog]:
    """Return a daemon that is still to be configured and started."""
    watchdog = Watchdog(open_folder)
    yield watchdog
    watchdog.end()


class Storm:
    """A process that calls itself `name` and opens connections as it is told; see storm.py."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(STORM), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "done\n"

    def rage(self, rate: float) -> None:
        self._order(f"rage {rate}")

    def rest(self) -> None:
        self._order("rage 0")

    def open(self, count: int) -> None:
        self._order(f"open {count}")

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()

    def _order(self, order: str) -> None:
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@pytest.fixture
def start_storm() -> Iterator[Callable[[str], Storm]]:
    """Return a function that starts a process that is still calm."""
    storms: list[Storm] = []

    def start(name: str) -> Storm:
        storms.append(Storm(name))
        return storms[-1]

    yield start
    for storm in storms:
        storm.stop()


@pytest.fixture
def storm(start_storm: Callable[[str], Storm]) -> Storm:
    """Return a process that is still calm; its name is its own, whatever else runs on this host."""
    return start_storm(f"storm-{os.getpid()}")
