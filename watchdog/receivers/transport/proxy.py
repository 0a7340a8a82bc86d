"""The HTTP proxy that a receiver is reached through: only one that its table names, never one of the environment."""

from __future__ import annotations

import base64
import socket
import urllib.parse
from dataclasses import dataclass

from watchdog.config.document import Table
from watchdog.receivers.transport.deadline import is_metadata_address

_PORT = 3_128  # registered for HTTP proxies by squid; what curl takes too is 1080, which nobody means
# What the clouds call their metadata services: behind a proxy, the name is all that we see.
_METADATA_NAMES = ("metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal")


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where it is, and what it wants to hear of who we are."""

    host: str
    port: int
    headers: dict[str, str]


def proxy_from_table(table: Table) -> Proxy | None:
    """Read `proxy` (or `proxy_file`, `proxy_env`: its URL may hold a login), not required."""
    url = table.secret("proxy", required=False)
    if url is None:
        return None
    try:
        return parse_proxy_url(url.reveal())
    except ValueError:
        table.add_problem(table.given_form("proxy") or "proxy", f"write it like http://proxy.example.net:{_PORT}")
    return None


def parse_proxy_url(text: str) -> Proxy:
    """Return the proxy at a URL like `http://user:password@host:port`.

    Raises:
        ValueError: it is none; the text does not show it.
    """
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("not a URL") from None
    if parts.scheme != "http" or not parts.hostname or port == 0 or parts.path.strip("/") or parts.query:
        raise ValueError("not the URL of a proxy")
    headers = {}
    if parts.username is not None:
        login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        encoded = base64.b64encode(login.encode("utf-8", "surrogateescape")).decode()
        headers["Proxy-Authorization"] = f"Basic {encoded}"
    return Proxy(parts.hostname, port or _PORT, headers)


def is_metadata_host(host: str) -> bool:
    """Tell whether `host` can be known, without asking a name server, for a link-local or metadata address."""
    name = host.strip("[]").rstrip(".").lower()
    if name in _METADATA_NAMES:
        return True
    try:
        # However it is written: getaddrinfo(3) takes 2852039166 and 0xA9FEA9FE for addresses too.
        found = socket.getaddrinfo(name, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return any(is_metadata_address(str(address[0])) for *_, address in found)
