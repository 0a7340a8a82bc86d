"""No value, peak or last value of an alert is from a tick in which `only_if` does not hold."""

from __future__ import annotations

import pytest

from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import Now
from watchdog.rules.engine.engine import Engine
from watchdog.rules.language.expression import Comparison, MetricReference, ValueCount, parse_expression

ENOUGH_CLOSES = Comparison(">=", MetricReference("closes"), 10)


@pytest.fixture
def alerts(host):
    """Return the alerts of the transitions of a rule over ticks of rows of process a."""

    def alerts(rule, *ticks):
        engine, lifecycle, seen = Engine([rule]), Lifecycle("web-1"), []
        engine.evaluate(host.baseline(), [])
        for row in ticks:
            snapshot = host.tick({"process": "a", **row})
            verdicts = engine.evaluate(snapshot, lifecycle.active_keys())
            seen += lifecycle.advance(verdicts, Now(snapshot.at_ns, 5_000.0))
        return [transition.alert for transition in seen]

    return alerts


@pytest.mark.parametrize("keep_seconds", [0, 2])
def test_a_share_of_a_window_without_enough_attempts_is_neither_peak_nor_last_value(alerts, make_rule, keep_seconds):
    rule = make_rule(
        metric=parse_expression("connect_failures / closes"),
        only_if=ENOUGH_CLOSES,
        above=0.2,
        window_seconds=1,
        keep_firing_for_seconds=keep_seconds,
    )
    enough, few = {"closes": 20, "connect_failures": 10}, {"closes": 1, "connect_failures": 1}
    firing, resolved = alerts(rule, enough, {"closes": 20, "connect_failures": 8}, few, few, few, few)

    assert (firing.value, firing.peak) == (0.5, 0.5)
    assert (resolved.value, resolved.peak, resolved.reason[:21]) == (0.4, 0.5, "only_if does not hold")


def test_the_least_value_of_a_rule_about_silence_is_of_a_tick_that_only_if_lets_pass(alerts, make_rule):
    rule = make_rule(stat="sum", above=None, below=5, window_seconds=2, only_if=ENOUGH_CLOSES)
    busy = {"closes": 20, "connects": 2}
    _, resolved = alerts(rule, busy, busy, busy, {"closes": 0}, {"closes": 0}, {"closes": 0})

    assert (resolved.value, resolved.peak) == (2, 2)


def test_a_percentile_of_too_few_values_is_not_shown(alerts, make_rule):
    enough = Comparison(">=", ValueCount("rtt"), 2)
    rule = make_rule(metric="rtt", stat="max", above=1, window_seconds=2, only_if=enough)
    firing, resolved = alerts(rule, {"rtt": 9.0}, {"rtt": 9.0}, {}, {"rtt": 20.0})

    assert (firing.value, resolved.value, resolved.peak) == (9, 9, 9)
