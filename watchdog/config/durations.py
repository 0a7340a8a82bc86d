"""Durations as TOML files write them: `"10s"`, `"1m30s"`, `"500ms"`, `"4h"`, `"7d"`."""

from __future__ import annotations

import re
from fractions import Fraction

from watchdog.clock import SECOND_NS

_UNITS_NS = {
    "d": 86_400 * SECOND_NS,
    "h": 3_600 * SECOND_NS,
    "m": 60 * SECOND_NS,
    "s": SECOND_NS,
    "ms": 1_000_000,
    "us": 1_000,
}
_PART = r"(\d{1,9}(?:\.\d{1,9})?)"
_DURATION = re.compile("".join(f"(?:{_PART}{unit})?" for unit in _UNITS_NS), re.ASCII)


def parse_duration(text: str) -> int:
    """Return the duration in ns: numbers with units, the largest unit first, each unit at most once.

    Raises:
        ValueError: `text` is not a duration.
    """
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError(f"not a duration: {text!r}; write it like 5s, 1m30s, 500ms")
    amounts = zip(match.groups(), _UNITS_NS.values(), strict=True)
    return int(sum(Fraction(amount) * unit_ns for amount, unit_ns in amounts if amount))


def format_duration(duration_ns: int) -> str:
    """Return `duration_ns` in the notation of TOML files: "1m30s", "0s"."""
    parts = []
    rest = duration_ns
    for unit, unit_ns in _UNITS_NS.items():
        amount, rest = divmod(rest, unit_ns)
        if amount:
            parts.append(f"{amount}{unit}")
    return "".join(parts) or "0s"
