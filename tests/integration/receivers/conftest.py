"""Notifications to deliver, and servers with free control of their socket."""

from __future__ import annotations

import contextlib
import dataclasses
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import AF_INET, AF_INET6, SO_RCVBUF, SOL_SOCKET, create_server, socket

import pytest

from watchdog.alerts.alert import Alert, AlertState
from watchdog.routing.notification import Notification, NotificationReason
from watchdog.rules.language.rule import Severity

CERTIFICATE = Path(__file__).parent / "localhost.pem"  # self-signed for the name localhost, with its key

STORM = Alert(
    rule="outbound-connection-storm",
    labels=(("process", "crawler"), ("unit", "crawler.service")),
    fingerprint="0123456789abcdef",
    state=AlertState.FIRING,
    severity=Severity.CRITICAL,
    summary="crawler opens 612/s connections (limit 500/s)",
    value=612.0,
    threshold=500.0,
    peak=640.5,
    started=1_750_000_000.0,
    fired=1_750_000_010.25,
    resolved=None,
    reason="value above 500/s for 10 s",
    receivers=None,
    runbook=None,
    format="rate",
)


def notification_of(alert: Alert, reason: str, identity: str) -> Notification:
    return Notification(
        id=identity * 32,
        receiver="oncall",
        group_key=alert.rule,
        reason=NotificationReason(reason),
        alerts=(alert,),
        created=1_750_000_200.0,
        host="web-1",
    )


@pytest.fixture
def firing() -> Notification:
    """Return the notification of a firing storm."""
    return notification_of(STORM, "first notification", "a")


@pytest.fixture
def resolved() -> Notification:
    """Return the notification of its end."""
    ended = dataclasses.replace(STORM, state=AlertState.RESOLVED, resolved=1_750_000_100.0, value=3.0)
    return notification_of(ended, "resolved", "b")


@pytest.fixture
def tls_server(start_server):
    """Serve HTTPS with a self-signed certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return start_server(context=context)


class RawServer:
    """A server that runs `behave(connection, stopped)` for each connection, in its own thread."""

    def __init__(self, behave: Callable[[socket, threading.Event], None], host: str) -> None:
        self._listener = create_server((host, 0), family=AF_INET6 if ":" in host else AF_INET)
        self._listener.setsockopt(
            SOL_SOCKET, SO_RCVBUF, 16_384
        )  # small buffer: senders block early when nothing is read
        self._behave = behave
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self.port = self._listener.getsockname()[1]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/in/secret-path?token=secret-token"

    def stop(self) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(2)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._behave(connection, self._stopped)


@pytest.fixture
def raw_server() -> Iterator[Callable[..., RawServer]]:
    """Return a function that starts a `RawServer`."""
    servers: list[RawServer] = []

    def start(behave: Callable[[socket, threading.Event], None], host: str = "127.0.0.1") -> RawServer:
        servers.append(RawServer(behave, host))
        return servers[-1]

    yield start
    for running in servers:
        running.stop()
