"""Fixtures of all tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from factories import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock at 1,000 s after boot, in June 2025."""
    return FakeClock()


def pytest_collection_finish() -> None:
    """Exempt what the collection of the tests made from all later garbage collections: it stays, and is much."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def no_garbage() -> Iterator[None]:
    """Collect garbage at the end of each file: a socket that was left open fails a test there, not anywhere later."""
    yield
    gc.collect()
