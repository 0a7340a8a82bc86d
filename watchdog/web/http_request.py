"""One HTTP request: which are answered, and the bytes of the responses. Nothing but the given pages is served."""

from __future__ import annotations

import http.client
import io
import ipaddress
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from watchdog.web.web_page import Pages, WebRequest

MAX_HEAD_BYTES: Final = 8_192
END_OF_HEAD: Final = b"\r\n\r\n"
_METHODS: Final = ("GET", "HEAD")
# RFC 9112, section 3: no other space, no control character, only the versions that are answered.
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([!-~]{1,4096}) HTTP/1\.([01])")
_HEADER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]{0,5})?", re.ASCII)


class RefusedRequest(Exception):
    """A request that gets an error, with its status."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        """Keep the status, and the reason as one line of the body."""
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class HostCheck:
    """The values of `Host` that are answered: a web page that points its own name at this address gets nothing.

    `names`: further names, in lower case. `only_loopback`: addresses must be of the loopback too.
    """

    names: Collection[str]
    only_loopback: bool

    def accepts(self, host: str) -> bool:
        """Return whether the value of a header `Host` names this server."""
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].lower()
        if name == "localhost" or name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return address.is_loopback or not self.only_loopback


def respond(head: bytes, hosts: HostCheck, pages: Pages) -> bytes:
    """Return the response to the request `head`, without its last empty line."""
    is_head = head.startswith(b"HEAD ")
    try:
        request = _read(head, hosts, pages)
    except RefusedRequest as error:
        return refusal(error.status, str(error), is_head=is_head)
    page = pages[request.path](request)
    return _pack(HTTPStatus.OK, page.content_type, page.body, page.headers, is_head=is_head)


def refusal(status: HTTPStatus, reason: str, *, is_head: bool = False) -> bytes:
    """Return the response of an error."""
    return _pack(status, "text/plain; charset=utf-8", f"{reason}\n".encode(), is_head=is_head)


def _read(head: bytes, hosts: HostCheck, pages: Pages) -> WebRequest:
    """Return a request for one of `pages`.

    Raises:
        RefusedRequest: it is any other request.
    """
    line, *header_lines = head.split(b"\r\n")
    found = _REQUEST_LINE.fullmatch(line)
    if found is None or not all(map(_HEADER_LINE.fullmatch, header_lines)):
        raise RefusedRequest(HTTPStatus.BAD_REQUEST, "not a request of HTTP/1.0 or HTTP/1.1")
    try:
        headers = http.client.parse_headers(io.BytesIO(b"".join(each + b"\r\n" for each in header_lines) + b"\r\n"))
    except http.client.HTTPException:  # more than 100 headers
        raise RefusedRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many headers") from None
    host = headers.get_all("Host", [])
    if len(host) != 1 or not hosts.accepts(host[0].strip()):
        raise RefusedRequest(HTTPStatus.MISDIRECTED_REQUEST, "Host is not this server: see hosts in [web]")
    if "Transfer-Encoding" in headers or any(value.strip() != "0" for value in headers.get_all("Content-Length", [])):
        raise RefusedRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a request must have no body")
    if found[1].decode() not in _METHODS:
        raise RefusedRequest(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are possible")
    path, _, query = found[2].decode().partition("?")
    if path not in pages:
        raise RefusedRequest(HTTPStatus.NOT_FOUND, f"not here; here is {', '.join(pages)}")
    return WebRequest(path, query, ",".join(headers.get_all("Accept", [])))


def _pack(
    status: HTTPStatus,
    content_type: str,
    body: bytes,
    more_headers: Iterable[tuple[str, str]] = (),
    *,
    is_head: bool,
) -> bytes:
    headers = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
        *(f"{name}: {value}" for name, value in more_headers),
        *(["Allow: GET, HEAD"] if status is HTTPStatus.METHOD_NOT_ALLOWED else []),
    ]
    return "".join(f"{line}\r\n" for line in headers).encode() + b"\r\n" + (b"" if is_head else body)
