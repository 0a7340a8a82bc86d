"""Real peers for delivery: HTTP servers that record requests, and a rsyslog."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from ports import free_port

PATIENCE = 60.0  # the machine can be busy


def until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait until `condition` holds, for a bounded time."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """Return a function that waits until a condition holds, for a bounded time."""
    return until


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that every account can enter: the daemon gives up root, pytest's own folders are root's."""
    folder = Path(tempfile.mkdtemp(prefix="bpf-watchdog-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------------ an installation

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def installation() -> Iterator[Path]:
    """Return a folder with a checkout and its own environment, independent of the one that runs the tests.

    It is below a folder that `private_command` closes to all but root, as root's home is, and `open_command` opens.
    """
    folder = Path(tempfile.mkdtemp(prefix="bpf-watchdog-test-"))
    checkout = folder / "checkout"
    for name in ("watchdog", "bpf", "rules"):
        shutil.copytree(CHECKOUT / name, checkout / name)
    venv.create(checkout / ".venv", system_site_packages=True, symlinks=True)
    [packages] = (checkout / ".venv/lib").glob("python3*/site-packages")
    (packages / "checkout.pth").write_text(str(checkout))
    for needed in required("bpf-watchdog"):
        copy_distribution(needed, packages)
    command = checkout / ".venv/bin/bpf-watchdog"
    command.write_text(
        f"#!{checkout}/.venv/bin/python\nimport sys\nfrom watchdog.cli.main import main\nsys.exit(main())\n"
    )
    command.chmod(0o755)
    yield checkout
    shutil.rmtree(folder)


def required(name: str) -> list[Distribution]:
    """Return all direct and indirect requirements of a distribution."""
    names = [name]
    for each in names:
        for requirement in distribution(each).requires or ():
            found = re.split(r"[^A-Za-z0-9._-]", requirement)[0]
            if ";" not in requirement and found not in names:
                names.append(found)
    return [distribution(each) for each in names[1:]]


def copy_distribution(needed: Distribution, packages: Path) -> None:
    """Copy a distribution of this environment; those of the system are in both."""
    for file in needed.files or ():
        source = Path(file.locate())
        if source.is_relative_to(sys.prefix) and ".." not in file.parts and source.exists():
            (packages / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, packages / file)  # with its time stamp, which compiled files must match


@pytest.fixture
def private_command(installation: Path) -> Path:
    """Return a command below a folder that only root can enter."""
    installation.parent.chmod(0o700)
    return installation / ".venv/bin/bpf-watchdog"


@pytest.fixture
def open_command(installation: Path) -> Path:
    """Return a command that every account can run."""
    installation.parent.chmod(0o755)
    return installation / ".venv/bin/bpf-watchdog"


# ------------------------------------------------------------------------------------------------------ HTTP and syslog


class KeepingServer(http.server.ThreadingHTTPServer):
    """Answers every POST with `answer`, and before that records the request as (path, headers, body).

    While `answering` is cleared, requests are recorded and not answered.
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

    def as_receiver(self, **more: object) -> dict:
        """Return the settings of a webhook that posts here."""
        return {"type": "webhook", "url": self.url, **more}

    def documents(self) -> list[tuple[str, dict]]:
        """Return (notification id, parsed body) of all requests, copies included."""
        return [(headers["X-Notification-Id"], json.loads(body)) for _, headers, body in list(self.posts)]

    def notifications(self) -> dict[str, dict]:
        """Return the bodies by notification id, in the order of their first arrival."""
        return dict(self.documents())

    def statuses(self) -> list[str]:
        """Return the status of each notification in the order of first arrival."""
        return [document["status"] for document in self.notifications().values()]

    def handle_error(self, *_: object) -> None:
        """Print nothing about clients that were killed or broke off a handshake."""


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
    """Return a function that returns an unused port of 127.0.0.1."""
    return free_port


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
    """A rsyslogd with all its files in one folder."""

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
        """Wait for `count` records and return them."""
        file = self.folder / "arrived"
        until(lambda: file.exists() and file.read_bytes().count(b"\n") >= count, f"{count} records to arrive")
        return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def rsyslog(open_folder: Path) -> Iterator[Rsyslog]:
    """Run a rsyslogd that accepts records over each transport."""
    running = Rsyslog(open_folder)
    yield running
    running.stop()
