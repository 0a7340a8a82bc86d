"""Attackers of the web server: malformed requests, slow clients, foreign hosts, endless bodies; the delay of ticks."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import socket
import statistics
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_REFUSALS = {400, 404, 405, 408, 413, 421, 431}
_PAGES = (b"<!DOCTYPE html>", b"# HELP ")
_TIMEOUT_SECONDS = 60.0
_GOOD = (
    b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9464\r\nAccept: text/plain;q=0.5,*/*\r\nUser-Agent: Prometheus\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\nAccept-Encoding: gzip\r\n\r\n",
)
_PIECES = (
    b"\0",
    b"\r\n",
    b"\n",
    b" ",
    b"../",
    b"%2e%2e/",
    b"/etc/passwd",
    b"\xff\xfe",
    b":",
    b"A" * 9_000,
    b"HTTP/2.0",
)


@dataclass
class Answers:
    """What attackers got: number by status (0: the connection was dropped), and answers that nobody should get."""

    counts: Counter[int] = field(default_factory=Counter)
    leaks: list[bytes] = field(default_factory=list)

    def add(self, request: bytes, answer: bytes) -> None:
        """Judge one answer: a page goes to well-formed requests with a proper host only, all others get one line."""
        found = _STATUS.match(answer)
        status = int(found[1]) if found else 0
        self.counts[status] += 1
        head, _, body = answer.partition(b"\r\n\r\n")
        if status == 200:
            is_page = body.startswith(_PAGES) or (request.startswith(b"HEAD ") and not body)
            is_proper = is_page and re.match(rb"(GET|HEAD) /(metrics)?(\?[!-~]*)? HTTP/1\.[01]\r\n", request)
        elif status == 0:
            is_proper = not answer
        else:
            is_proper = status in _REFUSALS and b"text/plain" in head and body.count(b"\n") <= 1 and len(body) < 200
        if not is_proper:
            self.leaks.append(request[:200] + b" -> " + answer[:300])


def malformed_request(rng: random.Random) -> bytes:
    """Return a mutated request."""
    request = bytearray(rng.choice(_GOOD))
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(request))
        request[at : at + rng.randint(0, 4)] = rng.choice([rng.randbytes(rng.randint(0, 3)), rng.choice(_PIECES)])
    return bytes(request)


def ask(port: int, request: bytes, timeout: float = _TIMEOUT_SECONDS) -> bytes:
    """Return the whole answer to `request`, or its part before the connection was dropped."""
    answer = b""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout) as peer:
        peer.sendall(request)
        with contextlib.suppress(OSError):
            peer.shutdown(socket.SHUT_WR)
        while piece := peer.recv(65_536):
            answer += piece
    return answer


def send_malformed(port: int, count: int, threads: int = 8, seed: int = 1) -> Answers:
    """Send `count` malformed requests, each on a connection of its own."""
    answers, lock = Answers(), threading.Lock()

    def attack(number: int) -> None:
        rng = random.Random(seed * 1_000 + number)
        for _ in range(count // threads):
            request = malformed_request(rng)
            answer = ask(port, request)
            with lock:
                answers.add(request, answer)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(attack, range(threads)))
    return answers


def send_foreign_hosts(port: int, count: int) -> Answers:
    """Send well-formed requests for hosts that are not this one, as a page of an attacker in a browser does."""
    answers = Answers()
    for number in range(count):
        host = ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:9464", "[2001:db8::1]")[number % 4]
        path = ("/", "/metrics")[number % 2]
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        answers.add(request, ask(port, request))
    return answers


def send_slowly(port: int, clients: int, seconds: float) -> int:
    """Keep `clients` connections that send a byte now and then; return the number that the server dropped."""
    peers: list[socket.socket] = []
    dropped, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        while len(peers) < clients and time.monotonic() < end:
            with contextlib.suppress(OSError):
                peers.append(socket.create_connection(("127.0.0.1", port), 5.0))
        for peer in list(peers):
            try:
                peer.setblocking(False)
                peer.send(b"G")
            except BlockingIOError:
                pass
            except OSError:
                dropped += 1
                peers.remove(peer)
                peer.close()
        time.sleep(0.5)
    for peer in peers:
        peer.close()
    return dropped


def send_body(port: int, size: int = 1_000_000_000) -> int:
    """Send a request with a body of `size` bytes; return the number of bytes that the server took."""
    sent, piece = 0, b"x" * 65_536
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), _TIMEOUT_SECONDS) as peer:
        peer.sendall(f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
        while sent < size:
            sent += peer.send(piece)
    return sent


class TickTimes:
    """Receives the daemon's reports to systemd: one at the end of each tick."""

    def __init__(self, path: Path) -> None:
        """Listen at `path`; give `environment` to the daemon."""
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "600000000"}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        path.chmod(0o666)
        self._times: list[float] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def take_delays(self, interval_seconds: float) -> list[float]:
        """Return by how many seconds each tick since the last call came later after the former one than it should."""
        times, self._times = self._times, []
        return [max(0.0, after - before - interval_seconds) for before, after in itertools.pairwise(times)]

    def close(self) -> None:
        """Stop."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"END", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while (message := self._socket.recv(4_096)) != b"END":
            if message == b"WATCHDOG=1":
                self._times.append(time.monotonic())


def p99(values: list[float]) -> float:
    """Return the 99th percentile; the greatest of a few values."""
    return statistics.quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else max(values, default=0.0)


def resident_bytes(pid: int) -> int:
    """Return the resident anonymous memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1_024
