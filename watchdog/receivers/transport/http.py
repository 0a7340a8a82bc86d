"""One request to one URL, under a total deadline; no redirects, cookies, .netrc or proxies of the environment.

The status of the response decides. At most 64 KiB of the body are read, unless the caller asks for more; only receivers
with a closed list of known bodies use it. All modules and certificates needed to send are read when an `Endpoint` is
created: the daemon may be unable to read them after it gives up its privileges. Errors show the host of a URL and
nothing else of it.
"""

from __future__ import annotations

import encodings.latin_1  # noqa: F401 - Python imports it at the first header field
import json
import ssl
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import requests
import urllib3
from urllib3.exceptions import HTTPError as TransportError

from watchdog import __version__
from watchdog.config.document import Table
from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError, DeliveryErrorReason, UncertainDeliveryError
from watchdog.receivers.transport.attempt_guard import AttemptGuard
from watchdog.receivers.transport.connect import reject_metadata_behind_proxy
from watchdog.receivers.transport.deadline import Deadline
from watchdog.receivers.transport.host_names import host_problem
from watchdog.receivers.transport.http_headers import reject_second_login
from watchdog.receivers.transport.http_pool import ConnectionAttempt, ProxyRefusal, SinglePoolAdapter, open_pool
from watchdog.receivers.transport.http_response import AnswerTooLong, parse_http_date, parse_retry_after
from watchdog.receivers.transport.proxy import Proxy, proxy_from_table
from watchdog.receivers.transport.tls import certificate_error, host_tls_context, tls_context_from_table

MAX_RESPONSE_BYTES = 65_536

_NO_HEADERS: Mapping[str, Secret] = MappingProxyType({})
_PLACEHOLDER_URL = Secret("http://unset.invalid/")  # RFC 2606 §2: .invalid never resolves
_TIMEOUTS = (TimeoutError, urllib3.exceptions.TimeoutError)
_RETRYABLE_CLIENT_ERRORS = (408, 425)  # RFC 9110 §15.5.9 Request Timeout, RFC 8470 §5.2 Too Early


@dataclass(frozen=True, slots=True)
class HttpTransport:
    """TLS context and proxy, shared by endpoints."""

    tls_context: ssl.SSLContext
    proxy: Proxy | None = None


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """Status, first bytes of the body, and the values of Retry-After and Date, None if there is none.

    `date`: the clock of the server, in seconds since 1970.
    """

    status: int
    body: bytes
    retry_after_seconds: float | None
    date: float | None = None

    def json_object(self) -> dict[str, Any] | None:
        """Return the JSON object that is the body; None if it is something else, cut off, or nested too deeply."""
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) else None

    @property
    def is_success(self) -> bool:
        """Return whether the server accepted the request: status 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - RFC 9110 §15.3


class Endpoint:
    """A URL that receives requests."""

    def __init__(self, url: Secret, transport: HttpTransport | None = None) -> None:
        """Parse `url`; without a `transport`, connect without proxy and trust the host's certificate authorities.

        Raises:
            ValueError: not an http or https URL with a host; the error text does not contain the URL.
        """
        text = url.reveal()
        if not text.isprintable() or " " in text:  # urlsplit() removes line breaks
            raise ValueError("not a URL: it must be one line without spaces")
        try:
            parts = urllib.parse.urlsplit(text)
            port = parts.port
        except ValueError:
            raise ValueError("not a URL") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ValueError("must begin with https:// or http:// and a host name")
        if problem := host_problem(parts.hostname):
            raise ValueError(f"the host of the URL {problem}")
        try:
            self._url = requests.Request("POST", text).prepare().url or ""
        except (ValueError, requests.RequestException):
            raise ValueError("not a URL") from None
        self.host = parts.hostname
        self._is_https = parts.scheme == "https"
        self._port = port or (443 if self._is_https else 80)
        self.transport = transport or HttpTransport(host_tls_context())

    def with_path_suffix(self, suffix: str) -> Endpoint:
        """Return the endpoint with `suffix` appended to the path of the URL."""
        parts = urllib.parse.urlsplit(self._url)
        url = parts._replace(path=parts.path.rstrip("/") + suffix).geturl()
        return Endpoint(Secret(url), self.transport)

    def get(self, headers: Mapping[str, str], deadline_seconds: float) -> HttpResponse:
        """Send a GET request without a body; return and raise as `post`."""
        return self._request("GET", None, headers, deadline_seconds, MAX_RESPONSE_BYTES)

    def post(
        self,
        body: bytes,
        headers: Mapping[str, str],
        deadline_seconds: float,
        *,
        max_bytes: int = MAX_RESPONSE_BYTES,
    ) -> HttpResponse:
        """Post `body`; return the response with the first `max_bytes` of its body, also if the status is an error.

        Raises:
            UncertainDeliveryError: all was sent, and there was no usable response.
            DeliveryError: `timeout`, `dns`, `connect`, `tls` or `forbidden_address`, at `deadline_seconds` at the
                latest.
        """
        return self._request("POST", body, headers, deadline_seconds, max_bytes)

    def _request(
        self, method: str, body: bytes | None, headers: Mapping[str, str], deadline_seconds: float, max_bytes: int
    ) -> HttpResponse:
        deadline = Deadline(deadline_seconds)
        with AttemptGuard(deadline) as guard:
            context = self.transport.tls_context if self._is_https else None
            attempt = ConnectionAttempt(deadline, guard, self.transport.proxy, context)
            try:
                return self._exchange(method, body, headers, attempt, max_bytes)
            except (OSError, TransportError) as error:  # requests.RequestException is an OSError
                raise self._delivery_error(error, attempt) from None

    def _exchange(
        self,
        method: str,
        body: bytes | None,
        headers: Mapping[str, str],
        attempt: ConnectionAttempt,
        max_bytes: int,
    ) -> HttpResponse:
        proxy = self.transport.proxy
        if proxy is not None:  # it connects: here only the name can be checked
            reject_metadata_behind_proxy(self.host, attempt.deadline)
        with requests.Session() as session:
            session.trust_env = False  # no proxy from the environment, no .netrc
            session.headers.clear()
            pool = open_pool(self.host, self._port, attempt)
            session.mount(f"{'https' if self._is_https else 'http'}://", SinglePoolAdapter(pool))
            response = session.request(
                method,
                self._url,
                data=body,
                headers={
                    "User-Agent": f"bpf-watchdog/{__version__}",
                    "Accept-Encoding": "identity",  # no decompression bombs
                    "Connection": "close",
                    **(proxy.headers if proxy is not None and not self._is_https else {}),
                    **headers,
                },
                proxies={"http": "http://proxy"}
                if proxy is not None
                else {},  # makes requests send the whole URL; not an address
                timeout=attempt.deadline.socket_timeout(),
                allow_redirects=False,
                stream=True,
            )
            with response:
                if attempt.guard.was_shut_down:  # http.client takes cut-off header fields for complete ones
                    raise TimeoutError
                retry_after = parse_retry_after(response.headers.get("Retry-After"), time.time())
                date = parse_http_date(response.headers.get("Date"))
                return HttpResponse(response.status_code, _read_at_most(response.raw, max_bytes), retry_after, date)

    def _delivery_error(self, error: Exception, attempt: ConnectionAttempt) -> DeliveryError:
        causes = _causes(error)
        error_type = UncertainDeliveryError if attempt.was_sent else DeliveryError
        limit = next((str(cause) for cause in causes if isinstance(cause, AnswerTooLong)), attempt.guard.exceeded_limit)
        if limit is not None:
            return error_type(DeliveryErrorReason.CONNECT, f"{self.host}: answer too long: {limit}", retryable=True)
        if attempt.guard.has_expired or any(isinstance(cause, _TIMEOUTS) for cause in causes):
            return error_type(DeliveryErrorReason.TIMEOUT, f"{self.host}: no complete answer in time", retryable=True)
        for cause in causes:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return certificate_error(self.host, cause)
            if attempt.proxy is not None and isinstance(cause, ProxyRefusal):
                text = f"{self.host}: the proxy {attempt.proxy.host} answered {cause.status}"
                return DeliveryError(DeliveryErrorReason.CONNECT, text, retryable=True)
        if any(isinstance(cause, (ssl.SSLError, urllib3.exceptions.SSLError)) for cause in causes):
            # An alert refuses the request, such as one without a client certificate; a mere end of the stream does not.
            has_ended = any(isinstance(cause, ssl.SSLEOFError) for cause in causes)
            tls_error_type = error_type if has_ended else DeliveryError
            return tls_error_type(DeliveryErrorReason.TLS, f"{self.host}: TLS failed", retryable=True)
        return error_type(
            DeliveryErrorReason.CONNECT, f"{self.host}: connection broken before the answer", retryable=True
        )


def http_transport_from_table(table: Table) -> HttpTransport:
    """Read `ca_file`, `cert_file`, `key_file` and `proxy`; none is required."""
    return HttpTransport(tls_context_from_table(table), proxy_from_table(table))


def endpoint_from_table(
    table: Table, key: str, *, is_public_allowed: bool = False, headers: Mapping[str, Secret] = _NO_HEADERS
) -> Endpoint:
    """Return the endpoint with the URL at the secret `key` and the transport of `http_transport_from_table`.

    After a problem, the endpoint is a placeholder that never resolves. `is_public_allowed`: the URL may hold no secret,
    so it may stand in a file that others can read. `headers`: as configured; the URL must not have a second login.
    """
    url = table.secret(key, is_url=is_public_allowed)
    reject_second_login(table, key, url, headers)
    transport = http_transport_from_table(table)
    return endpoint_from_url(table, table.given_form(key) or key, url or _PLACEHOLDER_URL, transport)


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
        return Endpoint(_PLACEHOLDER_URL, transport)


def raise_for_status(response: HttpResponse, host: str, hint: str = "") -> None:
    """Raise unless `host` accepted the request; `hint` is appended to the error text.

    Raises:
        DeliveryError: `rate_limited`, `auth`, `redirect`, `client_error` or `server_error`.
    """
    status, wait_seconds = response.status, response.retry_after_seconds
    if response.is_success:
        return
    text = f"{host} answered {status}{hint}"
    if status == 429:  # noqa: PLR2004 - RFC 6585 §4 Too Many Requests
        raise DeliveryError(DeliveryErrorReason.RATE_LIMITED, text, retryable=True, retry_after_seconds=wait_seconds)
    if status in (401, 403):
        raise DeliveryError(DeliveryErrorReason.AUTH, text, retryable=False)
    if status < 400:  # noqa: PLR2004 - RFC 9110 §15.4
        raise DeliveryError(
            DeliveryErrorReason.REDIRECT,
            f"{text}: redirects are not followed: configure the final URL",
            retryable=False,
        )
    if status < 500:  # noqa: PLR2004 - RFC 9110 §15.5
        retryable = status in _RETRYABLE_CLIENT_ERRORS
        raise DeliveryError(
            DeliveryErrorReason.CLIENT_ERROR,
            text,
            retryable=retryable,
            retry_after_seconds=wait_seconds if retryable else None,
        )
    # RFC 9110 §15.6.5 Gateway Timeout: the server behind the gateway may have taken the message.
    error_type = UncertainDeliveryError if status == 504 else DeliveryError  # noqa: PLR2004
    raise error_type(DeliveryErrorReason.SERVER_ERROR, text, retryable=True, retry_after_seconds=wait_seconds)


def undocumented_answer(host: str, status: int, wanted: str) -> DeliveryError:
    """Return the error for a 2xx answer that the service of `host` never gives: a login page or a captive portal.

    `wanted`: the documented answer, in words. The message is taken as not delivered.
    """
    text = f"{host} answered {status} without {wanted}: the answer is not from the service"
    return DeliveryError(DeliveryErrorReason.SERVER_ERROR, text, retryable=True)


def _read_at_most(raw: urllib3.BaseHTTPResponse, max_bytes: int) -> bytes:
    # The status has decided already: after an endless or broken body the notification is not sent again.
    body = b""
    try:
        while len(body) < max_bytes and (chunk := raw.read(max_bytes - len(body))):
            body += chunk
    except (OSError, TransportError):
        pass
    return body


def _causes(error: BaseException) -> list[BaseException]:
    """Return `error` and the errors that it wraps, as cause, context or argument: both libraries wrap errors."""
    found: list[BaseException] = []
    unchecked: list[object] = [error]
    while unchecked:
        current = unchecked.pop()
        if isinstance(current, BaseException) and current not in found:
            found.append(current)
            unchecked += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
    return found
