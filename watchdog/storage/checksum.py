"""A checksum for the texts of the state file: SQLite detects malformed pages, but not changed letters."""

from __future__ import annotations

import zlib


def checksum(text: str) -> int:
    """Return the CRC-32 of `text`."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


def is_intact(text: str, expected: int | None) -> bool:
    """Return whether `text` matches the checksum `expected`; None (none was stored) matches all."""
    return expected is None or checksum(text) == expected
