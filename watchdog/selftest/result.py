"""What came of a rehearsal."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class CheckStatus(enum.StrEnum):
    """Whether the loss that was rehearsed would have been one."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "not rehearsed"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One rehearsal: `seen` says in words, with figures, what happened, or why nothing could."""

    rehearsal: str
    verdict: CheckStatus
    seen: str
    seconds: float


class CheckFailed(Exception):
    """Something would have been lost; the text says what was seen."""


class CheckSkipped(Exception):
    """This host does not let it be rehearsed; the text says why."""


def require(condition: object, seen: str) -> None:
    """Go on if `condition` holds.

    Raises:
        Failed: it does not.
    """
    if not condition:
        raise CheckFailed(seen)
