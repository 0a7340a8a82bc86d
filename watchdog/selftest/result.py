"""What came of a rehearsal."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Verdict(enum.StrEnum):
    """Whether the loss that was rehearsed would have been one."""

    OK = "ok"
    FAILED = "failed"
    NOT_REHEARSED = "not rehearsed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One rehearsal: `seen` says in words, with figures, what happened, or why nothing could."""

    rehearsal: str
    verdict: Verdict
    seen: str
    seconds: float


class Failed(Exception):
    """Something would have been lost; the text says what was seen."""


class NotRehearsed(Exception):
    """This host does not let it be rehearsed; the text says why."""


def demand(condition: object, seen: str) -> None:
    """Go on if `condition` holds.

    Raises:
        Failed: it does not.
    """
    if not condition:
        raise Failed(seen)
