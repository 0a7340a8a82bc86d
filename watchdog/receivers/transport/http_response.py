"""Reading of one HTTP response: interim responses are skipped, and the bytes of head and body are bounded.

Python's http.client skips only `100 Continue`; it reads any number of them, any number of header lines of a proxy and
of a trailer, and extensions of chunks of any length. A chunk of negative size makes it read to the end of the stream.
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
MAX_BODY_BYTES: Final = 2_097_152  # of all bytes after them: sizes and extensions of chunks and the trailer included
MAX_INTERIM_RESPONSES: Final = 100

_SWITCHING_PROTOCOLS = 101
# requests parses cookies, and for a redirect that nobody follows its URL; before, it unpacks the whole body.
_UNUSED_FIELDS = ("Content-Encoding", "Location", "Set-Cookie", "Set-Cookie2")
_MAX_DATE_LENGTH = 64  # the longest form of RFC 9110 §5.6.7 has 33 characters


class AnswerTooLong(http.client.HTTPException):
    """The answer of a server exceeds a limit, which the text names."""


class FinalResponse(http.client.HTTPResponse):
    """The final response to a request, RFC 9110 §15.2: a client reads over every interim response (1xx)."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        """Read from `sock`."""
        super().__init__(sock, *args, **options)
        self._reader = _BoundedReader(self.fp.detach(), MAX_HEAD_BYTES, "more than 256 KiB before the body")
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        """Read everything before the body.

        Raises:
            AnswerTooLong: it has too many bytes or interim responses.
            http.client.HTTPException: it is not HTTP.
        """
        try:
            super().begin()
        except http.client.HTTPException as error:
            if str(error).startswith("got more than"):  # a line over 64 KiB, or 100 lines
                raise AnswerTooLong(str(error)) from None
            raise
        self._reader.set_limit(MAX_BODY_BYTES, "more than 2 MiB of body")
        for name in _UNUSED_FIELDS:
            del self.headers[name]

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(MAX_INTERIM_RESPONSES):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200:  # noqa: PLR2004 - RFC 9110 §15.2
                return version, status, reason
            if status == _SWITCHING_PROTOCOLS:
                raise http.client.HTTPException("the server switched protocols without a request to do so")
            while self.fp.readline().strip():
                pass  # header fields of the interim response
        raise AnswerTooLong(f"more than {MAX_INTERIM_RESPONSES} interim responses")

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if size < 0:
            raise ValueError("negative size of a chunk")  # as for a size that is no number
        return size


class _BoundedReader(io.RawIOBase):
    """Reads from a socket's file; raises `AnswerTooLong` with `limit` in words after `bytes_left` bytes."""

    def __init__(self, raw: io.RawIOBase, bytes_left: int, limit: str) -> None:
        self._raw = raw
        self._bytes_left = bytes_left
        self._limit = limit

    def set_limit(self, bytes_left: int, limit: str) -> None:
        """Allow `bytes_left` bytes from now on."""
        self._bytes_left, self._limit = bytes_left, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._bytes_left <= 0:
            raise AnswerTooLong(self._limit)
        count = self._raw.readinto(memoryview(buffer)[: self._bytes_left])
        self._bytes_left -= count or 0
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
    if text is None or len(text) > _MAX_DATE_LENGTH:
        return None
    try:
        at = email.utils.parsedate_to_datetime(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
