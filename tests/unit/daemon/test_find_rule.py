"""Messages for rules that a request names and that are not in force."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from factories import make_rule
from watchdog.daemon.find_rule import find_rule
from watchdog.errors import UsageError


def view_of(count):
    rules = {f"rule-{number}": make_rule(f"rule-{number}") for number in range(count)}
    return SimpleNamespace(engine=SimpleNamespace(rules=tuple(rules.values()), find_rule=rules.get))


def test_a_few_rules_are_listed_and_many_are_not():
    with pytest.raises(UsageError, match=r'unknown rule "x": known are rule-0, rule-1$'):
        find_rule(view_of(2), "x")
    with pytest.raises(UsageError, match=r'unknown rule "x": see bpf-watchdog rules$'):
        find_rule(view_of(50), "x")
    with pytest.raises(UsageError, match='unknown rule "rule_7": did you mean "rule-7"'):
        find_rule(view_of(50), "rule_7")
    assert find_rule(view_of(50), "rule-7").id == "rule-7"
