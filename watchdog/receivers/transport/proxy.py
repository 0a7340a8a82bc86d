"""The HTTP proxy of a receiver: only the one in its table, never a proxy of the environment."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass

from watchdog.config.document import Table
from watchdog.receivers.transport.host_names import host_problem
from watchdog.receivers.transport.http_headers import basic_authorization

_DEFAULT_PORT = 3_128  # the port registered by squid for HTTP proxies; curl's default, 1080, is that of SOCKS


@dataclass(frozen=True, slots=True)
class Proxy:
    """Host and port of a proxy, and the header fields with the login, if it needs one."""

    host: str
    port: int
    headers: dict[str, str]


def proxy_from_table(table: Table) -> Proxy | None:
    """Read the secret `proxy`, a URL that may hold a login; None if it is not given."""
    url = table.secret("proxy", required=False)
    if url is None:
        return None
    try:
        return parse_proxy_url(url.reveal())
    except ValueError:
        table.add_problem(
            table.given_form("proxy") or "proxy", f"write it like http://proxy.example.net:{_DEFAULT_PORT}"
        )
    return None


def parse_proxy_url(text: str) -> Proxy:
    """Return the proxy at a URL like `http://user:password@host:port`.

    Raises:
        ValueError: not the URL of an HTTP proxy; the error text does not contain it.
    """
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("not a URL") from None
    is_proxy = parts.scheme == "http" and port != 0 and not parts.path.strip("/") and not parts.query
    if not is_proxy or not parts.hostname or host_problem(parts.hostname):
        raise ValueError("not the URL of a proxy")
    headers = {}
    if parts.username is not None:
        username, password = urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or "")
        headers["Proxy-Authorization"] = basic_authorization(username, password)
    return Proxy(parts.hostname, port or _DEFAULT_PORT, headers)
