"""The web server: one thread, which blocks on no client; clients, bytes and times are bounded.

It reads no body, keeps no connection, and sends nothing but its pages and short errors.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final

from watchdog.config.web_settings import WebSettings
from watchdog.control.listener import Listener, accept_client
from watchdog.errors import WatchdogError
from watchdog.web.http_request import END_OF_HEAD, MAX_HEAD_BYTES, HostCheck, refusal, respond
from watchdog.web.web_page import Pages

MAX_CLIENTS: Final = 32
_BACKLOG: Final = 128
REQUEST_SECONDS: Final = 5.0  # until a request is complete
RESPONSE_SECONDS: Final = 15.0  # until the client has read the response
RENEWAL_SECONDS: Final = 5.0  # between two looks whether somebody has removed a socket that is a file
_LINGER_SECONDS: Final = 0.5  # after a response, until the client has closed: an earlier close could lose its end
_PAUSE_SHARE = 2.0  # of the CPU time of a round, after it: a flood of requests leaves the interpreter to the ticks
_MAX_PAUSE_SECONDS = 0.1
_CHUNK = 65_536
_MAX_DRAINED_BYTES = 4 * _CHUNK  # after a response


class WebError(WatchdogError):
    """The address cannot be listened on."""


class WebServer:
    """Serves `pages` from `start` until `stop`."""

    def __init__(self, settings: WebSettings, names: Callable[[], tuple[str, ...]], pages: Pages) -> None:
        """Listen at the address of `settings`. `names`: of this host, for `Host`.

        Raises:
            WebError: another process listens there, or it is not permitted.
        """
        self._settings = settings
        self._names = names
        self._pages = pages
        self._file: Listener | None = None
        self._socket = self._listen()
        self._selector = selectors.DefaultSelector()
        self._clients: dict[socket.socket, _WebClient] = {}
        self._wakeup_receiver, self._wakeup_sender = socket.socketpair()
        self._next_renewal = time.monotonic() + RENEWAL_SECONDS
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._selector.register(self._wakeup_receiver, selectors.EVENT_READ)
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, close all connections and remove the socket."""
        self._wakeup_sender.close()
        self._thread.join(1.0)
        if self._file is not None:
            self._file.close()
        self._socket.close()

    def _listen(self) -> socket.socket:
        settings = self._settings
        if settings.port is None:
            try:
                self._file = Listener.at(Path(settings.listen), "socket of the metrics")
            except WatchdogError as error:
                raise WebError(str(error)) from error
            return self._file.socket
        family = socket.AF_INET6 if ":" in settings.listen else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setblocking(False)
            bound.bind((settings.listen, settings.port))
            bound.listen(_BACKLOG)
        except OSError as error:
            bound.close()
            raise WebError(f"cannot listen on {settings.listen} port {settings.port}: {error.strerror}") from error
        return bound

    def _run(self) -> None:
        while self._serve_ready():
            now = time.monotonic()
            for client in [client for client in self._clients.values() if client.deadline <= now]:
                self._end_overdue(client)
            if self._file is not None and self._next_renewal <= now:
                self._next_renewal = now + RENEWAL_SECONDS
                self._renew_socket(self._file)
        for client in list(self._clients.values()):
            self._drop(client)
        self._selector.close()
        self._wakeup_receiver.close()

    def _renew_socket(self, file: Listener) -> None:
        try:
            renewed = file.renewed()
        except WatchdogError:  # tried again: the folder can come back
            return
        if renewed is not None:
            self._selector.unregister(self._socket)
            self._file, self._socket = renewed, renewed.socket
            self._selector.register(self._socket, selectors.EVENT_READ)
            logging.getLogger("watchdog").warning("socket of the metrics removed and created again: %s", renewed.path)

    def _serve_ready(self) -> bool:
        """Wait for the next event and serve it; return False to stop."""
        deadlines = [client.deadline for client in self._clients.values()]
        if self._file is not None:
            deadlines.append(self._next_renewal)
        ready = self._selector.select(max(0.0, min(deadlines) - time.monotonic()) if deadlines else None)
        began = time.thread_time()
        for key, _ in ready:
            if key.fileobj is self._wakeup_receiver:
                return False
            if key.fileobj is self._socket:
                self._accept()
            elif key.fileobj in self._clients:  # it can have made room for another one
                self._advance(key.data)
        time.sleep(min(_MAX_PAUSE_SECONDS, _PAUSE_SHARE * (time.thread_time() - began)))
        return True

    def _accept(self) -> None:
        peer = accept_client(self._socket)
        if peer is None:
            return
        if self._file is not None and not self._file.allows(peer):
            peer.close()
            return
        peer.setblocking(False)
        if len(self._clients) >= MAX_CLIENTS:
            # Prometheus has its request at once: those who are slow to send it go first, then slow readers.
            self._drop(min(self._clients.values(), key=lambda client: (client.unsent is not None, client.deadline)))
        self._clients[peer] = client = _WebClient(peer)
        self._selector.register(peer, selectors.EVENT_READ, client)

    def _advance(self, client: _WebClient) -> None:
        try:
            if client.is_answered:
                if client.drain():
                    self._drop(client)
            elif client.unsent is None:
                self._answer(client, client.read())
            elif client.write():
                self._selector.modify(client.peer, selectors.EVENT_READ, client)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)

    def _answer(self, client: _WebClient, head: bytes | None) -> None:
        if head is None:
            return
        if len(head) > MAX_HEAD_BYTES:
            response = refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request is too long")
        else:
            names = (*self._settings.hosts, *(name.lower() for name in self._names()))
            hosts = HostCheck(names, only_loopback=self._settings.is_loopback)
            response = self._respond(head, hosts)
        self._selector.modify(client.peer, selectors.EVENT_WRITE, client)
        client.answer(response)

    def _respond(self, head: bytes, hosts: HostCheck) -> bytes:
        try:
            return respond(head, hosts, self._pages)
        except Exception:
            # An edge: a defect in one page must not end the thread.
            logging.getLogger("watchdog").exception("page not served")
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "defect of bpf-watchdog: see its log")

    def _end_overdue(self, client: _WebClient) -> None:
        if client.unsent is None:
            with contextlib.suppress(OSError):
                client.peer.send(refusal(HTTPStatus.REQUEST_TIMEOUT, "the request was not complete in time"))
        self._drop(client)

    def _drop(self, client: _WebClient) -> None:
        del self._clients[client.peer]
        self._selector.unregister(client.peer)
        client.peer.close()


class _WebClient:
    # One connection: it reads a request, then writes a response, then waits for the end.

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.deadline = time.monotonic() + REQUEST_SECONDS
        self.unsent: memoryview | None = None
        self.is_answered = False
        self._head = b""
        self._drained = 0

    def read(self) -> bytes | None:
        """Return the head of the request once it is complete, or longer than the limit.

        Raises:
            ConnectionResetError: the client has closed.
        """
        received = self.peer.recv(_CHUNK)
        if not received:
            raise ConnectionResetError
        self._head += received
        head, end, _ = self._head.partition(END_OF_HEAD)
        return head if end or len(self._head) > MAX_HEAD_BYTES else None

    def answer(self, response: bytes) -> None:
        self._head = b""
        self.unsent, self.deadline = memoryview(response), time.monotonic() + RESPONSE_SECONDS

    def write(self) -> bool:
        """Send what the connection takes; return whether all was sent."""
        if self.unsent:
            self.unsent = self.unsent[self.peer.send(self.unsent) :]
        if self.unsent:
            return False
        self.is_answered, self.deadline = True, time.monotonic() + _LINGER_SECONDS
        self.peer.shutdown(socket.SHUT_WR)
        return True

    def drain(self) -> bool:
        """Discard what the client sends; return whether it has closed, or sends more than a request could have."""
        received = len(self.peer.recv(_CHUNK))
        self._drained += received
        return not received or self._drained > _MAX_DRAINED_BYTES
