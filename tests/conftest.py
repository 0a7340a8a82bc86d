"""What tests of every kind share."""

from __future__ import annotations

import pytest

SECOND_NS = 1_000_000_000


class FakeClock:
    """A clock that stands still until told: `advance` lets time pass, `step` sets the wall clock alone."""

    def __init__(self) -> None:
        self._boottime_ns = 1_000 * SECOND_NS
        self._wall = 1_750_000_000.0

    def boottime_ns(self) -> int:
        return self._boottime_ns

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        self._boottime_ns += round(seconds * SECOND_NS)
        self._wall += seconds

    def step(self, seconds: float) -> None:
        self._wall += seconds


@pytest.fixture
def clock() -> FakeClock:
    """Stand at 1,000 s after boot, in June 2025."""
    return FakeClock()
