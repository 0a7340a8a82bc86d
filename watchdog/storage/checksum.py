"""A checksum for what the state file keeps as text: SQLite notices malformed pages, not changed names."""

from __future__ import annotations

import zlib


def checksum(text: str) -> int:
    """Return the CRC-32 of `text`."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


def is_intact(text: str, expected: int | None) -> bool:
    """Tell whether `text` is what it was; None was written without a checksum."""
    return expected is None or checksum(text) == expected
