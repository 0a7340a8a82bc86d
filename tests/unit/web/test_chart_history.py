"""The values of the last hours, against a list of all of them."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from watchdog.clock import SECOND_NS
from watchdog.web.chart_history import MAX_CHARTS, POINT_SECONDS, POINTS, ChartHistory, RuleReading


def at(point, seconds=0.0):
    """Return the time of a point, in ns."""
    return round((point * POINT_SECONDS + seconds) * SECOND_NS)


def shown(series):
    """Return the points with a value, by their distance from the newest one."""
    return {POINTS - 1 - place: value for place, value in enumerate(series.values.tolist()) if not math.isnan(value)}


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(-50, 50)), max_size=60),
    st.booleans(),
    st.integers(0, 900),
)
def test_each_point_has_its_worst_value(steps, above, wait):
    history, point, expected = ChartHistory(), 1_000, {}
    for step, value in steps:
        point += step
        history.add(at(point, 7), "r", None, RuleReading(float(value)), above=above)
        expected[point] = (max if above else min)(value, expected.get(point, value))
    series = history.series("r", at(point + wait, 29))
    if not steps:
        assert series is None
        return
    newest = point + wait
    assert shown(series) == {newest - one: value for one, value in expected.items() if newest - one < POINTS}


def test_limits_are_those_of_the_worst_value_and_infinite_ones_are_none():
    history = ChartHistory()
    history.add(at(5), "r", None, RuleReading(3.0, 10.0, math.inf, 2.0), above=True)
    history.add(at(5, 9), "r", None, RuleReading(1.0, 99.0, 99.0, 99.0), above=True)
    series = history.series("r", at(5))
    assert (series.values[-1], series.warning[-1], series.usual[-1]) == (3.0, 10.0, 2.0)
    assert np.isnan(series.critical[-1])


def test_a_rule_with_another_definition_begins_anew_and_a_removed_one_is_forgotten():
    history = ChartHistory()
    history.add(at(5), "r", ("rate", 1), RuleReading(3.0), above=True)
    history.add(at(6), "r", ("rate", 2), RuleReading(4.0), above=True)
    assert shown(history.series("r", at(6))) == {0: 4.0}
    history.retain_only({"other"})
    assert history.series("r", at(6)) is None


def test_the_number_of_rules_and_the_memory_are_bounded():
    history = ChartHistory()
    tracemalloc.start()
    for number in range(2 * MAX_CHARTS):
        history.add(at(1), f"rule-{number}", None, RuleReading(1.0), above=True)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(history.series(f"rule-{number}", at(1)) is not None for number in range(2 * MAX_CHARTS)) == MAX_CHARTS
    assert used < 2_100_000
