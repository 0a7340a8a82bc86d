"""`hits` in rule files."""

from __future__ import annotations

import pytest

from watchdog.clock import SECOND_NS
from watchdog.config.settings import open_document
from watchdog.rules.language.load import read_rules
from watchdog.rules.language.parse_rule import RuleEnvironment
from watchdog.rules.language.rule import Hits

RULE = """[[rule]]
id = "storm"
summary = "storm"
metric = "connects"
stat = "rate"
window = "10s"
by = ["process"]
fire_above = 5
"""


@pytest.fixture
def read(tmp_path):
    """Return the rule of a text, and the problems and notes of its document as texts."""

    def read(text):
        path = tmp_path / "rules.toml"
        path.write_text(RULE + text)
        path.chmod(0o644)
        document = open_document(str(path))
        (rule,) = read_rules(document, RuleEnvironment((), SECOND_NS, {}))
        return rule, [f"{one.line}: {one.key}: {one.message}" for one in (*document.problems, *document.notes)]

    return read


@pytest.mark.parametrize(("text", "hits"), [("3 of 5", Hits(3, 5)), ("1 of 1", Hits(1, 1)), ("60 of 60", Hits(60, 60))])
def test_hits_are_a_number_of_ticks_of_a_number_of_ticks(read, text, hits):
    rule, messages = read(f'hits = "{text}"')
    assert (rule.hits, messages) == (hits, [])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("3", "must be a text, not a number"),
        ('""', "must not be empty"),
        ('"3/5"', 'not a number of ticks: "3/5"; write it like "3 of 5"'),
        ('"-1 of 5"', 'not a number of ticks: "-1 of 5"; write it like "3 of 5"'),
        ('"6 of 5"', "never fires: 5 ticks cannot have 6 hits"),
        ('"0 of 5"', "must be at least 1 hit, or the rule would fire always"),
        ('"0 of 0"', "must be at least 1 hit, or the rule would fire always"),
        ('"3 of 61"', "must be of at most 60 ticks, not 61: use for"),
        ('"3 of 5"\nfor = "0s"', "cannot be combined with for: both are the condition to fire; use one of them"),
    ],
)
def test_hits_that_cannot_be_meant_are_a_problem_with_its_line(read, value, message):
    assert read(f"hits = {value}")[1] == [f"9: rule.hits: {message}"]


def test_absence_waits_for_the_ticks_of_hits_as_for_the_time_of_for(read):
    silence = 'hits = "3 of 5"\nabsent = "fire"\n'
    assert read(silence)[0].absent_for_ns == 15 * SECOND_NS
