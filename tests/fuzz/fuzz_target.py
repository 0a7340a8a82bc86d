"""The form of a fuzz target."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

FuzzFunction = Callable[[bytes], None]
"""Gives its input to the code; raises only for a defect, not for an error that the code documents for bad input."""

SEPARATOR = b"|||"
"""Between the parts of an input for a target that reads several files, or a peer that sends several times."""


@dataclass(frozen=True, slots=True)
class FuzzTarget:
    """One kind of input.

    `open`: takes an empty folder, and yields the function. `seeds`: valid inputs beside those of the corpus. `tokens`:
    texts that mutations insert. `max_bytes`: of an input.
    """

    open: Callable[[Path], AbstractContextManager[FuzzFunction]]
    seeds: Callable[[], Iterable[bytes]]
    tokens: tuple[str, ...] = ()
    max_bytes: int = 8_192


def split(data: bytes, count: int) -> list[bytes]:
    """Return the parts of `data`: exactly `count`, empty where there are fewer."""
    parts = data.split(SEPARATOR, count - 1)
    return parts + [b""] * (count - len(parts))
