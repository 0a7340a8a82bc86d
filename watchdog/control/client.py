"""Client side of the control socket, used by commands."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from watchdog.control import protocol
from watchdog.control.socket_path import socket_address
from watchdog.errors import DaemonUnreachable, NotPermitted

RESPONSE_TIMEOUT_SECONDS = 15.0
SLOW_RESPONSE_TIMEOUT_SECONDS = 90.0  # of requests that the daemon handles in the background
NO_DAEMON_REMEDY = "start it, or name its state folder with --state-dir, its socket with --control"
_CHUNK_BYTES = 65_536
_RETRY_SECONDS = 0.02


def send_request(path: Path, request_name: str, *, is_slow: bool = False, **arguments: object) -> Any:
    """Send a request to the daemon at `path`; return its result.

    `is_slow`: the daemon handles it in the background, and its answer can take a minute.

    Raises:
        DaemonUnreachable: no daemon listens there, or it does not answer in time.
        NotPermitted: this user may not connect.
        WatchdogError: the daemon's response is an error, with its exit code.
    """
    try:
        timeout_seconds = SLOW_RESPONSE_TIMEOUT_SECONDS if is_slow else RESPONSE_TIMEOUT_SECONDS
        line = _exchange(path, protocol.pack_request(protocol.Request(request_name, arguments)), timeout_seconds)
    except TimeoutError:
        raise DaemonUnreachable(f"the daemon at {path} does not answer") from None
    except PermissionError:
        remedy = "run this command as root, or as a member of the socket's group"
        raise NotPermitted(f"this user may not connect to the daemon at {path}", remedy=remedy) from None
    except OSError as error:
        text = f"no daemon answers at {path}: {error.strerror}"
        raise DaemonUnreachable(text, remedy=NO_DAEMON_REMEDY) from None
    if not line:
        raise DaemonUnreachable(f"the daemon at {path} closed the connection without an answer")
    return protocol.parse_response(line)


def _exchange(path: Path, request: bytes, timeout_seconds: float) -> bytes:
    deadline = time.monotonic() + timeout_seconds
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(timeout_seconds)
            _connect(peer, socket_address(path, folder), deadline)
            peer.sendall(request)
            return _read(peer, deadline)
    finally:
        os.close(folder)


def _connect(peer: socket.socket, address: str, deadline: float) -> None:
    # With a timeout set, connect() does not wait for a full queue of the listener: it fails at once (unix(7), EAGAIN).
    while True:
        try:
            peer.connect(address)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError from None
            time.sleep(_RETRY_SECONDS)
        else:
            return


def _read(peer: socket.socket, deadline: float) -> bytes:
    response = bytearray()
    while len(response) <= protocol.MAX_RESPONSE_BYTES and not response.endswith(b"\n"):
        left_seconds = deadline - time.monotonic()
        if left_seconds <= 0:  # a server that sends a byte now and then is no reason to go on
            raise TimeoutError
        peer.settimeout(left_seconds)
        chunk = peer.recv(_CHUNK_BYTES)
        if not chunk:
            break
        response += chunk
    return bytes(response)
