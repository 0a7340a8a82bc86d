"""One POST to one URL: under a total deadline, without redirects, cookies, stored logins or proxies of the environment.

The answer's status decides; of its body 64 KiB are read for politeness, more where it is asked for, and only a receiver
that knows a closed list of answers looks at it. All modules and certificates that sending needs are read by the time an
`Endpoint` is made: the daemon may be unable to read them once it has given up its privileges. Nothing of a URL but its
host ever shows in an error.
"""

from __future__ import annotations

import email.utils
import encodings.latin_1  # noqa: F401 - Python itself imports it at the first header
import re
import socket
import ssl
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests
import requests.adapters
import urllib3
from urllib3 import connection, connectionpool
from urllib3.exceptions import HTTPError as TransportError

from watchdog import __version__
from watchdog.config.document import Table
from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.receivers.transport.deadline import Deadline, DeadlineEnforcer, connect_tcp
from watchdog.receivers.transport.proxy import Proxy, is_metadata_host, proxy_from_table
from watchdog.receivers.transport.tls import host_tls_context, tls_context_from_table

MAX_RESPONSE_BYTES = 65_536

_NOWHERE = Secret("http://unset.invalid/")  # RFC 2606 §2: a name that never resolves
_RETRYABLE_CLIENT_ERRORS = (408, 425)  # RFC 9110 §15.5.9 Request Timeout, RFC 8470 §5.2 Too Early
_PROXY_REFUSES = re.compile(r"Tunnel connection failed: ([0-9]{3})")  # http.client's words


class UncertainDeliveryError(DeliveryError):
    """There was a connection, and no answer: what was posted may have arrived."""


@dataclass(frozen=True, slots=True)
class HttpTransport:
    """How endpoints are reached: the context of TLS, a proxy."""

    tls_context: ssl.SSLContext
    proxy: Proxy | None = None


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What the server said: the status, the first bytes of the body, and how long it asked us to wait."""

    status: int
    body: bytes
    retry_after_seconds: float | None

    @property
    def is_success(self) -> bool:
        """Tell whether the server has taken what was posted."""
        return 200 <= self.status < 300  # noqa: PLR2004 - RFC 9110 §15.3


class Endpoint:
    """A URL that is posted to."""

    def __init__(self, url: Secret, transport: HttpTransport | None = None) -> None:
        """Take `url` apart and read what TLS needs; without a `transport`: directly, trusting what the host trusts.

        Raises:
            ValueError: not an http or https URL with a host; the text does not show the URL.
        """
        text = url.reveal()
        if not text.isprintable() or " " in text:  # urlsplit() makes one URL of two lines
            raise ValueError("not a URL: it must be one line without spaces")
        try:
            parts = urllib.parse.urlsplit(text)
            port = parts.port
        except ValueError:
            raise ValueError("not a URL") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ValueError("must begin with https:// or http:// and a host name")
        try:
            self._url = requests.Request("POST", text).prepare().url or ""
        except (ValueError, requests.RequestException):
            raise ValueError("not a URL") from None
        self.host = parts.hostname
        self._secure = parts.scheme == "https"
        self._port = port or (443 if self._secure else 80)
        self._transport = transport or HttpTransport(host_tls_context())

    def post(
        self,
        body: bytes,
        headers: Mapping[str, str],
        deadline_seconds: float,
        *,
        max_bytes: int = MAX_RESPONSE_BYTES,
    ) -> HttpResponse:
        """Post `body` and return the answer, whatever its status, with the first `max_bytes` of its body.

        Raises:
            DeliveryError: `timeout`, `dns`, `connect`, `tls` or `forbidden_address`; after `deadline_seconds` at the
                latest.
        """
        deadline = Deadline(deadline_seconds)
        with DeadlineEnforcer(deadline) as tripwire:
            dialling = _ConnectionAttempt(deadline, tripwire, self._transport.proxy)
            try:
                return self._exchange(body, headers, dialling, max_bytes)
            except (OSError, TransportError) as error:  # requests.RequestException is an OSError
                raise self._classify(error, dialling) from None

    def _exchange(
        self, body: bytes, headers: Mapping[str, str], attempt: _ConnectionAttempt, max_bytes: int
    ) -> HttpResponse:
        proxy = self._transport.proxy
        if proxy is not None and is_metadata_host(self.host):  # the socket leads to the proxy: the name must do
            raise DeliveryError(
                DeliveryErrorReason.FORBIDDEN_ADDRESS,
                f"{self.host} is a link-local or metadata address",
                retryable=False,
            )
        with requests.Session() as session:
            session.trust_env = False  # no proxy from the environment, no .netrc
            session.headers.clear()
            session.mount(f"{'https' if self._secure else 'http'}://", _SinglePoolAdapter(self._pool(attempt)))
            response = session.post(
                self._url,
                data=body,
                headers={
                    "User-Agent": f"bpf-watchdog/{__version__}",
                    "Accept-Encoding": "identity",  # no decompression bombs
                    "Connection": "close",
                    **(proxy.headers if proxy is not None and not self._secure else {}),
                    **headers,
                },
                proxies={"http": "http://proxy"} if proxy is not None else {},  # asks for the whole URL, no more
                timeout=max(0.001, attempt.deadline.remaining()),
                allow_redirects=False,
                stream=True,
            )
            with response:
                if attempt.tripwire.has_expired:  # http.client takes headers that break off for complete ones
                    raise TimeoutError
                retry_after = parse_retry_after(response.headers.get("Retry-After"), time.time())
                return HttpResponse(response.status_code, _read_some(response.raw, max_bytes), retry_after)

    def _pool(self, attempt: _ConnectionAttempt) -> connectionpool.HTTPConnectionPool:
        options: dict[str, Any] = {"attempt": attempt}
        if self._secure:
            return _TlsPool(self.host, self._port, ssl_context=self._transport.tls_context, **options)
        return _PlainPool(self.host, self._port, **options)

    def _classify(self, error: Exception, attempt: _ConnectionAttempt) -> DeliveryError:
        causes = _causes(error)
        kind = UncertainDeliveryError if attempt.has_connected else DeliveryError
        if attempt.tripwire.has_expired or any(isinstance(cause, (TimeoutError, requests.Timeout)) for cause in causes):
            return kind(DeliveryErrorReason.TIMEOUT, f"{self.host}: no complete answer in time", retryable=True)
        for cause in causes:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return DeliveryError(
                    DeliveryErrorReason.TLS, f"{self.host}: certificate refused: {cause.verify_message}", retryable=True
                )
            if attempt.proxy is not None and (refused := _PROXY_REFUSES.match(str(cause))):
                said = f"the proxy {attempt.proxy.host} answered {refused[1]}"
                return DeliveryError(DeliveryErrorReason.CONNECT, f"{self.host}: {said}", retryable=True)
        if any(isinstance(cause, (ssl.SSLError, requests.exceptions.SSLError)) for cause in causes):
            return kind(DeliveryErrorReason.TLS, f"{self.host}: TLS failed", retryable=True)
        return kind(DeliveryErrorReason.CONNECT, f"{self.host}: connection broken before the answer", retryable=True)


def http_transport_from_table(table: Table) -> HttpTransport:
    """Read `ca_file`, `cert_file`, `key_file` and `proxy`, none of them required."""
    return HttpTransport(tls_context_from_table(table), proxy_from_table(table))


def endpoint_from_table(table: Table, key: str, *, is_public_allowed: bool = False) -> Endpoint:
    """Return the endpoint whose URL is the secret at `key`, reached as `http_transport_from_table` says.

    Where a problem has been noted, it leads nowhere. `is_public_allowed`: not every such URL is a secret.
    """
    url = table.secret(key, is_url=is_public_allowed)
    transport = http_transport_from_table(table)
    return endpoint_from_url(table, table.given_form(key) or key, url or _NOWHERE, transport)


def endpoint_from_url(
    table: Table, key: str, url: Secret, transport: HttpTransport, *, index: int | None = None
) -> Endpoint:
    """Return the endpoint of `url`; a bad URL is added to the problems of `key`, and the endpoint then leads nowhere.

    `index`: position of the URL in a list.
    """
    try:
        return Endpoint(url, transport)
    except ValueError as error:
        table.add_problem(key, str(error), index=index)
        return Endpoint(_NOWHERE, transport)


def raise_for_status(answer: HttpResponse, host: str, hint: str = "") -> None:
    """Return if `answer` says that `host` has taken what was posted; `hint` is added to the error if not.

    Raises:
        DeliveryError: `rate_limited`, `auth`, `redirect`, `client_error` or `server_error`.
    """
    status, wait = answer.status, answer.retry_after_seconds
    if answer.is_success:
        return
    said = f"{host} answered {status}{hint}"
    if status == 429:  # noqa: PLR2004 - RFC 6585 §4 Too Many Requests
        raise DeliveryError(DeliveryErrorReason.RATE_LIMITED, said, retryable=True, retry_after_seconds=wait)
    if status in (401, 403):
        raise DeliveryError(DeliveryErrorReason.AUTH, said, retryable=False)
    if status < 400:  # noqa: PLR2004 - RFC 9110 §15.4
        raise DeliveryError(
            DeliveryErrorReason.REDIRECT, f"{said}: redirects are not followed, give the final URL", retryable=False
        )
    if status < 500:  # noqa: PLR2004 - RFC 9110 §15.5
        again = status in _RETRYABLE_CLIENT_ERRORS
        raise DeliveryError(
            DeliveryErrorReason.CLIENT_ERROR, said, retryable=again, retry_after_seconds=wait if again else None
        )
    raise DeliveryError(DeliveryErrorReason.SERVER_ERROR, said, retryable=True, retry_after_seconds=wait)


def parse_retry_after(text: str | None, now: float) -> float | None:
    """Return the seconds that a Retry-After field asks to wait from `now` (wall clock), at least 0; None for nonsense.

    Source: RFC 9110 §10.2.3.
    """
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,300}", text):  # more digits than a float holds are nonsense
        return float(text)
    try:
        at = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, at - now)


def _read_some(raw: urllib3.BaseHTTPResponse, max_bytes: int) -> bytes:
    # The status has decided already: an endless or broken body is no reason to send the notice again.
    body = b""
    try:
        while len(body) < max_bytes and (chunk := raw.read(max_bytes - len(body))):
            body += chunk
    except (OSError, TransportError):
        pass
    return body


def _causes(error: BaseException) -> list[BaseException]:
    """Return `error` and everything that it was raised for: both libraries wrap, as cause, context or argument."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        current = waiting.pop()
        if isinstance(current, BaseException) and current not in found:
            found.append(current)
            waiting += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
    return found


class _SinglePoolAdapter(requests.adapters.HTTPAdapter):
    """Sends everything through one pool of our own, whose context verifies: no file is looked for at send time."""

    def __init__(self, pool: connectionpool.HTTPConnectionPool) -> None:
        super().__init__(max_retries=urllib3.Retry(0, read=False))
        self._pool = pool

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> connectionpool.HTTPConnectionPool:
        return self._pool

    def cert_verify(self, *_: Any) -> None:
        return

    def close(self) -> None:
        self._pool.close()
        super().close()


@dataclass(slots=True)
class _ConnectionAttempt:
    """What the connections of one attempt have to know, and whether one was made."""

    deadline: Deadline
    tripwire: DeadlineEnforcer
    proxy: Proxy | None
    has_connected: bool = False


class _DeadlineConnection(connection.HTTPConnection):
    """Connects under a deadline, never to a metadata service, and puts the socket under the tripwire."""

    def __init__(self, *args: Any, attempt: _ConnectionAttempt, **options: Any) -> None:
        super().__init__(*args, **options)
        self._dialling = attempt

    def _new_conn(self) -> socket.socket:
        proxy = self._dialling.proxy
        host, port = (self.host.strip("[]"), self.port) if proxy is None else (proxy.host, proxy.port)
        made = connect_tcp(host, port, self._dialling.deadline, forbid_metadata_addresses=True)
        self._dialling.has_connected = True
        self._dialling.tripwire.watch_socket(made)
        return made


class _DeadlineTlsConnection(_DeadlineConnection, connection.HTTPSConnection):
    """The same with TLS above it, through a tunnel where there is a proxy."""

    def __init__(self, *args: Any, attempt: _ConnectionAttempt, **options: Any) -> None:
        super().__init__(*args, attempt=attempt, **options)
        if attempt.proxy is not None:
            self.set_tunnel(self.host.strip("[]"), self.port, attempt.proxy.headers)


class _PlainPool(connectionpool.HTTPConnectionPool):
    ConnectionCls = _DeadlineConnection


class _TlsPool(connectionpool.HTTPSConnectionPool):
    ConnectionCls = _DeadlineTlsConnection
