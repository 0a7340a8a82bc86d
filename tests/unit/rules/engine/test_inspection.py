"""The numbers that `rules` and `explain` show are those by which the engine judged."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.rules.engine.engine import Engine
from watchdog.rules.language.expression import parse_comparison, parse_expression
from watchdog.rules.language.rule import Condition, Severity

PROCESSES = ("a", "b", "c", None)
ROW = st.fixed_dictionaries(
    {
        "process": st.sampled_from(PROCESSES),
        "remote_port": st.sampled_from((80, 443)),
        "connects": st.integers(0, 5),
        "open": st.integers(0, 3),
        "closes": st.integers(0, 5),
        "connect_failures": st.integers(0, 2),
        "connect_latency": st.sampled_from((math.nan, 0.1, 0.5, 2.0)),
    }
)
TICK = st.tuples(st.lists(ROW, max_size=6), st.sampled_from((0.5, 1.0, 2.0)), st.sampled_from((0, 0, 0, 2)))
MEASURES = (
    ("connects", "rate"), ("connects", "sum"), ("connects", "max"), ("open", "last"), ("open", "mean"),
    ("connect_failures / closes", "rate"), ("connect_latency", "p95"), ("connect_latency", "max"),
)  # fmt: skip


@st.composite
def rules(draw, make_rule):
    metric, stat = draw(st.sampled_from(MEASURES))
    limit = draw(st.sampled_from((0.2, 0.5, 1, 3)))
    below = draw(st.booleans()) and stat != "p95"
    return make_rule(
        "rule",
        parse_expression(metric),
        stat,
        by=draw(st.sampled_from(((), ("process",), ("process", "remote_port")))),
        where=draw(st.sampled_from(((), (Condition("remote_port", ("80",)),)))),
        below=limit if below else None,
        above=None if below else limit,
        critical=limit / 2 if below else limit * 3,
        window_seconds=draw(st.sampled_from((1, 2, 5))),
        only_if=draw(st.sampled_from((None, parse_comparison("closes >= 3")))),
    )


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_verdict_is_inspected_with_the_numbers_of_the_engine(make_rule, make_host, data):
    rule, host = data.draw(rules(make_rule)), make_host()
    engine = Engine([rule])
    engine.evaluate(host.baseline(), [])
    active = []
    for rows, seconds, lost in data.draw(st.lists(TICK, min_size=1, max_size=8)):
        verdicts = engine.evaluate(host.tick(*rows, seconds=seconds, sums_full=lost), active)
        judged = {verdict.labels: verdict for verdict in verdicts}
        for labels, verdict in judged.items():
            found = engine.inspect_group("rule", labels, active)
            same = (found.verdict.breached, found.verdict.not_cleared, found.verdict.complete)
            assert same == (verdict.breached, verdict.not_cleared, verdict.complete)
            assert found.verdict.value == pytest.approx(verdict.value, nan_ok=True)
        inspected = engine.inspect_rule("rule")
        # An active instance goes on while its group no longer exists for the rule.
        begins = any(verdict.breached for labels, verdict in judged.items() if ("rule", labels) not in active)
        if inspected.worst is None:
            assert not begins
        else:
            labels, value = inspected.worst
            worst = engine.inspect_group("rule", labels, active)
            assert worst.verdict.value == pytest.approx(value, nan_ok=True)
            assert engine.inspect_group("rule", (), active).verdict.labels == labels
            if labels not in judged and ("rule", labels) not in active:
                assert worst.verdict.breached is None
        active = [("rule", verdict.labels) for verdict in verdicts if verdict.breached]


def test_rows_metrics_and_window_are_those_of_the_newest_tick(make_rule, host):
    engine = Engine(
        [make_rule("rule", "connects", "rate", where=(Condition("remote_port", ("80",)),), window_seconds=4)]
    )
    engine.evaluate(host.baseline(), [])
    assert engine.inspect_group("rule", (("process", "a"),), []).filled_ns == 0
    web, tls = {"process": "a", "remote_port": 80}, {"process": "a", "remote_port": 443}
    engine.evaluate(host.tick({**web, "connects": 3}), [])
    engine.evaluate(host.tick({**web, "connects": 5}, {**web, "connects": 1}, tls, {**web, "process": "b"}), [])
    found = engine.inspect_group("rule", (("process", "a"),), [])
    assert (found.rows.host, found.rows.selected, found.rows.group) == (4, 3, 2)
    assert found.filled_ns == 2_000_000_000
    [metric] = found.metrics
    assert (metric.metric, metric.statistic, metric.window, metric.newest) == ("connects", "sum", 9, 6)
    assert found.verdict.value == 9 / 4
    inspected = engine.inspect_rule("rule")
    assert (inspected.groups, inspected.worst, inspected.share) == (2, ((("process", "a"),), 2.25), 0.0225)


def test_the_worst_group_is_sought_among_those_with_the_labels_that_are_given(make_rule, host):
    engine = Engine([make_rule("rule", "connects", "sum", by=("process", "remote_port"))])
    engine.evaluate(host.baseline(), [])
    rows = [(name, port, count) for name, port, count in (("a", 1, 9), ("a", 2, 7), ("b", 1, 8), ("b", 2, 3))]
    engine.evaluate(
        host.tick(*({"process": name, "remote_port": port, "connects": count} for name, port, count in rows)), []
    )
    for labels, worst in (
        ((), ("a", "1")),
        ((("process", "b"),), ("b", "1")),
        ((("remote_port", "2"),), ("a", "2")),
        ((("remote_port", "2"), ("process", "b")), ("b", "2")),
    ):
        found = engine.inspect_group("rule", labels, [])
        assert sorted(value for _, value in found.verdict.labels) == sorted(worst)
    missing = engine.inspect_group("rule", (("process", "zzz"),), [])
    assert (missing.has_group, missing.verdict.breached) == (False, None)


def test_a_rule_that_fires_below_has_the_lowest_group_as_its_worst(make_rule, host):
    engine = Engine([make_rule("rule", "open", "last", below=2)])
    engine.evaluate(host.baseline(), [])
    engine.evaluate(host.tick({"process": "a", "open": 9}, {"process": "b", "open": 1}), [])
    inspected = engine.inspect_rule("rule")
    assert inspected.worst == ((("process", "b"),), 1)
    assert inspected.share == 2


def test_many_values_narrow_the_search_and_find_the_worst(make_rule, host, monkeypatch):
    monkeypatch.setattr("watchdog.rules.engine.order_statistics._MAX_SORTED_VALUES", 3)
    monkeypatch.setattr("watchdog.rules.engine.order_statistics._MAX_CANDIDATES", 2)
    engine = Engine([make_rule("rule", "connect_latency", "p95", above=1)])
    engine.evaluate(host.baseline(), [])
    rows = [{"process": f"p{number}", "connect_latency": number / 10} for number in range(20)]
    engine.evaluate(host.tick(*rows), [])
    assert engine.inspect_rule("rule").worst == ((("process", "p19"),), 1.9)


def test_windows_without_a_tick_have_no_inspection_and_unmatched_rules_say_so(make_rule, host):
    rule = make_rule("rule", where=(Condition("remote_port", ("80",)),))
    engine = Engine([rule])
    assert engine.inspect_rule("rule") is None
    engine.evaluate(host.baseline({"process": "a", "remote_port": 80}), [])
    engine.evaluate(host.tick({"process": "a", "remote_port": 443}), [])
    assert not engine.inspect_rule("rule").has_matched
    engine.evaluate(host.tick({"process": "a", "remote_port": 80}), [])
    assert engine.inspect_rule("rule").has_matched
    engine.replace_rules([rule, make_rule("other")])
    assert engine.inspect_group("rule", (), []) is None
    engine.evaluate(host.tick(), [])
    assert engine.inspect_rule("rule").has_matched


def test_a_firing_severity_is_in_the_inspection(make_rule, host):
    engine = Engine([make_rule("rule", "connects", "sum", above=5, critical=50)])
    engine.evaluate(host.baseline(), [])
    engine.evaluate(host.tick({"process": "a", "connects": 60}), [])
    assert engine.inspect_group("rule", (), []).verdict.breached is Severity.CRITICAL
