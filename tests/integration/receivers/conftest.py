"""Notifications to deliver, and servers with free control of their socket."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import AF_INET, AF_INET6, SO_RCVBUF, SOL_SOCKET, create_server, socket

import pytest

import factories
from watchdog.routing.notification import Notification, NotificationReason

CERTIFICATE = Path(__file__).parent / "localhost.pem"  # self-signed for the name localhost, with its key


@pytest.fixture
def firing() -> Notification:
    """Return the notification of a firing storm."""
    return factories.make_notification(id="a" * 32, created=1_750_000_200.0)


@pytest.fixture
def resolved() -> Notification:
    """Return the notification of its end."""
    ended = factories.make_alert(resolved=1_750_000_100.0, value=3.0)
    return factories.make_notification(ended, id="b" * 32, reason=NotificationReason.RESOLVED, created=1_750_000_200.0)


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
