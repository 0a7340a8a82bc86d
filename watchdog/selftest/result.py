"""The result of a check."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class CheckStatus(enum.StrEnum):
    """Status of a check: no loss, a loss, or not possible on this host."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of the check named `check`. `detail`: text with the figures, or the reason why it was skipped."""

    check: str
    status: CheckStatus
    detail: str
    seconds: float


class CheckFailed(Exception):
    """Something would have been lost or falsified; the text has the figures."""


class CheckSkipped(Exception):
    """The check is not possible on this host; the text has the reason."""


def require(condition: object, detail: str) -> None:
    """Raise an exception with the text `detail` unless `condition` holds.

    Raises:
        CheckFailed: `condition` does not hold.
    """
    if not condition:
        raise CheckFailed(detail)
