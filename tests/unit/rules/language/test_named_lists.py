"""Lists that all rule files share."""

from __future__ import annotations

import pytest

from watchdog.errors import ConfigError
from watchdog.rules.language.load import load_layered_rules, load_rules
from watchdog.rules.language.rule import Condition
from watchdog.rules.language.ruleset_hash import ruleset_hash

LISTS = """
[lists]
internal = ["10.0.0.0/8", "192.168.0.0/16"]
web = [80, "8000-8099"]
"""
RULE = """
[[rule]]
id = "{id}"
summary = "{{value}}"
metric = "connects"
stat = "rate"
window = "10s"
fire_above = 1
where = {where}
"""


@pytest.fixture
def load(tmp_path):
    def load(*texts):
        for number, text in enumerate(texts):
            (tmp_path / f"{number}.toml").write_text(text)
        return load_rules([tmp_path], receivers=()).rules

    return load


def rule(where, name="r"):
    return RULE.format(id=name, where=where)


def problems(load, *texts):
    with pytest.raises(ConfigError) as caught:
        load(*texts)
    return [f"{one.file[-6:]}:{one.line}: {one.key}: {one.message}" for one in caught.value.problems]


def test_list_stands_for_its_values_in_every_file_whatever_their_order(load):
    first, second = load(
        rule('{ remote = ["!@internal", "!127.0.0.0/8"], remote_port = "@web" }', "a"),
        LISTS + rule('{ remote = ["@internal", "1.2.3.4"] }', "b"),
    )
    assert first.where == (
        Condition("remote", (), ("10.0.0.0/8", "192.168.0.0/16", "127.0.0.0/8")),
        Condition("remote_port", ("80", "8000-8099")),
    )
    assert second.where == (Condition("remote", ("10.0.0.0/8", "192.168.0.0/16", "1.2.3.4")),)


def test_rule_with_a_list_has_the_hash_of_one_with_its_values(load, tmp_path):
    named = ruleset_hash(load(LISTS + rule('{ remote = "@internal" }')))
    plain = ruleset_hash(load(rule('{ remote = ["10.0.0.0/8", "192.168.0.0/16"] }')))
    assert named == plain


def test_exceptions_and_overrides_use_lists(tmp_path):
    (tmp_path / "a.toml").write_text(
        LISTS
        + '[[override]]\nid = "outbound-connection-storm"\nwhere = { remote = ["!@internal"] }\n'
        + '[[override.except]]\nwhere = { remote_port = "@web" }\nowner = "ada"\nreason = "x"\n'
    )
    rules = {one.id: one for one in load_layered_rules(tmp_path, receivers=()).rules}
    changed = rules["outbound-connection-storm"]
    assert Condition("remote", (), ("10.0.0.0/8", "192.168.0.0/16")) in changed.where
    assert changed.exclusions == ((Condition("remote_port", ("80", "8000-8099")),),)


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        ([LISTS + rule('{ remote = ["1.2.3.4", "@intern"] }')], '0.toml:13: rule.where.remote: unknown list "intern"'),
        ([rule('{ remote = "!@x" }')], 'unknown list "x"'),
        ([LISTS + rule('{ remote = "@web" }')], "0.toml:13: rule.where.remote: must hold strings only, not 80"),
        ([LISTS, LISTS], "1.toml:3: lists.internal: this list is already at "),
        (["[lists]\nx = []\n"], "lists.x: must be an array of values, not empty"),
        (['[lists]\nx = "a"\n'], 'lists.x: must be an array of values: write ["a"]'),
        (['[lists]\nx = ["!a"]\n'], '"!a": write "!@x" where the list is used instead'),
        (['[lists]\nx = ["@y"]\n'], '"@y": a list cannot hold another one; name both in `where`'),
        (["[lists]\nx = [true]\n"], "must hold texts or numbers only"),
        (['[lists]\n"A b" = ["a"]\n'], "use a to z"),
        (["lists = 5\n"], "lists: must be a table"),
    ],
)  # fmt: skip
def test_problems_of_lists_are_reported(load, texts, problem):
    found = problems(load, *texts)
    assert any(problem in one for one in found), found
