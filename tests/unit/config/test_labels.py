"""Labels of the user's own and the name of the host."""

from __future__ import annotations

import tomllib

import pytest

from watchdog.config.document import Document
from watchdog.config.labels import RESERVED
from watchdog.config.settings import read_settings
from watchdog.measure.catalogue import DIMENSIONS


def read(text):
    document = Document(text, tomllib.loads(text), "watchdog.toml")
    return read_settings(document).values, [f"{one.line}: {one.key}" for one in document.problems]


def test_host_and_labels_are_read():
    settings, problems = read('host = "web-1.example.net"\n[labels]\nteam = "network"\nenv = "prod"\n')
    assert problems == []
    assert (settings.host, settings.labels) == ("web-1.example.net", (("env", "prod"), ("team", "network")))


NO_LABELS = [
    *('a-b = "x"', '1a = "x"', '__a = "x"', 'a = ""', "a = 1", 'a = " x"', 'a = "x\\ny"', 'host = "x"'),
    'unit = "x"',
]


@pytest.mark.parametrize("line", NO_LABELS)
def test_a_label_that_cannot_be_one_is_a_problem(line):
    assert read(f"[labels]\n{line}\n")[1] == [f"2: labels.{line.partition(' ')[0]}"]


@pytest.mark.parametrize("line", ['host = ""', "host = 1", 'host = "a\\nb"', f'host = "{"a" * 254}"'])
def test_a_host_name_that_cannot_be_one_is_a_problem(line):
    assert read(line)[1] == ["1: host"]


def test_no_label_takes_the_name_of_a_dimension():
    assert DIMENSIONS.keys() <= RESERVED
