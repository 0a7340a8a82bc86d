"""The stats `distinct:<dimension>` and `count` in rule files."""

from __future__ import annotations

import math

import pytest

from watchdog.clock import SECOND_NS
from watchdog.config.settings import open_document
from watchdog.rules.language.load import read_rules
from watchdog.rules.language.parse_rule import RuleEnvironment
from watchdog.rules.language.rule import Severity, Stat, StatKind

RULE = """[[rule]]
id = "scan"
summary = "{value} (limit {threshold})"
window = "60s"
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
        return rule, [f"{one.key}: {one.message}" for one in (*document.problems, *document.notes)]

    return read


def keys(metric, stat, level=5, by="process"):
    return f'metric = "{metric}"\nstat = "{stat}"\nby = ["{by}"]\nfire_above = {level}\n'


@pytest.mark.parametrize("metric", ["connects", "bytes_sent", "open", "rtt", "resets_sent"])
def test_distinct_counts_a_dimension_of_any_kind_of_metric(read, metric):
    rule, messages = read(keys(metric, "distinct:remote"))
    assert (rule.stat, messages) == (Stat("distinct:remote", StatKind.DISTINCT, dimension="remote"), [])
    assert rule.thresholds.fire == {Severity.WARNING: 5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (keys("connects", "distinct:remot"), 'stat: unknown dimension "remot": did you mean "remote"?'),
        (keys("connects", "distinct:process"), "stat: is always 1: each alert has one process, which is in by"),
        (keys("listen_drops", "distinct:remote"), "stat: listen_drops has no remote"),
        (keys("connects / closes", "distinct:remote"), 'stat: "distinct:remote" needs one metric, not arithmetic'),
        (keys("connects", "distinct:direction", 3), "fire_above: is never reached: no value is above 3"),
        (keys("connects", "distinct:remote_port", 65_536), "fire_above: is never reached: no value is above 65536"),
        (keys("bytes_sent", "distinct:remote", '"1MB"'), "fire_above"),
        (keys("connects", "count"), 'stat: "count" does not apply to a counter (connects)'),
        (keys("open", "count"), 'stat: "count" does not apply to a gauge (open)'),
        (keys("connects", "distinct"), 'stat: unknown stat "distinct"'),
    ],
)
def test_numbers_that_cannot_be_counted_or_reached_are_problems(read, text, message):
    _, messages = read(text)
    assert len(messages) == 1
    assert messages[0].startswith(f"rule.{message}")


def test_the_count_of_a_distribution_has_no_unit_and_is_0_without_values(read):
    rule, messages = read('metric = "rtt"\nstat = "count"\nby = ["process"]\nfire_below = 20\n')
    assert (rule.stat, messages) == (Stat("count", StatKind.COUNT), [])
    assert rule.fires_without_rows
    assert not math.isnan(rule.thresholds.fire[Severity.WARNING])
