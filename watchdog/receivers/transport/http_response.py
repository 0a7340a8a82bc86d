"""Reading of one HTTP response: interim responses are skipped, and everything before the body is bounded.

Python's http.client skips only `100 Continue`, reads any number of them, and any number of header lines of a proxy.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import http.client
import io
import re
import socket
from typing import Any, Final

MAX_HEAD_BYTES: Final = 262_144  # of all bytes before the body: interim responses, status line and header fields
MAX_INTERIM_RESPONSES: Final = 100

_SWITCHING_PROTOCOLS = 101


class FinalResponse(http.client.HTTPResponse):
    """The final response to a request, RFC 9110 §15.2: a client reads over every interim response (1xx)."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        """Read from `sock`."""
        super().__init__(sock, *args, **options)
        self._head = _BoundedReader(self.fp.detach())
        self.fp = io.BufferedReader(self._head)

    def begin(self) -> None:
        """Read everything before the body.

        Raises:
            http.client.HTTPException: it has too many bytes or interim responses, or is not HTTP.
        """
        super().begin()
        self._head.bytes_left = None

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(MAX_INTERIM_RESPONSES):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200:  # noqa: PLR2004 - RFC 9110 §15.2
                return version, status, reason
            if status == _SWITCHING_PROTOCOLS:
                raise http.client.HTTPException("the server switched protocols without a request to do so")
            while self.fp.readline().strip():
                pass  # header fields of the interim response
        raise http.client.HTTPException("too many interim responses")


class _BoundedReader(io.RawIOBase):
    """Reads from a socket's file; raises after `bytes_left` bytes, None: no limit."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self.bytes_left: int | None = MAX_HEAD_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.bytes_left is None:
            return self._raw.readinto(buffer)
        if self.bytes_left <= 0:
            raise http.client.HTTPException("too many bytes before the body")
        count = self._raw.readinto(memoryview(buffer)[: self.bytes_left])
        self.bytes_left -= count or 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def parse_retry_after(text: str | None, now: float) -> float | None:
    """Return the seconds that a Retry-After field asks to wait from `now` (wall clock), at least 0; None if invalid.

    Source: RFC 9110 §10.2.3; §5.6.7: each of the three forms of a date is UTC, with or without a zone.
    """
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,300}", text):  # a float holds no more digits
        return float(text)
    seconds = parse_http_date(text)
    return None if seconds is None else max(0.0, seconds - now)


def parse_http_date(text: str | None) -> float | None:
    """Return a date of RFC 9110 §5.6.7 in seconds since 1970, UTC; None if it is missing or invalid."""
    if text is None:
        return None
    try:
        at = email.utils.parsedate_to_datetime(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
