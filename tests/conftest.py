"""Fixtures of all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from factories import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock at 1,000 s after boot, in June 2025."""
    return FakeClock()


def pytest_configure() -> None:
    """Let the examples of Hypothesis take as long as they take: no test depends on how busy the machine is."""
    settings.register_profile(
        "busy machine", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("busy machine")


def pytest_collection_finish() -> None:
    """Exempt the objects of the collection of the tests from garbage collections: they stay, and are many."""
    _collect_garbage()


@pytest.fixture(scope="module", autouse=True)
def no_garbage() -> Iterator[None]:
    """Collect garbage at the end of each file: a socket that was left open fails a test there, not anywhere later."""
    yield
    _collect_garbage()


@pytest.fixture(scope="session", autouse=True)
def no_terminal_width() -> None:
    """Forget the width of the terminal, which the processes of `make test` are given: a test sets its own."""
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)
        os.unsetenv(name)  # GNU readline, which pytest imports, has set it where os.environ does not see it


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape lone surrogates in the report of a test, as of hostile names in the log: its process cannot send them."""
    report = yield
    report.sections = [(name, _escape_surrogates(text)) for name, text in report.sections]
    if report.longrepr is not None and not isinstance(report.longrepr, tuple):
        text = str(report.longrepr)
        if not text.isascii() and text != _escape_surrogates(text):
            report.longrepr = _escape_surrogates(text)
    return report


def _escape_surrogates(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _collect_garbage() -> None:
    # What is left is exempt from later collections, which look at the objects of one file then: a tenth of the time.
    gc.collect()
    gc.freeze()
