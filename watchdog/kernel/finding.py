"""A result of `doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check. `verdict`: "ok", "note" (works with limits) or "missing"; `remedy`: action of the user."""

    verdict: str
    subject: str
    detail: str
    remedy: str = ""
