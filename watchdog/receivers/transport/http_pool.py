"""One connection for one request, below requests and urllib3: every socket is opened here, and nothing else opens one.

Of the libraries only what every version from requests 2.28 and urllib3 1.26 on has is used: `HTTPAdapter.send`, which a
session calls, and `connect` of http.client. The hooks of `HTTPAdapter.send` itself differ: requests 2.31 and older
never call `get_connection_with_tls_context`. `require_guards` tries the whole way once, when it is imported.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests
import requests.adapters
import urllib3
from urllib3 import connection, connectionpool

from watchdog.errors import WatchdogError
from watchdog.receivers.transport.attempt_guard import AttemptGuard
from watchdog.receivers.transport.connect import connect_tcp
from watchdog.receivers.transport.deadline import Deadline
from watchdog.receivers.transport.host_names import tls_name
from watchdog.receivers.transport.http_response import FinalResponse
from watchdog.receivers.transport.proxy import Proxy

_TRIAL_SECONDS = 5.0
_TRIAL_ANSWER = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"


class ProxyRefusal(OSError):
    """The proxy did not open a tunnel. `status`: of its answer."""

    def __init__(self, status: int) -> None:
        """Keep the status of the answer."""
        super().__init__(f"the proxy answered {status}")
        self.status = status


@dataclass(slots=True)
class ConnectionAttempt:
    """Deadline and proxy for the connections of one request, and whether all of the request was sent."""

    deadline: Deadline
    guard: AttemptGuard
    proxy: Proxy | None
    tls_context: ssl.SSLContext | None = None  # None: plain HTTP
    connect: Callable[[str, int, Deadline], socket.socket] = connect_tcp
    was_sent: bool = False

    def open_connection(self, host: str, port: int) -> socket.socket:
        """Return a connection to `host`, to its proxy in plain HTTP, or through the proxy's tunnel with TLS.

        Raises:
            DeliveryError: as `connect_tcp`.
            ProxyRefusal: no tunnel.
            OSError: the tunnel or TLS failed.
        """
        at = (host, port) if self.proxy is None else (self.proxy.host, self.proxy.port)
        tcp = self.connect(*at, self.deadline)
        try:
            self.guard.watch_socket(tcp)
            if self.tls_context is None:
                return tcp
            if self.proxy is not None:
                _open_tunnel(tcp, host, port, self.proxy)
            return self.tls_context.wrap_socket(tcp, server_hostname=tls_name(host))
        except BaseException:
            tcp.close()
            raise


def _open_tunnel(tcp: socket.socket, host: str, port: int, proxy: Proxy) -> None:
    """Ask the proxy at `tcp` for a tunnel; RFC 9110 §9.3.6."""
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    fields = {"Host": target, **proxy.headers}
    lines = [f"CONNECT {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    tcp.sendall("\r\n".join(lines).encode("latin-1"))
    with FinalResponse(tcp, method="CONNECT") as answer:
        answer.begin()
        if not 200 <= answer.status < 300:  # noqa: PLR2004 - RFC 9110 §15.3
            raise ProxyRefusal(answer.status)


def open_pool(host: str, port: int, attempt: ConnectionAttempt) -> connectionpool.HTTPConnectionPool:
    """Return a pool whose connections `attempt` opens."""
    kind = _PlainPool if attempt.tls_context is None else _TlsPool
    options: dict[str, Any] = {"attempt": attempt}
    return kind(host, port, **options)


class SinglePoolAdapter(requests.adapters.HTTPAdapter):
    """Sends every request through one given pool, once: no retry, no redirect, no file read at send time."""

    def __init__(self, pool: connectionpool.HTTPConnectionPool) -> None:
        """Send through `pool`, and close it at the end."""
        super().__init__()
        self._pool = pool

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: ARG002, FBT001, FBT002 - the signature of requests
        timeout: Any = None,
        verify: Any = True,  # noqa: ARG002, FBT002
        cert: Any = None,  # noqa: ARG002
        proxies: Any = None,
    ) -> requests.Response:
        """Send `request`; TLS, proxy and connection are those of the pool.

        Raises:
            urllib3.exceptions.HTTPError: no response; with the cause.
            DeliveryError: as `connect_tcp`.
        """
        response = self._pool.urlopen(
            method=str(request.method),
            url=self.request_url(request, proxies),
            body=request.body,
            headers=request.headers,
            retries=urllib3.Retry(0, read=False),
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(connect=timeout, read=timeout),
        )
        return self.build_response(request, response)

    def close(self) -> None:
        """Close the pool."""
        self._pool.close()
        super().close()


class _GuardedConnection(connection.HTTPConnection):
    """Connects as its attempt does: under a deadline, never to a metadata service, watched by the guard."""

    response_class = FinalResponse

    def __init__(self, *args: Any, attempt: ConnectionAttempt, **options: Any) -> None:
        super().__init__(*args, **options)
        self._attempt = attempt

    def connect(self) -> None:
        self.sock = self._attempt.open_connection(self.host.strip("[]"), int(self.port))

    def request(self, *args: Any, **options: Any) -> None:
        super().request(*args, **options)
        self._attempt.was_sent = True


class _GuardedTlsConnection(_GuardedConnection, connection.HTTPSConnection):
    """The same with TLS."""

    def connect(self) -> None:
        super().connect()
        self.is_verified = True  # each context of `tls` requires a certificate of a trusted authority


class _PlainPool(connectionpool.HTTPConnectionPool):
    ConnectionCls = _GuardedConnection


class _TlsPool(connectionpool.HTTPSConnectionPool):
    ConnectionCls = _GuardedTlsConnection


class _Reached(Exception):
    """A connection was about to be opened by the function that has to open it."""


def require_guards() -> None:
    """Send one request within this process, and begin one with TLS, through all parts of both libraries.

    Raises:
        WatchdogError: they go past the connection or the reader of responses of this module: deadlines, limits and the
            refusal of metadata services would not hold.
    """
    try:
        passed = _plain_request_is_guarded() and _tls_request_is_guarded()
    except Exception as error:
        raise _unusable_libraries() from error
    if not passed:
        raise _unusable_libraries()


def _unusable_libraries() -> WatchdogError:
    versions = f"requests {requests.__version__} with urllib3 {urllib3.__version__}"  # type: ignore[attr-defined]
    return WatchdogError(
        f"cannot send with {versions}: deadlines and refused addresses would not hold",
        remedy="install requests 2.28 to 2.x with urllib3 1.26 to 2.x",
    )


def _plain_request_is_guarded() -> bool:
    ours, peer = socket.socketpair()
    deadline = Deadline(_TRIAL_SECONDS)
    guard = AttemptGuard(deadline)
    with contextlib.ExitStack() as stack:
        stack.enter_context(ours)
        stack.enter_context(peer)
        stack.push(guard)  # never started: it closes its descriptor only
        peer.sendall(_TRIAL_ANSWER)
        attempt = ConnectionAttempt(deadline, guard, None, connect=lambda *_: ours)
        status = _send_trial(attempt, "http")
        return status == 204 and attempt.was_sent and peer.recv(1) != b""  # noqa: PLR2004 - the trial's answer


def _tls_request_is_guarded() -> bool:
    def reach(*_: object) -> socket.socket:
        raise _Reached

    deadline = Deadline(_TRIAL_SECONDS)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        _send_trial(ConnectionAttempt(deadline, AttemptGuard(deadline), None, context, reach), "https")
    except _Reached:
        return True
    return False


def _send_trial(attempt: ConnectionAttempt, scheme: str) -> int:
    """Return the status of the response; without a guard the request would go to the port discard of this host."""
    with requests.Session() as session:
        session.trust_env = False
        session.mount(f"{scheme}://", SinglePoolAdapter(open_pool("127.0.0.1", 9, attempt)))
        url = f"{scheme}://127.0.0.1:9/"
        with session.post(url, data=b"trial", timeout=_TRIAL_SECONDS, stream=True) as response:
            return response.status_code


require_guards()
