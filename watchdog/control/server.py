"""The daemon's end: one thread that answers requests, one by one, and waits for nobody.

Clients are read and written as far as they are ready; each has its time, and there is room for some at once. What
answers takes no lock of a tick for longer than a row takes to write.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from watchdog.config.suggestions import unknown_name
from watchdog.control import protocol
from watchdog.control.listener import Listener
from watchdog.errors import NotPermitted, UsageError, WatchdogError

RequestHandler = Callable[[Mapping[str, Any]], object]
"""Takes a request's arguments, returns what JSON can hold, raises WatchdogError."""

MAX_CLIENTS = 16
REQUEST_TIMEOUT_SECONDS = 5.0  # for a whole request to come
RESPONSE_WRITE_TIMEOUT_SECONDS = 10.0  # for the answer to be taken

_CHUNK = 65_536
_REFUSAL = protocol.pack_error(NotPermitted("root, or a member of the socket's group, may ask"))


class ControlServer:
    """Answers on a listener from `start` until `stop`."""

    def __init__(self, listener: Listener, handlers: Mapping[str, RequestHandler], log: logging.Logger) -> None:
        """Answer the requests that `handlers` names."""
        self._listener = listener
        self._handlers = handlers
        self._log = log
        self._selector = selectors.DefaultSelector()
        self._clients: dict[socket.socket, _ClientConnection] = {}
        self._listening = False
        self._bell, self._ringer = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread.start()

    def stop(self) -> None:
        """Take the socket away and leave whoever is still connected."""
        self._ringer.close()
        self._thread.join(1.0)
        self._listener.close()

    def _run(self) -> None:
        self._serve()
        for client in list(self._clients.values()):
            self._drop(client)
        self._selector.close()
        self._bell.close()

    def _serve(self) -> None:
        while True:
            self._listen(len(self._clients) < MAX_CLIENTS)
            ends = min((client.ends for client in self._clients.values()), default=None)
            ready = self._selector.select(None if ends is None else max(0.0, ends - time.monotonic()))
            for key, _ in ready:
                if key.fileobj is self._bell:
                    return
                if key.fileobj is self._listener.socket:
                    self._accept()
                else:
                    self._move(key.data)
            now = time.monotonic()
            for client in [client for client in self._clients.values() if client.ends <= now]:
                self._drop(client)

    def _listen(self, wanted: bool) -> None:  # noqa: FBT001 - a setter
        # While there is no room, the kernel keeps who comes waiting.
        if wanted and not self._listening:
            self._selector.register(self._listener.socket, selectors.EVENT_READ)
        elif self._listening and not wanted:
            self._selector.unregister(self._listener.socket)
        self._listening = wanted

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.socket.accept()
        except OSError:  # it has gone again, or there are no descriptors left
            return
        peer.setblocking(False)
        self._clients[peer] = client = _ClientConnection(peer, may_ask=self._listener.allows(peer))
        self._selector.register(peer, selectors.EVENT_READ, client)

    def _move(self, client: _ClientConnection) -> None:
        try:
            if client.leaving is not None:
                if client.write():
                    self._drop(client)
            elif (line := client.read()) is not None:
                # Others are heard out too: a connection closed before is broken at their end, and they learn nothing.
                client.answer(self._answer(line) if client.may_ask else _REFUSAL)
                self._selector.modify(client.peer, selectors.EVENT_WRITE, client)
        except BlockingIOError:
            return
        except OSError:  # gone
            self._drop(client)

    def _drop(self, client: _ClientConnection) -> None:
        self._selector.unregister(client.peer)
        del self._clients[client.peer]
        client.peer.close()

    def _answer(self, line: bytes) -> bytes:
        try:
            return protocol.pack_result(self._result(line))
        except WatchdogError as error:
            return protocol.pack_error(error)
        except Exception:  # noqa: BLE001 - an edge: a defect in an answer ends neither this thread nor the guard
            self._log.exception("the control socket: a request failed")
            return protocol.pack_error(WatchdogError("the daemon failed to answer; its log has the reason"))

    def _result(self, line: bytes) -> object:
        if len(line) > protocol.MAX_REQUEST_BYTES:
            raise UsageError(f"a request has {protocol.MAX_REQUEST_BYTES} bytes at most")
        request = protocol.parse_request(line)
        if request.name not in self._handlers:
            raise UsageError(unknown_name("request", request.name, self._handlers))
        return self._handlers[request.name](request.arguments)


class _ClientConnection:
    """One connection: first it asks, then it is answered; `ends` is the CLOCK_MONOTONIC at which it is left."""

    def __init__(self, peer: socket.socket, *, may_ask: bool) -> None:
        self.peer = peer
        self.may_ask = may_ask
        self.ends = time.monotonic() + REQUEST_TIMEOUT_SECONDS
        self.leaving: memoryview | None = None
        self._received = bytearray()

    def read(self) -> bytes | None:
        """Return the request once it is complete, or longer than any may be."""
        chunk = self.peer.recv(_CHUNK)
        self._received += chunk
        line, end, _ = self._received.partition(b"\n")
        if not chunk and not line:
            raise ConnectionAbortedError  # it asked for nothing
        return bytes(line) if end or not chunk or len(line) > protocol.MAX_REQUEST_BYTES else None

    def answer(self, answer: bytes) -> None:
        self.leaving = memoryview(answer)
        self.ends = time.monotonic() + RESPONSE_WRITE_TIMEOUT_SECONDS

    def write(self) -> bool:
        """Write what can be written now; tell whether that was all."""
        self.leaving = (self.leaving or memoryview(b""))[self.peer.send(self.leaving or b"") :]
        return not self.leaving
