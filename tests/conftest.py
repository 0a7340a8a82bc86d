"""Fixtures of all tests."""

from __future__ import annotations

import pytest

from factories import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock at 1,000 s after boot, in June 2025."""
    return FakeClock()
