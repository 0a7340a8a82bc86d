"""`[rule.baseline]` in rule files: keys, defaults, and the problems that `check` reports."""

from __future__ import annotations

import math

import pytest

from watchdog.errors import ConfigError
from watchdog.rules.language.load import load_rules
from watchdog.rules.language.rule import BaselineSpec, Season, Severity
from watchdog.rules.language.ruleset_hash import baseline_digest

RULE = """[[rule]]
id = "busy"
summary = "{process} opens {value}, usually {usual} ({highest}, {rarity}, {learnt})"
metric = "connects"
stat = "rate"
window = "10s"
by = ["process"]
"""
BASELINE = "[rule.baseline]\n"


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "rules.toml"
        path.write_text(text)
        return load_rules([path], receivers=())

    return load


@pytest.fixture
def problems(load):
    def problems(text):
        with pytest.raises(ConfigError) as caught:
            load(text)
        return [f"{one.line}: {one.key}: {one.message}" for one in caught.value.problems]

    return problems


def test_only_the_floor_is_needed(load):
    [rule] = load(f"{RULE}{BASELINE}floor = 30").rules
    rarity = {Severity.WARNING: 720.0, Severity.CRITICAL: 8760.0}
    assert rule.baseline == BaselineSpec(30.0, rarity, 24, Season.DAY, above=True)
    assert rule.thresholds.fire == dict.fromkeys(Severity, math.inf)
    assert rule.keep_firing_for_ns == 3600 * 10**9


def test_every_key(load):
    keys = 'floor = "10/s"\nrarity = "14d"\nlearn = "36h"\nseason = "week"\nfire = "below"'
    [rule] = load(f'{RULE}keep_firing_for = "5m"\n{BASELINE}{keys}').rules
    assert rule.baseline == BaselineSpec(10.0, {Severity.WARNING: 336.0}, 36, Season.WEEK, above=False)
    assert rule.thresholds.fire == {Severity.WARNING: -math.inf}
    assert rule.keep_firing_for_ns == 300 * 10**9


def test_fire_above_is_a_ceiling_beside_it(load):
    [rule] = load(f"{RULE}fire_above = {{ critical = 500 }}\n{BASELINE}floor = 30").rules
    assert rule.thresholds.fire == {Severity.WARNING: math.inf, Severity.CRITICAL: 500.0}


def test_a_ceiling_within_the_floor_is_noted(load):
    [note] = load(f"{RULE}fire_above = 30\n{BASELINE}floor = 30").notes
    assert str(note).endswith(
        ":8: rule.fire_above: the baseline has no effect: its limits are never below its floor, 30"
    )
    assert load(f"{RULE}fire_above = {{ warning = 20, critical = 31 }}\n{BASELINE}floor = 30").notes == ()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("", "8: rule.baseline.floor: missing: give the level below which nobody is notified"),
        ("floor = 0", "9: rule.baseline.floor: must be above 0, not 0: values below it are noise"),
        ('floor = "3MB"', '9: rule.baseline.floor: wrong unit "MB" in "3MB": connections are written without a unit'),
        ('floor = 3\nrarity = "1h"', "10: rule.baseline.rarity: must be at least 1d, not 1h"),
        (
            'floor = 3\nrarity = { warning = "30d", critical = "10d" }',
            "10: rule.baseline.rarity.critical: must be rarer than the warning's 30d: give a longer time",
        ),
        ("floor = 3\nrarity = {}", "10: rule.baseline.rarity: names no severity: give warning, critical or both"),
        ("floor = 3\nrarity = 30", '10: rule.baseline.rarity: needs a unit: "30d"?'),
        ("floor = 3\nlearn = 12", '10: rule.baseline.learn: needs a unit: "12d"?'),
        ('floor = 3\nlearn = "10m"', "10: rule.baseline.learn: must be at least 1h, not 10m"),
        ('floor = 3\nseason = "year"', '10: rule.baseline.season: unknown value "year": known are "day", "week"'),
        ('floor = 3\nfire = "over"', '10: rule.baseline.fire: unknown value "over"'),
        ("floor = 3\ndeviations = 3", "10: rule.baseline.deviations: unknown key"),
    ],
)
def test_mistakes_are_reported_with_line_and_remedy(problems, keys, expected):
    [problem] = problems(f"{RULE}{BASELINE}{keys}")
    assert problem.startswith(expected.split(": known")[0])


def test_a_ceiling_on_the_other_side_is_a_contradiction(problems):
    [problem] = problems(f"{RULE}fire_below = 5\n{BASELINE}floor = 3")
    assert problem == "8: rule.fire_below: contradicts baseline, which fires above the usual: give fire_above"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("baseline = 30\n", "8: rule.baseline: must be a table, not a number"),
        (
            f"clear_below = 5\n{BASELINE}floor = 3\n",
            "8: rule.clear_below: has no use here: a learnt limit is its own level to clear; remove it",
        ),
        (
            f"clear_above = 5\n{BASELINE}floor = 3\n",
            "8: rule.clear_above: has no use here: a learnt limit is its own level to clear; remove it",
        ),
    ],
)
def test_one_mistake_is_one_problem(problems, keys, expected):
    assert problems(f"{RULE}{keys}") == [expected]


def test_a_share_is_never_above_its_floor(problems):
    share = RULE.replace('"connects"', '"connect_failures / closes"')
    [problem] = problems(f'{share}{BASELINE}floor = "100%"')
    assert problem == "9: rule.baseline.floor: is never reached: no value is above 1"


def test_its_fields_belong_to_rules_with_a_baseline(problems):
    found = problems(f"{RULE}fire_above = 5")
    assert "3: rule.summary: {usual} is a field of rules with [rule.baseline]" in found


def test_the_digest_is_of_the_definition_only(load):
    [rule] = load(f"{RULE}{BASELINE}floor = 30").rules
    same = [
        f'{RULE}for = "5s"\n{BASELINE}floor = 30',
        f'{RULE}{BASELINE}floor = 30\nrarity = "90d"\nlearn = "2d"',
    ]
    other = [
        f"{RULE}{BASELINE}floor = 31",
        f'{RULE}{BASELINE}floor = 30\nseason = "week"',
        f'{RULE}{BASELINE}floor = 30\nfire = "below"',
        f'{RULE}only_if = "closes >= 1"\n{BASELINE}floor = 30',
        f'{RULE}where = {{ direction = "out" }}\n{BASELINE}floor = 30',
        f"{RULE.replace('10s', '20s')}{BASELINE}floor = 30",
    ]
    assert {baseline_digest(load(text).rules[0]) for text in same} == {baseline_digest(rule)}
    assert baseline_digest(rule) not in {baseline_digest(load(text).rules[0]) for text in other}
