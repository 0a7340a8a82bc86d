"""The table `[log]` of the settings."""

from __future__ import annotations

import tomllib

import pytest

from watchdog.config.document import Document
from watchdog.config.settings import LogFormat, read_settings


def read(text):
    document = Document(text, tomllib.loads(text), "watchdog.toml")
    return read_settings(document).values.log.format, [str(problem) for problem in document.problems]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("", LogFormat.TEXT),
        ("[log]", LogFormat.TEXT),
        ('[log]\nformat = "text"', LogFormat.TEXT),
        ('[log]\nformat = "json"', LogFormat.JSON),
    ],
)
def test_formats(text, form):
    assert read(text) == (form, [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('format = "jsno"', 'log.format: unknown value "jsno": did you mean "json"?'),
        ("format = 1", "log.format: must be a text"),
        ('fromat = "json"', 'log.fromat: unknown key "fromat": did you mean "format"?'),
    ],
)
def test_mistakes_are_reported(text, problem):
    form, [found] = read(f"[log]\n{text}\n")
    assert form is LogFormat.TEXT
    assert problem in found
