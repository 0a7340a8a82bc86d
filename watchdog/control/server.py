"""Server side of the control socket: one thread that reads requests and never blocks on a client.

Clients are read and written when they are ready. Each client has a time limit, and their number is limited. Handlers
hold a lock that a tick needs only while one row is written, or while one part of an answer is copied. A handler that
uses the disk, or waits for a tick, is `Handler(in_background=True)`: each of its requests has a thread of its own. They
take turns, since many at once would take the CPU time of a tick, but wait for one that hangs for a limited time only.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from watchdog.config.suggestions import unknown_name
from watchdog.control import protocol
from watchdog.control.listener import Listener, accept_client, client_account
from watchdog.errors import NotPermitted, UsageError, WatchdogError

RequestHandler = Callable[[Mapping[str, Any]], object]
"""Takes a request's arguments, returns what JSON can hold, raises WatchdogError."""


@dataclass(frozen=True, slots=True)
class Handler:
    """The handler of one kind of request, for those that do more than read memory.

    `changes`: it changes the state of the daemon: each request is logged, with the user id of its client.
    `in_background`: it can take long, and runs in a thread of its own. `is_single`: one of its requests at a time, a
    further one is refused; it waits for no turn, and keeps no other request waiting.
    """

    handle: RequestHandler
    changes: bool = False
    in_background: bool = False
    is_single: bool = False


MAX_CLIENTS = 16
REQUEST_TIMEOUT_SECONDS = 5.0  # until a request is complete
RESPONSE_WRITE_TIMEOUT_SECONDS = 10.0  # until the client has read the response
RENEWAL_SECONDS = 5.0  # between two looks whether somebody has removed the socket
BACKGROUND_TIMEOUT_SECONDS = 60.0  # until a handler in the background has its result
TURN_TIMEOUT_SECONDS = 3.0  # for which a handler in the background waits for the one before it
MAX_IN_BACKGROUND = MAX_CLIENTS  # threads; those that hang stay when their clients have gone

_CHUNK = 65_536
_REFUSAL = protocol.pack_error(NotPermitted("only root and members of the socket's group may send requests"))


class ControlServer:
    """Answers on a listener from `start` until `stop`."""

    def __init__(
        self, listener: Listener, handlers: Mapping[str, RequestHandler | Handler], log: logging.Logger
    ) -> None:
        """Answer requests by `handlers`, which are keyed by the request's name."""
        self._listener = listener
        self._handlers = {
            name: given if isinstance(given, Handler) else Handler(given) for name, given in handlers.items()
        }
        self._log = log
        self._selector = selectors.DefaultSelector()
        self._clients: dict[socket.socket, _ClientConnection] = {}
        self._listening = False
        self._is_renewal_failing = False
        self._next_renewal = time.monotonic() + RENEWAL_SECONDS
        self._in_background: Counter[str] = Counter()  # threads, by the request's name
        self._turn = threading.Lock()
        self._finished: queue.SimpleQueue[tuple[_ClientConnection, str, bytes]] = queue.SimpleQueue()
        self._wakeup_receiver, self._wakeup_sender = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._selector.register(self._wakeup_receiver, selectors.EVENT_READ)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, close all connections and remove the socket."""
        self._wakeup_sender.close()
        self._thread.join(1.0)
        self._listener.close()

    def _run(self) -> None:
        self._serve()
        for client in list(self._clients.values()):
            self._drop(client)
        self._selector.close()
        self._wakeup_receiver.close()

    def _serve(self) -> None:
        while True:
            self._set_listening(len(self._clients) < MAX_CLIENTS)
            deadline = min((self._next_renewal, *(client.deadline for client in self._clients.values())))
            ready = self._selector.select(max(0.0, deadline - time.monotonic()))
            for key, _ in ready:
                if key.fileobj is self._wakeup_receiver:
                    if not self._wakeup_receiver.recv(_CHUNK):
                        return
                    self._answer_finished()
                elif key.fileobj is self._listener.socket:
                    self._accept()
                else:
                    self._advance(key.data)
            now = time.monotonic()
            for client in [client for client in self._clients.values() if client.deadline <= now]:
                self._drop(client)
            if self._next_renewal <= now:
                self._next_renewal = now + RENEWAL_SECONDS
                self._renew_listener()

    def _renew_listener(self) -> None:
        former = self._listener.socket
        try:
            renewed = self._listener.renewed()
        except WatchdogError as error:
            if not self._is_renewal_failing:
                self._log.error("control socket removed: no command reaches the daemon: %s", error)
            self._is_renewal_failing = True
            return
        self._is_renewal_failing = False
        if renewed is not None:
            if self._listening:
                self._selector.unregister(former)
            self._listener, self._listening = renewed, False
            self._log.warning("control socket removed and created again: path=%s", renewed.path)

    def _set_listening(self, wanted: bool) -> None:  # noqa: FBT001 - a setter
        # While the number of clients is at its maximum, new ones wait in the kernel's queue.
        if wanted and not self._listening:
            self._selector.register(self._listener.socket, selectors.EVENT_READ)
        elif self._listening and not wanted:
            self._selector.unregister(self._listener.socket)
        self._listening = wanted

    def _accept(self) -> None:
        peer = accept_client(self._listener.socket)
        if peer is None:
            return
        peer.setblocking(False)
        self._clients[peer] = client = _ClientConnection(peer, is_permitted=self._listener.allows(peer))
        self._selector.register(peer, selectors.EVENT_READ, client)

    def _advance(self, client: _ClientConnection) -> None:
        try:
            if client.unsent is not None:
                if client.write():
                    self._drop(client)
            elif (line := client.read()) is not None:
                # A refused client is read too: an earlier close would break its write and hide the reason.
                answer = self._answer(client, line) if client.is_permitted else _REFUSAL
                if answer is None:
                    self._selector.unregister(client.peer)
                    client.wait_for_result()
                else:
                    self._selector.modify(client.peer, selectors.EVENT_WRITE, client)
                    client.answer(answer)
        except BlockingIOError:
            return
        except OSError:  # disconnected
            self._drop(client)

    def _drop(self, client: _ClientConnection) -> None:
        with contextlib.suppress(KeyError):  # it waits for a result
            self._selector.unregister(client.peer)
        del self._clients[client.peer]
        client.peer.close()

    def _answer(self, client: _ClientConnection, line: bytes) -> bytes | None:
        """Return the response to a request; None: a thread makes it."""
        try:
            request = _parse(line)
            handler = self._handlers.get(request.name)
            if handler is None:
                raise UsageError(unknown_name("request", request.name, self._handlers))
            if handler.changes:
                uid, _ = client_account(client.peer)
                self._log.info("control request: request=%s uid=%d", request.name, uid)
            if handler.in_background:
                self._start(handler, request, client)
                return None
        except WatchdogError as error:
            return protocol.pack_error(error)
        return self._response(handler, request)

    def _response(self, handler: Handler, request: protocol.Request) -> bytes:
        try:
            return protocol.pack_result(handler.handle(request.arguments))
        except WatchdogError as error:
            return protocol.pack_error(error)
        except Exception:  # noqa: BLE001 - an edge: a defect in a handler must end neither this thread nor the daemon
            self._log.exception("control request failed")
            return protocol.pack_error(
                WatchdogError("the request failed in the daemon", remedy="read the daemon's log")
            )

    def _start(self, handler: Handler, request: protocol.Request, client: _ClientConnection) -> None:
        if handler.is_single and self._in_background[request.name]:
            raise WatchdogError(f"another {request.name} is under way", remedy="try again when it has ended")
        if self._in_background.total() >= MAX_IN_BACKGROUND:
            raise WatchdogError("too many requests wait for the disk", remedy="see bpf-watchdog status")
        self._in_background[request.name] += 1

        def run() -> None:
            has_turn = not handler.is_single and self._turn.acquire(timeout=TURN_TIMEOUT_SECONDS)
            try:
                response = self._response(handler, request)
            finally:
                if has_turn:
                    self._turn.release()
            self._finished.put((client, request.name, response))
            with contextlib.suppress(OSError):  # the server has stopped
                self._wakeup_sender.send(b"x")

        thread = threading.Thread(target=run, name=f"control-{request.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # any user can use up the host's threads
            self._in_background[request.name] -= 1
            raise WatchdogError("no further thread can be started on this host", remedy="try again later") from None

    def _answer_finished(self) -> None:
        while not self._finished.empty():
            client, name, response = self._finished.get()
            self._in_background[name] -= 1
            if client.peer in self._clients:
                client.answer(response)
                self._selector.register(client.peer, selectors.EVENT_WRITE, client)


def _parse(line: bytes) -> protocol.Request:
    if len(line) > protocol.MAX_REQUEST_BYTES:
        raise UsageError(f"a request can have at most {protocol.MAX_REQUEST_BYTES} bytes")
    return protocol.parse_request(line)


class _ClientConnection:
    """One connection: a request, then a response. `deadline`: seconds of CLOCK_MONOTONIC at which it is closed."""

    def __init__(self, peer: socket.socket, *, is_permitted: bool) -> None:
        self.peer = peer
        self.is_permitted = is_permitted
        self.deadline = time.monotonic() + REQUEST_TIMEOUT_SECONDS
        self.unsent: memoryview | None = None
        self._received = bytearray()

    def read(self) -> bytes | None:
        """Return the request once it is complete or too long, else None."""
        chunk = self.peer.recv(_CHUNK)
        self._received += chunk
        line, end, _ = self._received.partition(b"\n")
        if not chunk and not line:
            raise ConnectionAbortedError  # it closed without a request
        return bytes(line) if end or not chunk or len(line) > protocol.MAX_REQUEST_BYTES else None

    def wait_for_result(self) -> None:
        self.deadline = time.monotonic() + BACKGROUND_TIMEOUT_SECONDS

    def answer(self, answer: bytes) -> None:
        self.unsent = memoryview(answer)
        self.deadline = time.monotonic() + RESPONSE_WRITE_TIMEOUT_SECONDS

    def write(self) -> bool:
        """Write without blocking; return whether the response has been written completely."""
        self.unsent = (self.unsent or memoryview(b""))[self.peer.send(self.unsent or b"") :]
        return not self.unsent
