"""Traffic that arrives late: whole in sums, spread over the time before in rates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.rules.engine.engine import Engine
from watchdog.rules.engine.late_traffic import age_steps, spread
from watchdog.rules.language.expression import Comparison, MetricReference, Operation
from watchdog.rules.language.rule import Condition

SECOND_NS = 1_000_000_000
LATE = {"process": "stall", "bytes_received": 13_000, "unseen_seconds": 13}


def values(host, rule, *ticks):
    """Return the value of group `stall` after each of the ticks, which follow 30 quiet ones."""
    engine, active = Engine([rule]), [(rule.id, (("process", "stall"),))]
    engine.evaluate(host.baseline(), active)
    for _ in range(30):
        engine.evaluate(host.tick({"process": "stall"}), active)
    return [engine.evaluate(host.tick({"process": "stall"}, *rows), active)[0].value for rows in ticks]


def received(make_rule, stat, window_seconds, **keys):
    return make_rule(metric="bytes_received", stat=stat, window_seconds=window_seconds, above=0, **keys)


@pytest.mark.parametrize("window", [3, 10, 60])
def test_a_sum_counts_late_traffic_whole(host, make_rule, window):
    assert values(host, received(make_rule, "sum", window), [LATE], []) == [13_000, 13_000]


@pytest.mark.parametrize("stat", ["rate", "mean"])
@pytest.mark.parametrize(
    ("window", "rates"),
    [(5, [1000, 800, 600, 400, 200, 0, 0]), (10, [1000, 900, 800, 700]), (26, [500, 500]), (2, [1000, 500, 0])],
)
def test_a_rate_spreads_late_traffic_over_the_time_since_the_connection_was_seen(host, make_rule, window, rates, stat):
    ticks = [[LATE]] + [[]] * (len(rates) - 1)
    assert values(host, received(make_rule, stat, window), *ticks) == pytest.approx(rates)


@pytest.mark.parametrize(("stat", "expected"), [("last", [1000, 0]), ("max", [1000, 1000])])
def test_a_rate_of_one_tick_has_the_part_of_this_tick(host, make_rule, stat, expected):
    assert values(host, received(make_rule, stat, 10), [LATE], []) == expected


def test_late_and_timely_traffic_add_up(host, make_rule):
    timely = {"process": "stall", "bytes_received": 500}
    assert values(host, received(make_rule, "rate", 5), [timely, LATE, LATE], [timely]) == [2100, 1800]


def test_late_traffic_of_very_different_ages_is_spread_over_its_own_time(host, make_rule):
    hour = {"process": "stall", "bytes_received": 3_600_000, "unseen_seconds": 3600}
    (rate,) = values(host, received(make_rule, "rate", 10), [hour, LATE])
    assert rate == pytest.approx(2000)
    (rate,) = values(host, received(make_rule, "rate", 600), [hour])
    assert rate == pytest.approx(1000, rel=0.125)


def test_where_and_ratios_see_the_spread_traffic(host, make_rule):
    other = {**LATE, "process": "other"}
    rule = received(make_rule, "rate", 5, where=[Condition("process", ("stall",))])
    assert values(host, rule, [LATE, other]) == [1000]
    share = Operation("/", MetricReference("bytes_received"), MetricReference("packets_received"))
    rule = make_rule(metric=share, stat="rate", window_seconds=5, above=0)
    assert values(host, rule, [{**LATE, "packets_received": 13}]) == [1000]


def test_only_if_counts_late_traffic_whole(host, make_rule):
    gate = Comparison(">", MetricReference("bytes_received"), 12_999)
    rule = received(make_rule, "rate", 5, only_if=gate)
    engine = Engine([rule])
    engine.evaluate(host.baseline(), [])
    assert [verdict.value for verdict in engine.evaluate(host.tick(LATE), [])] == [1000]


def test_two_rules_read_one_metric_whole_and_spread(host, make_rule):
    engine = Engine([received(make_rule, "sum", 10), received(make_rule, "rate", 10, name="rate")])
    engine.evaluate(host.baseline(), [])
    assert [verdict.value for verdict in engine.evaluate(host.tick(LATE), [])] == [13_000, 1000]


@given(
    st.lists(st.tuples(st.integers(0, 2**53), st.integers(1, 5 * 3600 * SECOND_NS)), min_size=1, max_size=5),
    st.integers(SECOND_NS // 10, 60 * SECOND_NS),
)
def test_the_parts_of_a_value_are_whole_and_add_up_to_it(late, elapsed_ns):
    amounts, unseen_ns = np.array([one[0] for one in late], float), np.array([one[1] for one in late])
    parts = spread(amounts, unseen_ns, age_steps(elapsed_ns, int(unseen_ns.max())))

    assert (parts == np.floor(parts)).all()
    assert (parts >= 0).all()
    assert parts.sum(axis=0).tolist() == amounts.tolist()
