"""A checksum for the contents of the state file: SQLite detects malformed pages, but not changed letters."""

from __future__ import annotations

import zlib


def checksum(content: str | bytes) -> int:
    """Return the CRC-32 of `content`."""
    return zlib.crc32(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)


def is_intact(content: str | bytes, expected: int | None) -> bool:
    """Return whether `content` matches the checksum `expected`; None (none was stored) matches all."""
    return expected is None or checksum(content) == expected
