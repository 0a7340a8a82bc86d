"""The request for a page of the web server, and the page that answers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WebRequest:
    """A request that is answered: `query`: the text after "?" as it came, `accept`: the header `Accept`."""

    path: str
    query: str
    accept: str


@dataclass(frozen=True, slots=True)
class WebPage:
    """One response: its content type, its bytes, and (name, value) of its headers beside those of every response."""

    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


Pages = Mapping[str, Callable[[WebRequest], WebPage]]
"""By path: makes the page. Called in the thread of the server."""
