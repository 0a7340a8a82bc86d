"""Fuzz targets for peers: HTTP answers of every receiver, mail servers, syslog servers with and without TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import factories
from fuzz_target import SEPARATOR, FuzzFunction, FuzzTarget
from watchdog.clock import SystemClock
from watchdog.config.document import Document
from watchdog.config.secrets import Secret
from watchdog.daemon.heartbeat_url import HeartbeatUrl
from watchdog.errors import DeliveryError
from watchdog.receivers.alertmanager import Alertmanager
from watchdog.receivers.base import Receiver
from watchdog.receivers.email import Email
from watchdog.receivers.pagerduty import PagerDuty
from watchdog.receivers.slack.api import API_METHODS, SlackApi, SlackThrottle
from watchdog.receivers.slack.slack_receiver import Slack
from watchdog.receivers.slack.thread import SlackThread
from watchdog.receivers.syslog.wires import TlsSettings, wire_from_address
from watchdog.receivers.transport.deadline import Deadline
from watchdog.receivers.transport.http import Endpoint, HttpTransport
from watchdog.receivers.transport.proxy import Proxy
from watchdog.receivers.transport.smtp import SmtpLogin, SmtpServer
from watchdog.receivers.webhook import Webhook
from watchdog.routing.notification import Notification

_DEADLINE = 10.0  # the peer closes at the end of its bytes: no attempt may need it
_TURN_SECONDS = 0.02  # the peer goes on when its client waits too


class ScriptedPeer:
    """A server on 127.0.0.1 that sends `parts`, one after each time that its client has sent something, then closes.

    `greets`: it sends the first part at once.
    """

    def __init__(self, *, greets: bool = False) -> None:
        self.parts: list[bytes] = []
        self._greets = greets
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        for number, part in enumerate(self.parts):
            if number or not self._greets:
                connection.settimeout(_TURN_SECONDS)
                with contextlib.suppress(TimeoutError):
                    if not connection.recv(65_536):
                        return
            connection.settimeout(_DEADLINE)
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass


@contextlib.contextmanager
def _peer(*, greets: bool = False) -> Iterator[ScriptedPeer]:
    peer = ScriptedPeer(greets=greets)
    yield peer
    peer.close()


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


# ----------------------------------------------------------------------------------------------------------------- HTTP


@contextlib.contextmanager
def open_http(_folder: Path) -> Iterator[FuzzFunction]:
    """Send by one of the receivers over HTTP, or a heartbeat; the first byte of the input chooses."""
    with _peer() as peer:
        receivers = _http_receivers(peer.port)

        def deliver(data: bytes) -> None:
            if not data:
                return
            peer.parts = [data[1:]]
            with contextlib.suppress(DeliveryError):
                receivers[data[0] % len(receivers)]()

        yield deliver


def _http_receivers(port: int) -> list[Callable[[], None]]:
    """Return calls that send to the peer at `port`, each by a new receiver."""
    transport, clock, secret = HttpTransport(_context()), SystemClock(), Secret("s")
    url = Secret(f"http://127.0.0.1:{port}/in")
    endpoint = Endpoint(url, transport)
    tunnelled = Endpoint(Secret("https://127.0.0.1/"), HttpTransport(_context(), Proxy("127.0.0.1", port, {})))
    throttle = SlackThrottle(sleep=lambda _seconds: None)
    api = SlackApi(dict.fromkeys(API_METHODS, endpoint), secret, throttle)
    heartbeat = HeartbeatUrl.from_table(Document("", {"url": url.reveal()}, "watchdog.toml").root)
    notification = factories.make_notification()
    makers: list[Callable[[], Receiver]] = [
        lambda: Webhook("a", endpoint, None, clock),
        lambda: Alertmanager("a", [endpoint], clock),
        lambda: PagerDuty("a", endpoint, secret),
        lambda: Slack("a", endpoint, throttle=throttle),
        lambda: Slack("a", SlackThread(api, "C0123456"), "b", throttle),
        lambda: Webhook("a", tunnelled, None, clock),
    ]
    return [
        *(lambda make=make: _send(make(), notification) for make in makers),
        lambda: heartbeat.post(b"{}", _DEADLINE, is_healthy=True),
    ]


def _send(receiver: Receiver, notification: Notification) -> None:
    try:
        receiver.send(notification, _DEADLINE)
    finally:
        receiver.close()


def _http_seeds() -> Iterable[bytes]:
    head = b"HTTP/1.1 200 OK\r\n"
    bodies = (
        b"ok",
        b'{"status":"success","dedup_key":"x"}',
        b'{"ok":true,"channel":"C0123456","ts":"1.2"}',
        b'{"ok":false,"error":"ratelimited"}',
        b"OK (not found)",
        b"[" * 5_000,
        b'{"status":"error","errorType":"bad_data","error":"x"}',
    )
    for number in range(7):
        for body in bodies:
            yield bytes([number]) + head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    yield (
        b"\0HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        + head
        + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nX: y\r\n\r\n"
    )
    yield b"\0" + head + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nok\r\n"
    yield b"\0HTTP/1.1 429 X\r\nRetry-After: Sun, 15 Jun 2025 15:07:10 GMT\r\nDate: x\r\n\r\n"
    yield b"\0HTTP/1.1 301 X\r\nLocation: http://[::1/\r\nSet-Cookie: a=b; expires=Sun, 15-Jun-25 15:07:10 GMT\r\n\r\n"
    yield b"\0HTTP/1.1 401 X\r\nWWW-Authenticate: Digest\r\nContent-Encoding: gzip\r\nContent-Length: 1, 2\r\n\r\n"
    yield b"\5HTTP/1.0 200 Connection established\r\nX: y\r\n\r\n\x15\x03\x03\x00\x02\x02\x28"
    yield b"\5HTTP/1.0 407 X\r\n\r\n"


# ------------------------------------------------------------------------------------------------------ mail and syslog


@contextlib.contextmanager
def open_smtp(_folder: Path) -> Iterator[FuzzFunction]:
    """Send a message to a mail server; the first byte of the input chooses TLS and login."""
    with _peer(greets=True) as peer:
        notification = factories.make_notification()
        login = SmtpLogin("me", Secret("secret"))
        choices = [
            SmtpServer("127.0.0.1", peer.port, mode, _context(), one)
            for mode, one in (("none", None), ("none", login), ("starttls", login), ("implicit", None))
        ]

        def deliver(data: bytes) -> None:
            if not data:
                return
            peer.parts = data[1:].split(SEPARATOR)
            server = choices[data[0] % len(choices)]
            with contextlib.suppress(DeliveryError):
                Email("a", server, "a@example.net", ("b@example.net", "c@example.net")).send(notification, _DEADLINE)

        yield deliver


def _smtp_seeds() -> Iterable[bytes]:
    for number, replies in enumerate(
        (
            (b"220 mx\r\n", b"250-mx\r\n250 SIZE 1000\r\n", *[b"250 ok\r\n"] * 3, b"354 go\r\n", b"250 2.0.0 ok\r\n"),
            (b"220 mx\r\n", b"250-mx\r\n250 AUTH LOGIN CRAM-MD5\r\n", b"334 YWJj\r\n", b"334 !\r\n", b"235 ok\r\n"),
            (b"220 mx\r\n", b"250-mx\r\n250 STARTTLS\r\n", b"220 go\r\n", b"\x15\x03\x03\x00\x02\x02\x28"),
            (b"\x15\x03\x03\x00\x02\x02\x28",),
            (b"220 mx\r\n", b"502 no\r\n", b"250 ok\r\n", b"451 4.7.1 later\r\n", b"550 5.1.1 no\r\n", b"25x\r\n"),
        )
    ):
        yield bytes([number % 4]) + SEPARATOR.join(replies)


@contextlib.contextmanager
def open_syslog(_folder: Path) -> Iterator[FuzzFunction]:
    """Send records to a syslog server; the first byte of the input chooses TLS."""
    with _peer(greets=True) as peer:
        wires = [
            wire_from_address(f"{scheme}://127.0.0.1:{peer.port}", tls_settings=TlsSettings(_context()))
            for scheme in ("tcp", "tls")
        ]

        def deliver(data: bytes) -> None:
            if not data:
                return
            peer.parts = data[1:].split(SEPARATOR)
            with contextlib.suppress(DeliveryError):
                wires[data[0] % len(wires)].send_records([b"<13>1 - - - - - - x"] * 3, Deadline(_DEADLINE))

        yield deliver


def _syslog_seeds() -> Iterable[bytes]:
    yield b"\0"
    yield b"\0220 ready\r\n" + SEPARATOR + b"bye"
    yield b"\1\x15\x03\x03\x00\x02\x02\x28"
    yield b"\1" + SEPARATOR + b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00"
    yield b"\1" + SEPARATOR + b"\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x03" + b"x" * 32 + b"\x00\xc0\x2f\x00"


PEER_TARGETS = {
    "http": FuzzTarget(
        open_http,
        _http_seeds,
        ("HTTP/1.1 200 OK\r\n", "Transfer-Encoding: chunked", "Content-Length:", "Retry-After:", "Set-Cookie:"),
        max_bytes=65_536,
    ),
    "smtp": FuzzTarget(
        open_smtp, _smtp_seeds, ("220 ", "250-", "334 ", "AUTH ", "STARTTLS", SEPARATOR.decode()), max_bytes=65_536
    ),
    "syslog": FuzzTarget(open_syslog, _syslog_seeds, (SEPARATOR.decode(),), max_bytes=65_536),
}
