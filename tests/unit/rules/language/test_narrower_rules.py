"""`unless_firing`: circles are problems, rules that no file has and times that are too short are notes."""

from __future__ import annotations

import pytest

from watchdog.errors import ConfigError
from watchdog.rules.language.load import load_rules

RULE = """
[[rule]]
id = "{id}"
summary = "x"
metric = "connects"
stat = "rate"
window = "{window}"
fire_above = 1
for = "{wait}"
unless_firing = {narrower}
"""
NOVELTY = """
[[rule]]
id = "{id}"
summary = "x"
metric = "connects"
by = ["process"]
unless_firing = {narrower}
[rule.novelty]
learn = "1d"
forget = "30d"
"""


@pytest.fixture
def load(tmp_path):
    """Return a function from (id, narrower rules, for) to the loaded rules.

    `windows`: ids of those with a window above an hour; `novelty`: (id, narrower rules) of rules with novelty.
    """

    def load(*rules, windows=(), novelty=()):
        texts = [
            RULE.format(id=name, narrower=list(narrower), wait=wait, window="7d" if name in windows else "5s")
            for name, narrower, wait in rules
        ]
        texts += [NOVELTY.format(id=name, narrower=list(narrower)) for name, narrower in novelty]
        (tmp_path / "a.toml").write_text("".join(texts))
        return load_rules([tmp_path], receivers=())

    return load


def test_rules_name_narrower_ones_shipped_ones_included(load):
    loaded = load(("wide", ["narrow", "outbound-connection-storm"], "0s"), ("narrow", [], "0s"))
    assert loaded.rules[0].unless_firing == ("narrow", "outbound-connection-storm")
    assert loaded.notes == ()


def test_a_rule_that_does_not_exist_is_noted(load):
    (note,) = load(("wide", ["narow"], "0s")).notes
    assert (note.line, note.key, note.message) == (2, "rule.unless_firing", 'no rule "narow": it has no effect')
    (note,) = load(("wide", ["narow"], "0s"), ("narrow", [], "0s")).notes
    assert note.message == 'unknown rule "narow": did you mean "narrow"? It has no effect'


@pytest.mark.parametrize("rules", [[("a", ["a"])], [("a", ["b"]), ("b", ["c"]), ("c", ["a"])]])
def test_rules_that_mute_each_other_are_a_problem(load, rules):
    with pytest.raises(ConfigError, match="these rules mute each other: "):
        load(*((name, narrower, "0s") for name, narrower in rules))


def test_an_own_rule_can_make_a_circle_with_a_shipped_one(load):
    with pytest.raises(ConfigError, match="these rules mute each other"):
        load(("outbound-connection-storm", ["outbound-connection-storm-by-user"], "0s"))


@pytest.mark.parametrize(
    ("wait", "narrow_wait", "notes"),
    [("2m", "2m", 1), ("2m1s", "2m", 1), ("2m2s", "2m", 0), ("0s", "59s", 1), ("0s", "58s", 0)],
)
def test_a_wider_rule_that_may_fire_first_is_noted(load, wait, narrow_wait, notes):
    loaded = load(("wide", ["narrow"], wait), ("narrow", [], narrow_wait))
    assert [note.key for note in loaded.notes] == ["rule.unless_firing"] * notes


def test_rules_that_are_not_judged_tick_by_tick_have_a_note(load):
    def notes(*rules, **options):
        return [(note.key, note.message) for note in load(*rules, **options).notes if "no effect" in note.message]

    key = "rule.unless_firing"
    long_wide = notes(("wide", ["narrow"], "0s"), ("narrow", [], "0s"), windows=["wide"])
    assert long_wide == [(key, "no effect with narrow: wide has a window above an hour")]
    long_narrow = notes(("wide", ["narrow"], "0s"), ("narrow", [], "0s"), windows=["narrow"])
    assert long_narrow == [(key, "no effect with narrow: narrow has a window above an hour")]
    assert notes(("narrow", [], "0s"), novelty=[("new", ["narrow"])]) == [
        (key, "no effect with narrow: new has novelty")
    ]
    assert notes(("wide", ["new"], "0s"), novelty=[("new", [])]) == [(key, "no effect with new: new has novelty")]
