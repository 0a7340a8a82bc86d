"""The verdicts of the engine for snapshots."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.resources import shipped_rules_folder
from watchdog.rules.engine.engine import MAX_JUDGING_NS, OVERFLOW_LABELS, Engine
from watchdog.rules.language.expression import Comparison, Constant, MetricReference, Operation, ValueCount
from watchdog.rules.language.load import load_rules
from watchdog.rules.language.rule import Condition, Severity

WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL


def ratio(left, right):
    return Operation("/", MetricReference(left), MetricReference(right))


def labels(name):
    return (("process", name),)


def by_process(verdicts):
    """Return verdicts as {process: (value, breached, not_cleared)}."""
    return {verdict.labels[0][1]: (verdict.value, verdict.breached, verdict.not_cleared) for verdict in verdicts}


class EngineRun:
    """An engine, a host as the source of its ticks, and the active instances of its first rule."""

    def __init__(self, host, *rules, active=()):
        self.host, self.engine = host, Engine(rules)
        self.active = [(rules[0].id, labels(name)) for name in active]
        self.engine.evaluate(host.baseline(), self.active)

    def tick(self, *rows, **options):
        return self.engine.evaluate(self.host.tick(*rows, **options), self.active)

    def quiet(self, ticks):
        for _ in range(ticks):
            self.tick()
        return self


@pytest.fixture
def run(host):
    return lambda *rules, **options: EngineRun(host, *rules, **options)


# Rates and sums


def test_a_rate_is_the_sum_of_the_window_by_its_time(run, make_rule):
    running = run(make_rule(window_seconds=10, above=100)).quiet(10)
    assert running.tick({"process": "a", "connects": 1000}) == []
    assert by_process(running.tick({"process": "a", "connects": 1})) == {"a": (100.1, WARNING, WARNING)}


def test_a_value_equal_to_the_threshold_does_not_breach_it(run, make_rule):
    running = run(make_rule(stat="sum", above=5)).quiet(10)
    assert running.tick({"process": "a", "connects": 5}) == []
    assert by_process(running.tick({"process": "a", "connects": 1})) == {"a": (6, WARNING, WARNING)}


def test_a_tick_leaves_the_window_when_it_is_as_old_as_the_window(run, make_rule):
    running = run(make_rule(stat="sum", window_seconds=3, above=0)).quiet(3)
    values = [by_process(running.tick({"process": "a", "connects": n})).get("a", (0,))[0] for n in (7, 0, 0, 0)]
    assert values == [7, 7, 7, 0]


def test_a_window_that_is_not_filled_divides_by_its_full_length(run, make_rule):
    running = run(make_rule(window_seconds=10, above=50))
    assert running.tick({"process": "a", "connects": 500}) == []
    assert by_process(running.tick({"process": "a", "connects": 100})) == {"a": (60.0, WARNING, WARNING)}


def test_a_missed_tick_does_not_distort_a_rate(run, make_rule):
    running = run(make_rule(window_seconds=4, above=99))
    for _ in range(6):
        running.tick({"process": "a", "connects": 100})
    assert by_process(running.tick({"process": "a", "connects": 500}, seconds=5)) == {"a": (100.0, WARNING, WARNING)}
    for _ in range(6):
        assert by_process(running.tick({"process": "a", "connects": 100})) == {"a": (100.0, WARNING, WARNING)}


def test_rows_of_a_baseline_are_ignored(host, make_rule):
    engine = Engine([make_rule(stat="sum", above=1)])
    assert engine.evaluate(host.baseline({"process": "a", "connects": 1000}), []) == []
    assert engine.evaluate(host.tick({"process": "a", "connects": 1}), []) == []


def test_rows_of_one_group_add_up(run, make_rule):
    running = run(make_rule(stat="sum", above=0))
    rows = [{"process": name, "connects": n} for name, n in (("a", 2), ("b", 3), ("a", 5), ("c", 0))]
    assert by_process(running.tick(*rows)) == {"a": (7, WARNING, WARNING), "b": (3, WARNING, WARNING)}


def test_rows_excluded_by_where_are_ignored(run, make_rule):
    running = run(make_rule(stat="sum", above=0, where=[Condition("direction", any_of=("out",))]))
    rows = [{"process": "a", "connects": 2, "direction": "out"}, {"process": "a", "connects": 3, "direction": "in"}]
    assert by_process(running.tick(*rows)) == {"a": (2, WARNING, WARNING)}


def test_a_rule_without_by_judges_the_whole_host(run, make_rule):
    running = run(make_rule(stat="sum", above=4, by=()))
    verdict = running.tick({"process": "a", "connects": 2}, {"process": "b", "connects": 3})[0]
    assert (verdict.labels, verdict.value) == ((), 5)


def test_labels_are_in_the_order_of_by(run, make_rule):
    running = run(make_rule(stat="sum", above=0, by=("remote", "pid", "direction")))
    verdict = running.tick({"pid": 7, "remote": "2001:db8::1", "direction": "in", "connects": 1})[0]
    assert verdict.labels == (("remote", "2001:db8::1"), ("pid", "7"), ("direction", "in"))


# Arithmetic


def test_a_ratio_divides_the_sums_of_the_window(run, make_rule):
    running = run(make_rule(metric=ratio("connect_failures", "connects"), above=0.25)).quiet(10)
    running.tick({"process": "a", "connects": 90, "connect_failures": 10})
    value, *_ = by_process(running.tick({"process": "a", "connects": 10, "connect_failures": 40}))["a"]
    assert value == 0.5


def test_a_share_of_whole_numbers_is_exact_for_any_window(run, make_rule):
    running = run(make_rule(metric=ratio("connect_failures", "connects"), above=0, window_seconds=7)).quiet(7)
    assert by_process(running.tick({"process": "a", "connects": 50, "connect_failures": 49}))["a"][0] == 49 / 50


def test_a_constant_added_to_a_rate_is_per_second(run, make_rule):
    running = run(
        make_rule(metric=Operation("+", MetricReference("connects"), Constant(5)), above=14, window_seconds=2)
    ).quiet(2)
    assert by_process(running.tick({"process": "a", "connects": 20})) == {"a": (15, WARNING, WARNING)}


def test_a_divisor_of_zero_counts_as_one(run, make_rule):
    running = run(make_rule(metric=ratio("listen_drops", "accepts"), stat="sum", above=0.1), active="ab")
    verdicts = running.tick({"process": "a"}, {"process": "b", "listen_drops": 7})
    assert by_process(verdicts) == {"a": (0, None, None), "b": (7, WARNING, WARNING)}


@pytest.mark.parametrize("stat", ["rate", "sum", "max", "last"])
@pytest.mark.parametrize(
    ("part", "whole"),
    [
        ("connect_failures", "connects"),
        ("connect_failures", "closes"),
        ("closes", "connects"),
        ("closes", "accepts"),
        ("closes", "established"),
        ("established", "connects"),
        ("accepts", "established"),
        ("retransmits", "packets_sent"),
    ],
)
def test_a_share_of_events_of_different_moments_is_at_most_one(run, make_rule, stat, part, whole):
    running = run(make_rule(metric=ratio(part, whole), stat=stat, above=0.5, window_seconds=2))
    running.tick({"process": "a", whole: 40})
    running.quiet(3)
    assert by_process(running.tick({"process": "a", part: 40}))["a"][0] == 1
    assert by_process(running.tick({"process": "a", part: 40, whole: 3}))["a"][0] == 1


def test_the_maximum_of_a_sum_is_taken_over_single_ticks(run, make_rule):
    both = Operation("+", MetricReference("bytes_sent"), Operation("*", Constant(2), MetricReference("bytes_received")))
    running = run(make_rule(metric=both, stat="max", above=0), active="a")
    running.tick({"process": "a", "bytes_sent": 10})
    running.tick({"process": "a", "bytes_received": 7})
    assert by_process(running.tick({"process": "a", "bytes_sent": 3}))["a"][0] == 14


def test_only_if_compares_the_sum_over_the_window(run, make_rule):
    gate = Comparison(">=", MetricReference("connects"), 50)
    running = run(make_rule(metric=ratio("connect_failures", "connects"), above=0.5, only_if=gate)).quiet(10)
    assert running.tick({"process": "a", "connects": 49, "connect_failures": 49}) == []
    assert by_process(running.tick({"process": "a", "connects": 1})) == {"a": (0.98, WARNING, WARNING)}


def test_only_if_of_a_gauge_compares_the_newest_tick(run, make_rule):
    running = run(make_rule(stat="sum", above=0, only_if=Comparison(">", MetricReference("open"), 2)))
    assert running.tick({"process": "a", "connects": 1, "open": 2}) == []
    assert by_process(running.tick({"process": "a", "open": 3})) == {"a": (1, WARNING, WARNING)}
    assert running.tick({"process": "a", "open": 2}) == []


@pytest.mark.parametrize("metric", ["rtt", "lifetime", "accept_queue", "connect_latency", "response_latency"])
def test_count_in_only_if_is_the_number_of_values_in_the_window(run, make_rule, metric):
    gate = Comparison(">=", ValueCount(metric), 3)
    running = run(make_rule(metric=metric, stat="p99", window_seconds=2, above=5, only_if=gate))
    row = {"process": "a", metric: 9.0}
    verdicts = [running.tick(*rows) for rows in ([row, {"process": "a"}], [row], [row, row], [row], [])]
    assert [bool(found) for found in verdicts] == [False, False, True, True, False]


def test_count_in_only_if_counts_selected_values_only(run, make_rule):
    out = Condition("direction", any_of=("out",))
    rule = make_rule(metric="rtt", stat="p99", above=5, only_if=Comparison(">=", ValueCount("rtt"), 2), where=[out])
    running = run(rule)
    row = {"process": "a", "rtt": 9.0}
    assert running.tick(row | {"direction": "out"}, row | {"direction": "in"}) == []
    assert len(running.tick(row | {"direction": "out"})) == 1


def test_an_instance_clears_when_only_if_is_no_longer_met(run, make_rule):
    gate = Comparison(">", MetricReference("connects"), 10)
    rule = make_rule(metric=ratio("connect_failures", "connects"), above=0.5, only_if=gate, window_seconds=2)
    running = run(rule, active="a").quiet(2)
    verdict = running.tick({"process": "a", "connects": 5, "connect_failures": 5})[0]
    assert (verdict.complete, verdict.breached, verdict.not_cleared, verdict.reason) == (
        True,
        None,
        None,
        "only_if does not hold",
    )


# Severities


def test_each_severity_breaches_and_clears_at_its_own_thresholds(run, make_rule):
    rule = make_rule(stat="last", above=100, critical=500, clear=60, clear_critical=300)
    running = run(rule, active="a")
    seen = [
        by_process(running.tick({"process": "a", "connects": n}))["a"][1:] for n in (501, 500, 300, 299, 100, 60, 59)
    ]
    assert seen == [
        (CRITICAL, CRITICAL),
        (WARNING, CRITICAL),
        (WARNING, CRITICAL),
        (WARNING, WARNING),
        (None, WARNING),
        (None, WARNING),
        (None, None),
    ]


def test_thresholds_of_fire_below_are_mirrored(run, make_rule):
    running = run(make_rule(stat="last", above=None, below=10, critical=2, clear=20, clear_critical=5), active="a")
    seen = [by_process(running.tick({"process": "a", "connects": n}))["a"][1:] for n in (1, 2, 5, 6, 10, 20, 21)]
    assert seen == [
        (CRITICAL, CRITICAL),
        (WARNING, CRITICAL),
        (WARNING, CRITICAL),
        (WARNING, WARNING),
        (None, WARNING),
        (None, WARNING),
        (None, None),
    ]


def test_a_rule_can_have_a_critical_threshold_only(run, make_rule):
    running = run(make_rule(stat="sum", above=None, critical=5))
    assert by_process(running.tick({"process": "a", "connects": 6})) == {"a": (6, CRITICAL, CRITICAL)}


def test_an_instance_that_is_neither_breached_nor_active_has_no_verdict(run, make_rule):
    running = run(make_rule(stat="sum", above=10, clear=1), active="b")
    verdicts = running.tick({"process": "a", "connects": 5}, {"process": "b", "connects": 5})
    assert by_process(verdicts) == {"b": (5, None, WARNING)}


# Order statistics


def test_a_percentile_is_the_nearest_rank_over_all_values_of_the_window(run, make_rule):
    running = run(make_rule(metric="rtt", stat="p90", above=0.089, window_seconds=2), active="a")
    first = [{"process": "a", "rtt": value / 1000} for value in range(1, 51)]
    second = [{"process": "a", "rtt": value / 1000} for value in range(51, 101)]
    assert by_process(running.tick(*first))["a"] == (0.045, None, None)
    assert by_process(running.tick(*second))["a"] == (0.09, WARNING, WARNING)
    assert by_process(running.tick())["a"] == (0.095, WARNING, WARNING)
    assert math.isnan(by_process(running.tick())["a"][0])


def test_a_distribution_without_values_is_neither_breached_nor_uncleared(run, make_rule):
    running = run(make_rule(metric="rtt", stat="p50", above=None, below=1), active="a").quiet(10)
    verdict = running.tick({"process": "a"})[0]
    assert (verdict.complete, verdict.breached, verdict.not_cleared, verdict.reason) == (
        True,
        None,
        None,
        "nothing to measure",
    )


@pytest.mark.parametrize(("stat", "expected"), [("max", 7), ("min", 0), ("mean", 2), ("last", 0)])
def test_a_counter_over_the_ticks_of_a_window(run, make_rule, stat, expected):
    running = run(make_rule(metric="connects", stat=stat, above=100, window_seconds=6), active="a").quiet(6)
    for count in (7, 0, 3, 2):
        running.tick({"process": "a", "connects": count})
    running.tick()
    assert by_process(running.tick())["a"][0] == expected


def test_the_minimum_of_a_counter_includes_ticks_without_rows(run, make_rule):
    running = run(make_rule(stat="min", above=5, window_seconds=2), active="a").quiet(2)
    assert by_process(running.tick({"process": "a", "connects": 9}))["a"] == (0, None, None)
    assert by_process(running.tick({"process": "a", "connects": 8}))["a"] == (8, WARNING, WARNING)
    assert by_process(running.tick())["a"] == (0, None, None)


def test_a_tick_without_rows_can_breach_fire_below(run, make_rule):
    running = run(make_rule(stat="min", above=None, below=5, window_seconds=3)).quiet(3)
    for _ in range(2):
        running.tick({"process": "a", "connects": 9})
    assert running.tick({"process": "a", "connects": 9}) == []
    assert by_process(running.tick()) == {"a": (0, WARNING, WARNING)}


@pytest.mark.parametrize(
    ("stat", "expected"), [("sum", 0.6), ("mean", 0.2), ("max", 0.3), ("min", 0.1), ("last", 0.25), ("p50", 0.2)]
)
def test_a_distribution_over_a_window(run, make_rule, stat, expected):
    running = run(make_rule(metric="rtt", stat=stat, above=9), active="a")
    running.tick({"process": "a", "rtt": 0.1}, {"process": "b", "rtt": 7.0})
    verdicts = running.tick({"process": "a", "rtt": 0.2}, {"process": "a", "rtt": 0.3}, {"process": "a"})
    assert by_process(verdicts)["a"][0] == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(("stat", "expected"), [("mean", 4), ("max", 7), ("min", 3), ("last", 3)])
def test_a_gauge_over_a_window_weights_ticks_by_their_time(run, make_rule, stat, expected):
    running = run(make_rule(metric="open", stat=stat, above=100, window_seconds=4), active="a").quiet(4)
    running.tick({"process": "a", "open": 3}, {"process": "a", "open": 4}, seconds=1)
    assert by_process(running.tick({"process": "a", "open": 3}, seconds=3))["a"][0] == expected


# Groups that appear and disappear


def test_an_active_group_without_rows_has_the_value_zero(run, make_rule):
    running = run(make_rule(stat="sum", window_seconds=2, above=5), active="a").quiet(2)
    assert by_process(running.tick({"process": "a", "connects": 6}))["a"] == (6, WARNING, WARNING)
    running.quiet(1)
    verdict = running.tick()[0]
    assert (verdict.value, verdict.complete, verdict.not_cleared, verdict.reason) == (0, True, None, "gone")


def test_an_active_group_that_never_had_rows_has_the_value_zero(run, make_rule):
    running = run(make_rule(above=5, window_seconds=2), active=["ghost"]).quiet(2)
    assert by_process(running.tick({"process": "a"})) == {"ghost": (0, None, None)}


def test_a_silent_group_breaches_fire_below_as_long_as_it_is_active(run, make_rule):
    running = run(make_rule(above=None, below=1, window_seconds=3)).quiet(3)
    for _ in range(4):
        running.tick({"process": "a", "connects": 5})
    assert [by_process(running.tick()) for _ in range(2)] == [{}, {}]
    assert [by_process(running.tick()) for _ in range(4)] == [{"a": (0, WARNING, WARNING)}] * 3 + [{}]
    running.active = [("storm", labels("a"))]
    assert [by_process(running.tick()) for _ in range(9)] == [{"a": (0, WARNING, WARNING)}] * 9


def test_reused_slots_of_silent_groups_hold_no_old_values(run, make_rule):
    running = run(make_rule(stat="sum", window_seconds=2, above=0))
    for number in range(1, 30):
        rows = [{"process": f"{number}-{index}", "connects": 1000 * number + index} for index in range(150)]
        verdicts = running.tick(*rows)
        worst = {f"{number}-{index}": (1000 * number + index, WARNING, WARNING) for index in range(130, 150)}
        assert by_process(verdicts) == worst | {"overflow": (130 + 150 * (number > 1), WARNING, WARNING)}


def test_groups_that_share_hash_cells_are_kept_apart(run, make_rule):
    running = run(make_rule(stat="sum", by=("pid", "remote_port"), above=0), active=())
    rows = [
        {"pid": pid, "remote_port": port, "connects": 1 + pid * 300 + port} for pid in range(9) for port in range(99)
    ]
    running.active = [("storm", (("pid", str(row["pid"])), ("remote_port", str(row["remote_port"])))) for row in rows]
    values = {verdict.labels: verdict.value for verdict in running.tick(*rows, *rows)}
    assert values == {
        (("pid", str(row["pid"])), ("remote_port", str(row["remote_port"]))): 2 * row["connects"] for row in rows
    }


def test_the_worst_twenty_have_verdicts_and_the_others_are_counted(run, make_rule):
    running = run(make_rule(stat="sum", above=10, critical=30))
    verdicts = running.tick(*({"process": str(number), "connects": number} for number in range(41)))
    assert [verdict.labels for verdict in verdicts[:-1]] == [labels(str(number)) for number in range(40, 20, -1)]
    overflow = verdicts[-1]
    assert (overflow.labels, overflow.value, overflow.breached) == (OVERFLOW_LABELS, 10, WARNING)


def test_active_instances_have_verdicts_beside_the_worst_and_are_not_in_the_overflow(run, make_rule):
    running = run(make_rule(stat="sum", above=0), active=["1"])
    verdicts = running.tick(*({"process": str(number), "connects": number} for number in range(25)))
    assert labels("1") in [verdict.labels for verdict in verdicts]
    assert len(verdicts) == 22
    assert (verdicts[-1].labels, verdicts[-1].value) == (OVERFLOW_LABELS, 3)


def test_ever_worse_groups_add_up_to_at_most_forty_instances(run, make_rule):
    running = run(make_rule(stat="sum", above=0))
    for number in range(10):
        rows = ({"process": f"{number}-{index}", "connects": 1 + number} for index in range(20))
        verdicts = [verdict for verdict in running.tick(*rows) if not verdict.is_displaced]
        running.active = [("storm", verdict.labels) for verdict in verdicts]
    assert len(verdicts) == 41
    assert verdicts[-1].value == 160


def test_an_ended_overflow_is_cleared(run, make_rule):
    running = run(make_rule(stat="sum", above=0)).quiet(10)
    running.active = [("storm", OVERFLOW_LABELS)]
    verdict = running.tick()[0]
    assert (verdict.labels, verdict.value, verdict.breached, verdict.not_cleared, verdict.complete) == (
        OVERFLOW_LABELS,
        0,
        None,
        None,
        True,
    )


# Incomplete input


def test_rules_with_fire_below_are_unknown_until_their_window_is_filled(run, make_rule):
    running = run(make_rule(above=None, below=5, window_seconds=3), active="a")
    verdicts = [running.tick({"process": "a", "connects": 1})[0] for _ in range(3)]
    assert [(verdict.complete, verdict.breached, verdict.reason) for verdict in verdicts] == [
        (False, None, "window not filled yet"),
        (False, None, "window not filled yet"),
        (True, WARNING, ""),
    ]


def test_an_instance_restored_after_a_restart_is_unknown_until_its_window_is_filled(run, make_rule):
    running = run(make_rule(window_seconds=3, above=5), active="a")
    assert [running.tick()[0].complete for _ in range(4)] == [False, False, True, True]


def test_a_breach_in_a_window_that_is_not_filled_is_a_breach(run, make_rule):
    running = run(make_rule(stat="sum", window_seconds=3, above=5), active="a")
    assert running.tick({"process": "a", "connects": 6})[0].breached is WARNING


SUM_OF_TWO = Operation("+", MetricReference("connects"), MetricReference("accepts"))


@pytest.mark.parametrize(
    ("options", "breached", "complete"),
    [
        ({"stat": "sum", "above": 5}, WARNING, True),
        ({"stat": "sum", "above": 9.5}, None, False),
        ({"stat": "sum", "above": 10.5}, None, True),
        ({"stat": "sum", "above": 5, "critical": 9.5}, WARNING, False),
        ({"stat": "rate", "above": 3.1}, None, False),
        ({"stat": "rate", "above": 3.4}, None, True),
        ({"stat": "max", "above": 5}, WARNING, True),
        ({"stat": "max", "above": 50}, None, False),
        ({"stat": "sum", "above": None, "below": 50}, WARNING, True),
        ({"stat": "sum", "above": None, "below": 9.5}, None, False),
        ({"metric": SUM_OF_TWO, "stat": "sum", "above": 5}, WARNING, True),
        ({"metric": SUM_OF_TWO, "stat": "sum", "above": 11.5}, None, True),
        ({"metric": "bytes_sent", "stat": "sum", "above": 1e15}, None, False),
        ({"metric": ratio("connects", "established"), "above": 5}, WARNING, True),
        ({"metric": ratio("connects", "established"), "above": 9}, None, False),
        ({"metric": "open", "stat": "last", "above": 6.5}, None, True),
        ({"metric": "open", "stat": "mean", "above": 1}, WARNING, True),
        ({"metric": "rtt", "stat": "p50", "above": 5}, None, False),
        ({"metric": "rtt", "stat": "max", "above": 5}, WARNING, True),
        ({"stat": "sum", "above": 5, "only_if": Comparison("<", MetricReference("accepts"), 5)}, WARNING, True),
        ({"stat": "sum", "above": 5, "only_if": Comparison("<", MetricReference("accepts"), 1)}, None, False),
        ({"stat": "sum", "above": 5, "only_if": Comparison(">", MetricReference("accepts"), 1)}, None, True),
        ({"metric": "missed_ticks", "stat": "sum", "above": 0}, None, True),
    ],
)
def test_one_lost_connection_makes_only_the_limits_unknown_that_it_can_cross(
    run, make_rule, options, breached, complete
):
    running = run(make_rule(window_seconds=3, **options), active="a").quiet(3)
    verdict = running.tick({"process": "a", "connects": 9, "rtt": 9.0, "open": 5}, missed_events=1)[0]
    assert (verdict.complete, verdict.breached) == (complete, breached)
    assert (verdict.reason == "input incomplete") is not complete
    running.quiet(2)
    assert running.tick()[0].complete
    assert not running.engine.unknown_rules


def test_a_rule_is_unknown_when_a_group_without_an_instance_could_fire(run, make_rule):
    running = run(make_rule(stat="sum", window_seconds=3, above=5)).quiet(3)
    assert (running.tick({"process": "a", "connects": 5}, missed_events=1), running.engine.unknown_rules) == (
        [],
        ("storm",),
    )
    running = run(make_rule(stat="sum", window_seconds=3, above=5)).quiet(3)
    assert (running.tick(missed_events=5), running.engine.unknown_rules) == ([], ())
    assert (running.tick(missed_events=1), running.engine.unknown_rules) == ([], ("storm",))


def test_a_rule_whose_window_is_too_short_for_the_ticks_is_unknown_and_fires_all_the_same(run, make_rule):
    rules = [
        make_rule("short", stat="rate", window_seconds=5, above=50),
        make_rule("long", stat="rate", window_seconds=16, above=50),
        make_rule("newest", metric="open", stat="last", window_seconds=5, above=50),
    ]
    for seconds, missed, unknown in ((1, 0, ()), (8, 7, ("short",)), (8, 0, ())):
        running = run(*rules).quiet(20)
        running.tick(seconds=seconds, missed_ticks=missed)
        assert running.engine.unknown_rules == unknown
    running = run(*rules).quiet(20)
    verdicts = running.tick({"process": "a", "connects": 900}, seconds=8, missed_ticks=7)
    assert [(one.rule.id, one.breached, one.complete) for one in verdicts] == [
        ("short", WARNING, False),
        ("long", WARNING, True),
    ]


def test_an_alert_of_a_rule_with_too_short_a_window_is_not_cleared(run, make_rule):
    running = run(make_rule(stat="rate", window_seconds=5, above=50), active="a").quiet(20)
    [verdict] = running.tick(seconds=8, missed_ticks=7)
    assert (verdict.complete, verdict.breached, verdict.reason) == (False, None, "ticks too far apart")
    assert running.tick()[0].complete


def test_a_lost_sample_with_known_amounts_makes_only_the_limits_unknown_that_it_can_cross(run, make_rule):
    for amount, complete in ((3.0, True), (7.0, False)):
        running = run(make_rule(stat="sum", window_seconds=3, above=5), active="a").quiet(3)
        [verdict] = running.tick(lost_samples=1, lost_amounts={"connects": amount, "closes": 0.0, "open": 0.0})
        assert verdict.complete is complete


def test_rules_without_time_are_unknown_and_judged_first_in_the_next_tick(host, make_rule, clock):
    rules = [make_rule(f"r{number}", window_seconds=number + 2, above=0.1) for number in range(7)]
    engine = Engine(rules, clock)
    engine.evaluate(host.baseline(), [])
    for _ in range(10):
        assert len(engine.evaluate(host.tick({"process": "a", "connects": 90}), [])) == 7
    read = clock.boottime_ns
    clock.boottime_ns = lambda: clock.advance(MAX_JUDGING_NS / 1e9 / 3) or read()
    judged = []
    for _ in range(5):
        verdicts = engine.evaluate(host.tick({"process": "a", "connects": 90}), [])
        judged.append({verdict.rule.id for verdict in verdicts})
        assert judged[-1] | set(engine.unknown_rules) == {rule.id for rule in rules}
        assert judged[-1].isdisjoint(engine.unknown_rules)
    assert set.union(*judged[:3]) == {rule.id for rule in rules}
    assert engine.take_failures() == []


def test_a_sample_that_is_in_no_count_makes_all_rules_unknown_for_a_window(run, make_rule):
    running = run(make_rule(stat="max", window_seconds=3, above=10**9), active="a").quiet(3)
    assert [running.tick(lost_samples=1)[0].complete, *(running.tick()[0].complete for _ in range(3))] == [
        *[False] * 3,
        True,
    ]


@pytest.mark.parametrize(
    ("lost", "stat", "limit", "complete"),
    [
        (4, "p50", 0.475, True),
        (4, "p50", 0.485, False),
        (4, "p50", 0.515, False),
        (4, "p50", 0.525, True),
        (4, "p95", 0.985, False),
        (4, "p95", 0.995, True),
        (6, "p95", 10**9, False),
        (4, "min", 0.001, False),
        (4, "max", 10**9, False),
        (4, "mean", 10**9, False),
    ],
)
def test_lost_values_shift_the_rank_of_a_percentile_by_at_most_their_number(
    run, make_rule, lost, stat, limit, complete
):
    rule = make_rule(metric="connect_latency", stat=stat, window_seconds=3, above=limit)
    running = run(rule, active="a").quiet(3)
    rows = [{"process": "a", "connect_latency": number / 100} for number in range(1, 101)]
    assert running.tick(*rows, missed_events=lost)[0].complete is complete


REMOTE, REFUSED = Condition("remote", none_of=("127.0.0.0/8",)), Condition("failure", any_of=("refused",))
NAMED, INBOUND = Condition("process", any_of=("a*",)), Condition("direction", any_of=("in",))
FOLDED = dict.fromkeys(("local", "local_port", "remote", "remote_port", "state", "failure"))
SIXTY = {"connects": 60, "closes": 60, "connect_failures": 60, "established": 60, "direction": "out"}


@pytest.mark.parametrize(
    ("options", "row", "breached", "complete"),
    [
        ({}, FOLDED, WARNING, True),
        ({"where": [INBOUND]}, FOLDED, None, True),
        ({"where": [REMOTE]}, FOLDED, None, False),
        ({"where": [REMOTE, INBOUND]}, FOLDED, None, True),
        ({"where": [REMOTE], "above": 61}, FOLDED, None, True),
        ({"where": [REFUSED], "metric": "connect_failures"}, FOLDED, None, False),
        ({"metric": "lifetime", "stat": "p50"}, FOLDED, None, False),
        ({"metric": "lifetime", "stat": "max"}, FOLDED, None, False),
        ({"metric": "connect_latency", "stat": "p50", "where": [INBOUND]}, FOLDED, None, True),
        ({"metric": "accept_queue", "stat": "p50"}, FOLDED, None, True),
        ({}, {"process": None}, None, False),
        ({"above": 61}, {"process": None}, None, True),
        ({"where": [NAMED]}, {"process": None}, None, False),
        ({"where": [Condition("user", none_of=("x",))]}, {"user": None}, None, False),
        ({"where": [REMOTE]}, {"user": None, "remote": "10.1.1.1"}, WARNING, True),
    ],
)
def test_lost_details_make_only_the_rules_unknown_that_read_them(run, make_rule, options, row, breached, complete):
    options = {"stat": "sum", "above": 50} | options
    running = run(make_rule(window_seconds=3, **options), active="a").quiet(3)
    verdict = running.tick({"process": "a"} | SIXTY | row)[0]
    assert (verdict.breached, verdict.complete) == (breached, complete)
    assert [running.quiet(1).tick()[0].complete for _ in range(2)] == [complete, True]


def test_details_that_one_process_lost_make_no_other_process_unknown(run, make_rule):
    running = run(make_rule(metric="lifetime", stat="p50", window_seconds=3, above=50), active="ab").quiet(3)
    complete = {one.labels: one.complete for one in running.tick({"process": "a"} | SIXTY | FOLDED, {"process": "b"})}
    assert complete == {labels("a"): False, labels("b"): True}


def test_a_refused_change_makes_only_rules_on_counters_of_its_group_unknown(run, make_rule):
    for metric, expected in (("bytes_sent", [False, True]), ("rtt", [False, True]), ("connects", [True, True])):
        rule = make_rule(metric=metric, stat="max", window_seconds=3, above=50)
        running = run(rule, active="ab").quiet(3)
        verdicts = running.tick({"process": "a", "refused": True}, {"process": "b"})
        assert [verdict.complete for verdict in verdicts] == expected


def test_a_rule_is_unknown_when_only_if_needs_lost_data(run, make_rule):
    gate = Comparison(">=", MetricReference("connects"), 1)
    running = run(
        make_rule("storm", "open", "last", window_seconds=3, above=1, only_if=gate, where=[REMOTE]), active="a"
    )
    running.quiet(3).tick({"process": "a"} | SIXTY | FOLDED)
    assert [running.tick()[0].complete for _ in range(3)] == [False, False, True]


SENT, OPENED = MetricReference("bytes_sent"), MetricReference("connects")
IN_SOCKMAP = {"process": "a", "bytes_sent": 9, "connects": 9, "remote_port": 5, "in_sockmap": True}


@pytest.mark.parametrize(
    ("options", "breached", "complete"),
    [
        ({"metric": "bytes_sent", "above": 5}, WARNING, True),
        ({"metric": "bytes_sent", "above": 50}, None, False),
        ({"metric": "bytes_sent", "above": None, "below": 50}, None, False),
        ({"metric": "bytes_received", "above": None, "below": 50}, None, False),
        ({"metric": "receive_queue", "stat": "max", "above": None, "below": 50}, None, False),
        ({"metric": Operation("/", SENT, OPENED), "above": None, "below": 5}, None, False),
        ({"metric": Operation("/", OPENED, SENT), "above": 0.5}, None, False),
        ({"metric": "connects", "above": 5, "only_if": Comparison("<", SENT, 50)}, None, False),
        ({"metric": "connects", "above": 5}, WARNING, True),
        ({"metric": "packets_sent", "above": None, "below": 5}, WARNING, True),
        ({"metric": "bytes_sent", "above": 50, "where": (Condition("remote_port", none_of=("5",)),)}, None, True),
    ],
)
def test_bytes_that_pass_through_a_sockmap_make_only_rules_on_them_unknown(run, make_rule, options, breached, complete):
    running = run(make_rule(window_seconds=3, **{"stat": "sum"} | options), active="ab").quiet(3)
    verdicts = {verdict.labels: verdict for verdict in running.tick(IN_SOCKMAP, {"process": "b", "bytes_sent": 9})}

    assert (verdicts[labels("a")].breached, verdicts[labels("a")].complete) == (breached, complete)
    assert verdicts[labels("b")].complete
    assert all(verdict.complete for verdict in running.quiet(2).tick())


@pytest.mark.parametrize(("in_sockmap", "count"), [(False, 1), (True, 0)])
def test_traffic_that_moves_into_a_sockmap_has_not_stopped(run, make_rule, in_sockmap, count):
    running = run(make_rule(metric="bytes_sent", window_seconds=3, above=None, below=5)).quiet(3)
    assert len(running.tick({"process": "a", "connects": 1, "in_sockmap": in_sockmap})) == count


def test_connections_without_their_peer_breach_for_no_peer(run, make_rule):
    lost = {"process": "a", "remote": None, "connects": 1000}
    assert run(make_rule(stat="sum", window_seconds=2, where=[REMOTE])).quiet(2).tick(lost, ledger_full=1000) == []
    assert run(make_rule(stat="sum", window_seconds=2, by=["remote"])).quiet(2).tick(lost, ledger_full=1000) == []


def test_groups_that_lost_rows_are_unknown_for_a_window(host, make_rule):
    engine = Engine([make_rule(window_seconds=2, by=["remote"], above=1)])
    active = [("storm", (("remote", "::1"),))]
    for snapshot in (host.baseline(), host.tick(), host.tick()):
        engine.evaluate(snapshot, active)
    lost = {"remote": None, "connects": 3}
    complete = [engine.evaluate(host.tick(*rows), active)[0].complete for rows in ([lost], [], [])]
    assert complete == [False, False, True]


def test_a_new_baseline_empties_all_windows(host, make_rule):
    engine = Engine([make_rule(window_seconds=2, above=5)])
    active = [("storm", labels("a"))]
    snapshots = [host.baseline(), host.tick(), host.tick(), host.baseline(), host.tick(), host.tick()]
    assert [engine.evaluate(snapshot, active)[0].complete for snapshot in snapshots] == [
        False,
        False,
        True,
        False,
        False,
        True,
    ]


# Reload


def test_new_thresholds_keep_the_window_of_a_rule(run, make_rule):
    running = run(make_rule(stat="sum", above=100)).quiet(10)
    running.tick({"process": "a", "connects": 50})
    running.engine.replace_rules([make_rule(stat="sum", above=20)])
    assert by_process(running.tick()) == {"a": (50, WARNING, WARNING)}


@pytest.mark.parametrize("stat", ["max", "min", "p50"])
def test_new_thresholds_keep_the_window_of_order_statistics(run, make_rule, stat):
    running = run(make_rule(metric="rtt", stat=stat, above=9))
    running.tick({"process": "a", "rtt": 5.0}, {"process": "a", "rtt": 5.0})
    running.engine.replace_rules([make_rule(metric="rtt", stat=stat, above=4)])
    assert by_process(running.tick()) == {"a": (5.0, WARNING, WARNING)}
    running.quiet(7)
    assert by_process(running.tick()) == {"a": (5.0, WARNING, WARNING)}
    assert by_process(running.tick()) == {}


def test_a_new_window_length_starts_an_empty_window(run, make_rule):
    running = run(make_rule(stat="sum", above=20)).quiet(10)
    running.tick({"process": "a", "connects": 50})
    running.engine.replace_rules([make_rule(stat="sum", above=20, window_seconds=20)])
    assert running.tick() == []


def test_required_columns_are_the_metrics_and_dimensions_of_all_rules(make_rule):
    gate = Comparison(">", MetricReference("accepts"), 1)
    rules = [make_rule("a", ratio("closes", "connects"), only_if=gate), make_rule("b", "rtt", "p50", by=["unit"])]
    where = [Condition("remote", any_of=("::1",))]
    engine = Engine([*rules, make_rule("c", "open", "max", by=(), where=where)])
    assert engine.required_columns == {"closes", "connects", "accepts", "rtt", "open", "process", "unit", "remote"}
    engine.replace_rules([])
    assert engine.required_columns == set()


# Running windows compared with a slow model

_ROWS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.one_of(st.none(), st.integers(1, 9))), max_size=6
)


def _recompute(stat, history, at, window):
    """Return the stat of `connects` (of `rtt` for a percentile) from all ticks of one group: (at, elapsed, rows)."""
    ticks = [(elapsed, rows) for when, elapsed, rows in history if when > at - window]
    counts = [(sum(n for n, _ in rows), elapsed) for elapsed, rows in ticks]
    if stat == "sum":
        return sum(n for n, _ in counts)
    if stat == "rate":
        return sum(n for n, _ in counts) / max(window, sum(elapsed for _, elapsed in counts))
    if stat in ("max", "min"):
        return {"max": max, "min": min}[stat](n / elapsed for n, elapsed in counts)
    values = sorted(value / 8 for _, rows in ticks for _, value in rows if value is not None)
    return values[math.ceil(len(values) * int(stat[1:]) / 100) - 1] if values else math.nan


@pytest.mark.parametrize("stat", ["sum", "rate", "max", "min", "p50", "p95"])
@given(
    ticks=st.lists(st.tuples(st.sampled_from([1, 1, 1, 2, 5]), _ROWS), min_size=1, max_size=25),
    limit=st.integers(0, 12),
)
@settings(max_examples=60, deadline=None)
def test_running_windows_equal_their_recomputation(make_rule, make_host, stat, ticks, limit):
    host = make_host()
    metric = "rtt" if stat.startswith("p") else "connects"
    rule = make_rule(metric=metric, stat=stat, window_seconds=4, above=limit / 8 if metric == "rtt" else limit)
    running = EngineRun(host, rule, active="abc").quiet(4)
    start = host.at_ns // 10**9
    history = [(start - 3 + second, 1, {}) for second in range(4)]
    for elapsed, rows in ticks:
        written = [
            {"process": name, "connects": n, **({} if rtt is None else {"rtt": rtt / 8})} for name, n, rtt in rows
        ]
        snapshot = host.tick(*written, seconds=elapsed)
        history.append((snapshot.at_ns // 10**9, elapsed, rows))
        at = history[-1][0]
        expected = {}
        for name in "abc":
            own = [(when, took, [row[1:] for row in rows if row[0] == name]) for when, took, rows in history]
            value = _recompute(stat, own, at, 4)
            if value > rule.thresholds.fire[WARNING]:
                expected[name] = (pytest.approx(value), WARNING, WARNING)
        assert by_process(running.engine.evaluate(snapshot, [])) == expected


# Shipped rules


def test_failed_connects_of_the_watchdogs_account_are_no_storm_but_those_of_others_under_its_names_are(host):
    (rule,) = [
        rule for rule in load_rules([shipped_rules_folder()], receivers=()).rules if rule.id == "failed-connect-storm"
    ]
    engine = Engine([rule])
    engine.evaluate(host.baseline(), [])
    failing = {"process": "bpf-watchdog", "direction": "out", "closes": 50, "connect_failures": 50}
    verdicts = engine.evaluate(
        host.tick(
            {**failing, "user": "bpf-watchdog", "unit": "bpf-watchdog.service"},
            {**failing, "user": "bpf-watchdog", "unit": ""},
            {**failing, "user": "mallory", "unit": "user@1000/bpf-watchdog.service"},
            {**failing, "user": "mallory", "unit": "bpf-watchdog.service"},
            {**failing, "user": "999", "unit": "docker-1.scope", "container": "0123456789ab"},
        ),
        [],
    )

    assert {dict(verdict.labels)["unit"] for verdict in verdicts} == {
        "bpf-watchdog.service", "docker-1.scope", "user@1000/bpf-watchdog.service",
    }  # fmt: skip
