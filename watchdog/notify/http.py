"""One POST to one URL: under a total deadline, without redirects, proxies, cookies or stored logins.

The answer's status decides; its body is read for politeness, 64 KiB at most, and only a receiver that knows a closed
list of answers looks at it. All modules and certificates that sending needs are read by the time an `Endpoint` is made:
the daemon may be unable to read them once it has given up its privileges. Nothing of a URL but its host ever shows in
an error.
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
from pathlib import Path
from typing import Any

import certifi
import requests
import requests.adapters
import urllib3
from urllib3 import connection, connectionpool
from urllib3.exceptions import HTTPError as TransportError

from watchdog import __version__
from watchdog.document import Table, secret_forms
from watchdog.errors import DeliveryError
from watchdog.notify.dial import Deadline, Tripwire, connect
from watchdog.secret import Secret

MOST_ANSWER_BYTES = 65_536

_NOWHERE = Secret("http://unset.invalid/")  # RFC 2606 §2: a name that never resolves
_RETRYABLE_CLIENT_ERRORS = (408, 425)  # RFC 9110 §15.5.9 Request Timeout, RFC 8470 §5.2 Too Early


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said: the status, the first bytes of the body, and how long it asked us to wait."""

    status: int
    body: bytes
    retry_after_seconds: float | None

    @property
    def accepted(self) -> bool:
        """Tell whether the server has taken what was posted."""
        return 200 <= self.status < 300  # noqa: PLR2004 - RFC 9110 §15.3


class Endpoint:
    """A URL that is posted to."""

    def __init__(self, url: Secret) -> None:
        """Take `url` apart and read what TLS needs.

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
        self._tls = _tls_context() if self._secure else None

    def post(self, body: bytes, headers: Mapping[str, str], deadline_seconds: float) -> Answer:
        """Post `body` and return the answer, whatever its status.

        Raises:
            DeliveryError: `timeout`, `dns`, `connect`, `tls` or `forbidden_address`; after `deadline_seconds` at the
                latest.
        """
        deadline = Deadline(deadline_seconds)
        with Tripwire(deadline) as tripwire:
            try:
                return self._exchange(body, headers, deadline, tripwire)
            except (OSError, TransportError) as error:  # requests.RequestException is an OSError
                raise self._classify(error, timed_out=tripwire.tripped) from None

    def _exchange(self, body: bytes, headers: Mapping[str, str], deadline: Deadline, tripwire: Tripwire) -> Answer:
        pool = self._pool(deadline, tripwire)
        with requests.Session() as session:
            session.trust_env = False  # no proxy from the environment, no .netrc
            session.headers.clear()
            session.mount(f"{'https' if self._secure else 'http'}://", _OnePool(pool))
            response = session.post(
                self._url,
                data=body,
                headers={
                    "User-Agent": f"bpf-watchdog/{__version__}",
                    "Accept-Encoding": "identity",  # no decompression bombs
                    "Connection": "close",
                    **headers,
                },
                timeout=max(0.001, deadline.remaining()),
                allow_redirects=False,
                stream=True,
            )
            with response:
                if tripwire.tripped:  # http.client takes headers that break off for complete ones
                    raise TimeoutError
                retry_after = parse_retry_after(response.headers.get("Retry-After"), time.time())
                return Answer(response.status_code, _read_some(response.raw), retry_after)

    def _pool(self, deadline: Deadline, tripwire: Tripwire) -> connectionpool.HTTPConnectionPool:
        dialling: dict[str, Any] = {"deadline": deadline, "tripwire": tripwire}
        if self._secure:
            return _SecurePool(self.host, self._port, ssl_context=self._tls, **dialling)
        return _PlainPool(self.host, self._port, **dialling)

    def _classify(self, error: Exception, *, timed_out: bool) -> DeliveryError:
        causes = _causes(error)
        if timed_out or any(isinstance(cause, (TimeoutError, requests.Timeout)) for cause in causes):
            return DeliveryError("timeout", f"{self.host}: no complete answer in time", retryable=True)
        for cause in causes:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return DeliveryError("tls", f"{self.host}: certificate refused: {cause.verify_message}", retryable=True)
        if any(isinstance(cause, (ssl.SSLError, requests.exceptions.SSLError)) for cause in causes):
            return DeliveryError("tls", f"{self.host}: TLS failed", retryable=True)
        return DeliveryError("connect", f"{self.host}: connection broken before the answer", retryable=True)


def endpoint_from_table(table: Table, key: str, *, may_be_public: bool = False) -> Endpoint:
    """Return the endpoint whose URL is the secret at `key`; one that leads nowhere, where a problem has been noted.

    `may_be_public`: not every such URL is a secret.
    """
    url = table.secret(key, is_url=may_be_public)
    try:
        return Endpoint(url or _NOWHERE)
    except ValueError as error:
        given = next(form for form in secret_forms(key) if form in table)
        table.problem(given, str(error))
        return Endpoint(_NOWHERE)


def check(answer: Answer, host: str, hint: str = "") -> None:
    """Return if `answer` says that `host` has taken what was posted; `hint` is added to the error if not.

    Raises:
        DeliveryError: `rate_limited`, `auth`, `redirect`, `client_error` or `server_error`.
    """
    status, wait = answer.status, answer.retry_after_seconds
    if answer.accepted:
        return
    said = f"{host} answered {status}{hint}"
    if status == 429:  # noqa: PLR2004 - RFC 6585 §4 Too Many Requests
        raise DeliveryError("rate_limited", said, retryable=True, retry_after_seconds=wait)
    if status in (401, 403):
        raise DeliveryError("auth", said, retryable=False)
    if status < 400:  # noqa: PLR2004 - RFC 9110 §15.4
        raise DeliveryError("redirect", f"{said}: redirects are not followed, give the final URL", retryable=False)
    if status < 500:  # noqa: PLR2004 - RFC 9110 §15.5
        again = status in _RETRYABLE_CLIENT_ERRORS
        raise DeliveryError("client_error", said, retryable=again, retry_after_seconds=wait if again else None)
    raise DeliveryError("server_error", said, retryable=True, retry_after_seconds=wait)


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


def _tls_context() -> ssl.SSLContext:
    """Trust what the host trusts, so that an organisation's own authorities count; certifi's list where it has none."""
    context = ssl.create_default_context()
    folder = Path(ssl.get_default_verify_paths().capath or "/nonexistent")  # looked into at each handshake
    if not context.get_ca_certs() and not (folder.is_dir() and any(folder.iterdir())):
        context.load_verify_locations(certifi.where())
    return context


def _read_some(raw: urllib3.BaseHTTPResponse) -> bytes:
    # The status has decided already: an endless or broken body is no reason to send the notice again.
    body = b""
    try:
        while len(body) < MOST_ANSWER_BYTES and (chunk := raw.read(MOST_ANSWER_BYTES - len(body))):
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


class _OnePool(requests.adapters.HTTPAdapter):
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


class _Dialled(connection.HTTPConnection):
    """Connects under a deadline, never to a metadata service, and puts the socket under the tripwire."""

    def __init__(self, *args: Any, deadline: Deadline, tripwire: Tripwire, **options: Any) -> None:
        super().__init__(*args, **options)
        self._deadline = deadline
        self._tripwire = tripwire

    def _new_conn(self) -> socket.socket:
        made = connect(self.host.strip("[]"), self.port, self._deadline, refuse_metadata=True)
        self._tripwire.watch(made)
        return made


class _SecurelyDialled(_Dialled, connection.HTTPSConnection):
    """The same with TLS above it."""


class _PlainPool(connectionpool.HTTPConnectionPool):
    ConnectionCls = _Dialled


class _SecurePool(connectionpool.HTTPSConnectionPool):
    ConnectionCls = _SecurelyDialled
