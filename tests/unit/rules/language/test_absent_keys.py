"""`absent` and `absent_for` in rule files."""

from __future__ import annotations

import pytest

from watchdog.clock import SECOND_NS
from watchdog.config.settings import open_document
from watchdog.errors import ConfigError
from watchdog.rules.language.load import load_rules, read_rules
from watchdog.rules.language.parse_rule import RuleEnvironment
from watchdog.rules.language.rule import Absent

RULE = """[[rule]]
id = "feed-stopped"
summary = "feed stopped"
window = "10s"
for = "5s"
"""
SILENCE = 'metric = "connects"\nstat = "rate"\nfire_below = 5\n'
BY = 'by = ["process"]\n'


@pytest.fixture
def read(tmp_path):
    """Return the rule of a text, and its notes as (key, message)."""

    def read(text):
        path = tmp_path / "rules.toml"
        path.write_text(RULE + text)
        path.chmod(0o644)
        document = open_document(str(path))
        (rule,) = read_rules(document, RuleEnvironment((), SECOND_NS, {}))
        document.raise_problems()
        return rule, [(note.key, note.message) for note in document.notes]

    return read


@pytest.mark.parametrize(
    ("keys", "absent", "seconds"),
    [
        ("", Absent.RESOLVE, 135),
        ('absent = "resolve"', Absent.RESOLVE, 135),
        ('absent = "fire"', Absent.FIRE, 15),
        ('absent_for = "2m"', Absent.RESOLVE, 120),
        ('absent = "fire"\nabsent_for = "2m"', Absent.FIRE, 120),
    ],
)
def test_absent_for_has_a_default_in_which_a_vanished_group_can_fire(read, keys, absent, seconds):
    rule, notes = read(SILENCE + BY + keys)
    assert (rule.absent, rule.absent_for_ns, notes) == (absent, seconds * SECOND_NS, [])


@pytest.mark.parametrize(
    ("keys", "noted"),
    [
        (SILENCE + 'absent = "fire"', "absent: has no effect without by: the host is always judged"),
        (SILENCE + 'absent_for = "2m"', "absent_for: has no effect without by: the host is always judged"),
        (SILENCE + BY + 'absent = "keep"\nabsent_for = "2m"', 'absent_for: has no effect with absent = "keep"'),
        (
            BY + 'metric = "connects"\nstat = "rate"\nfire_above = 5\nabsent_for = "2m"',
            "absent_for: has no effect: without rows, the value of a group does not fire",
        ),
        (
            BY + 'metric = "rtt"\nstat = "p50"\nfire_below = 5\nabsent_for = "2m"',
            "absent_for: has no effect: without rows, the value of a group does not fire",
        ),
        (
            SILENCE + BY + 'absent_for = "14s"',
            "absent_for: a group that vanishes may end before it fires: window and for take 15s",
        ),
        (
            SILENCE + BY + 'only_if = "accepts >= 1"',
            "only_if: does not hold without rows: the rule does not fire for a group that vanishes",
        ),
    ],
)
def test_contradicting_keys_are_noted(read, keys, noted):
    assert [f"{key.removeprefix('rule.')}: {message}" for key, message in read(keys)[1]] == [noted]


@pytest.mark.parametrize(
    "keys",
    [
        SILENCE + BY + 'only_if = "accepts <= 1"',
        SILENCE + BY + 'only_if = "accepts >= 1"\nabsent = "fire"',
        BY + 'metric = "connects"\nstat = "rate"\nfire_above = 5\nabsent = "fire"\nabsent_for = "2m"',
        BY + 'metric = "accepts - connects"\nstat = "rate"\nfire_above = -5\nabsent_for = "2m"',
    ],
)
def test_keys_that_fit_are_not_noted(read, keys):
    assert read(keys)[1] == []


@pytest.mark.parametrize("keys", ['absent = "fires"', "absent = 1", 'absent_for = "8d"', "absent_for = 2"])
def test_unknown_values_are_problems(tmp_path, keys):
    path = tmp_path / "rules.toml"
    path.write_text(RULE + SILENCE + BY + keys)
    path.chmod(0o644)
    with pytest.raises(ConfigError):
        load_rules([path], receivers=())
