"""`[rule.novelty]` in rule files."""

from __future__ import annotations

import pytest

from watchdog.alerts import wording
from watchdog.clock import SECOND_NS
from watchdog.config.settings import open_document
from watchdog.rules.language.load import read_rules
from watchdog.rules.language.parse_rule import RuleEnvironment
from watchdog.rules.language.rule import Novelty, Severity

RULE = """[[rule]]
id = "new-peer"
summary = "{process} talks to {remote_net} for the first time"
"""
DAY_NS = 86_400 * SECOND_NS
KEYS = 'metric = "connects"\nby = ["process", "remote_net"]\n'


@pytest.fixture
def read(tmp_path):
    """Return the rule of a text, and the problems and notes of its document as texts."""

    def read(text, interval_ns=SECOND_NS):
        path = tmp_path / "rules.toml"
        path.write_text(RULE + text)
        path.chmod(0o644)
        document = open_document(str(path))
        (rule,) = read_rules(document, RuleEnvironment((), interval_ns, {}))
        return rule, [f"{one.line}: {one.key}: {one.message}" for one in (*document.problems, *document.notes)]

    return read


def test_novelty_has_defaults_and_needs_neither_stat_nor_window(read):
    rule, messages = read(KEYS + "[rule.novelty]\n")
    assert messages == []
    assert rule.novelty == Novelty(7 * DAY_NS, 30 * DAY_NS, Severity.WARNING)
    assert (rule.stat.text, rule.window_ns, rule.keep_firing_for_ns) == ("sum", 60 * SECOND_NS, 3600 * SECOND_NS)
    wording.check_summary(rule)


def test_novelty_with_every_key(read):
    text = KEYS + 'stat = "rate"\nwindow = "10s"\nkeep_firing_for = "5m"\n'
    rule, messages = read(text + '[rule.novelty]\nlearn = "2d"\nforget = "60d"\nseverity = "critical"\n')
    assert messages == []
    assert rule.novelty == Novelty(2 * DAY_NS, 60 * DAY_NS, Severity.CRITICAL)
    assert (rule.stat.text, rule.window_ns, rule.keep_firing_for_ns) == ("rate", 10 * SECOND_NS, 300 * SECOND_NS)
    assert set(rule.thresholds.fire) == {Severity.CRITICAL}


@pytest.mark.parametrize(("metric", "by", "stat"), [("listeners", "user", "last"), ("rtt", "remote", "count")])
def test_the_value_of_an_alert_is_the_amount_of_the_metric(read, metric, by, stat):
    rule, messages = read(f'metric = "{metric}"\nby = ["process", "remote_net", "{by}"]\n[rule.novelty]\n')
    assert rule.stat.text == stat
    assert [one for one in messages if "has no remote_net" not in one] == []


def test_a_long_interval_makes_the_window_longer(read):
    rule, _ = read(KEYS + "[rule.novelty]\n", interval_ns=300 * SECOND_NS)
    assert rule.window_ns == 600 * SECOND_NS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[rule.novelty]\nlearn = 7\n", '7: rule.novelty.learn: needs a unit: "7d"?'),
        ('[rule.novelty]\nlearn = "8d"\nforget = "3d"\n', "8: rule.novelty.forget: must be at least learn, 8d"),
        ('[rule.novelty]\nseverity = "bad"\n', '7: rule.novelty.severity: unknown value "bad"'),
        ("[rule.novelty]\nlern = 1\n", '7: rule.novelty.lern: unknown key "lern": did you mean "learn"?'),
        ("fire_above = 3\n[rule.novelty]\n", "6: rule.fire_above: cannot be combined with novelty"),
        ('for = "10s"\n[rule.novelty]\n', "6: rule.for: cannot be combined with novelty"),
        ('hits = "3 of 5"\n[rule.novelty]\n', "6: rule.hits: cannot be combined with novelty"),
        ('absent = "fire"\n[rule.novelty]\n', "6: rule.absent: cannot be combined with novelty"),
    ],
)
def test_keys_that_novelty_has_no_use_for_are_problems_with_their_line(read, text, message):
    _, messages = read(KEYS + text)
    assert messages[0].startswith(message)


def test_novelty_needs_by_and_one_metric(read):
    _, messages = read('metric = "connects / closes"\n[rule.novelty]\n')
    assert [one for one in messages if ".summary:" not in one] == [
        "1: rule.by: missing: novelty fires for combinations of the dimensions in by",
        "4: rule.metric: must be one metric with novelty, not arithmetic",
    ]


def test_the_port_of_a_listener_is_no_volatile_dimension(read):
    by = 'by = ["process", "local_port", "remote_net"]\n'
    _, of_listeners = read(f'metric = "listeners"\n{by}[rule.novelty]\n')
    _, of_connections = read(f'metric = "connects"\n{by}[rule.novelty]\n')
    assert [one for one in of_listeners if "ever new values" in one] == []
    assert [one for one in of_connections if "ever new values" in one] != []
