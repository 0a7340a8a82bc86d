"""Windows above an hour: values against plain sums, restarts, reloads, room, losses."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import SECOND_NS, Now
from watchdog.rules.engine.engine import Engine
from watchdog.rules.engine.long_window_table import LongWindowTable
from watchdog.rules.engine.window import WindowCoverage
from watchdog.rules.language.expression import parse_expression
from watchdog.rules.language.long_windows import LONG_WINDOW_BUCKETS
from watchdog.rules.language.rule import OVERFLOW_LABELS, Severity, StatKind

HOUR, DAY = 3600, 86_400


class Guard:
    """Engine and alerts of one rule, and a store for both, after each tick."""

    def __init__(self, host, rule):
        self.host, self.rule, self.alerts, self.memories = host, rule, {}, {}
        self.start()

    def start(self, rule=None, boottime_shift_ns=0):
        self.rule = rule or self.rule
        self.engine, self.lifecycle = Engine([self.rule]), Lifecycle("web-1")
        parts = defaultdict(dict)
        for (rule_id, name), content in self.memories.items():
            parts[rule_id][name] = content
        self.anew = self.engine.memories.restore(parts, boottime_shift_ns)
        documents = [one for one in self.alerts.values() if one is not None]
        self.lifecycle.restore(json.loads(json.dumps(documents)), [self.rule], self.host.at_ns, boottime_shift_ns, 0)
        self.engine.evaluate(self.host.baseline(), self.lifecycle.active_keys())

    def tick(self, *rows, seconds=60, **options):
        snapshot = self.host.tick(*rows, seconds=seconds, **options)
        self.verdicts = self.engine.evaluate(snapshot, self.lifecycle.active_keys())
        transitions = self.lifecycle.advance(self.verdicts, Now(snapshot.at_ns, 5_000.0))
        assert self.engine.take_failures() == self.lifecycle.take_failures() == []
        self.alerts |= dict(self.lifecycle.take_changes())
        for key, content in self.engine.memories.take_changes():
            self.memories[key] = content
            if content is None:
                del self.memories[key]
        return [(one.kind.value, *(value for _, value in one.alert.labels)) for one in transitions]

    def hours(self, count, *rows):
        found = []
        for _ in range(int(count * 60)):
            found += self.tick(*rows)
        return found

    @property
    def values(self):
        return {dict(one.labels).get("unit"): one.value for one in self.verdicts}


def sends(unit, amount=1):
    return {"unit": unit, "bytes_sent": amount}


@pytest.fixture
def daily(make_rule):
    def make(**options):
        defaults = {"metric": "bytes_sent", "stat": "sum", "by": ["unit"], "window_seconds": DAY, "above": 1000}
        return make_rule(**defaults | options)

    return make


def test_a_unit_that_sends_too_much_in_a_day_fires_and_ends_when_it_has_left_the_window(host, daily):
    guard = Guard(host, daily())
    guard.tick()
    assert guard.hours(5, sends("a", 3), sends("b", 3)) == []
    assert guard.hours(2, sends("a", 3)) == [("firing", "a")]
    assert guard.hours(17) == []
    ended = next(minute for minute in range(1, 8 * 60) if guard.tick())
    # The sum of a was 1,260: it is at most 1,000 when 87 of its minutes have left, 10 minutes at a time.
    assert 60 <= ended <= 100


def test_the_alert_about_an_idle_group_fires_on_although_its_names_were_forgotten(host, daily):
    guard = Guard(host, daily())
    guard.tick()
    assert guard.tick(sends("a", 5_000)) == [("firing", "a")]
    for number in range(600):
        assert guard.tick(sends(f"other{number}")) == []
    assert guard.values["a"] == 5_000
    assert guard.tick(sends("a", 1)) == []
    assert guard.values["a"] == 5_001


@pytest.mark.parametrize("at", [1, 59, 60, 61, 500])
def test_values_and_alerts_continue_over_a_restart(host, daily, at):
    guard = Guard(host, daily(above=600))
    guard.tick()
    for minute in range(700):
        fired = guard.tick(sends("a"), sends("b", 2 * (minute % 2)))
        if minute == at:
            guard.start()
        assert [kind for kind, *_ in fired] == ["firing"] * len(fired)
    assert guard.values == {"a": 700, "b": 700}


def test_time_without_a_daemon_is_time_without_traffic(host, daily):
    guard = Guard(host, daily())
    guard.tick()
    guard.tick(sends("a", 5_000))
    host.at_ns += 20 * HOUR * SECOND_NS
    guard.start()
    guard.tick()
    assert guard.values == {"a": 5_000}
    host.at_ns += 5 * HOUR * SECOND_NS
    guard.start()
    assert guard.tick() == [("resolved", "a")]


def test_a_reboot_moves_the_time_of_the_boot_alone(host, daily):
    guard = Guard(host, daily())
    guard.tick()
    guard.tick(sends("a", 5_000))
    before = host.at_ns
    host.at_ns = 10 * SECOND_NS  # the new boot began an hour after the last tick
    guard.start(boottime_shift_ns=host.at_ns - (before + HOUR * SECOND_NS))
    for _ in range(22):
        guard.tick(seconds=HOUR)
    assert guard.values == {"a": 5_000}
    guard.tick(seconds=2 * HOUR)
    assert guard.values == {"a": 0}


def test_a_changed_definition_begins_anew_and_leaves_nothing_behind(host, daily):
    guard = Guard(host, daily())
    guard.tick()
    guard.tick(sends("a", 900))
    guard.start(daily(window_seconds=2 * DAY))
    assert guard.anew == ["storm"]
    guard.tick(sends("a", 900))
    assert guard.engine.memories.take_changes() == []
    guard.engine.replace_rules([daily(window_seconds=10)])
    guard.tick()
    assert guard.memories == {}


def test_a_reload_with_other_levels_keeps_the_values(host, daily):
    rule = daily()
    guard = Guard(host, rule)
    guard.tick()
    guard.tick(sends("a", 900))
    lower = replace(rule, thresholds=daily(above=500).thresholds)
    guard.engine.replace_rules([lower])
    guard.lifecycle.replace_rules([lower])
    assert guard.tick() == [("firing", "a")]


@pytest.mark.parametrize(
    ("stat", "metric", "value"),
    [
        ("sum", "bytes_sent + bytes_received", 60 * 10 * 10),
        ("rate", "bytes_sent", 60 * 10 * 6 / (60 * 600)),
        ("mean", "bytes_sent", 60 * 10 * 6 / (60 * 600)),
        ("max", "bytes_sent / connects", 3),
        ("max", "bytes_sent", 0.1),
        ("min", "bytes_sent", 0),
    ],
)
def test_each_stat_over_ten_hours(host, daily, stat, metric, value):
    guard = Guard(host, daily(stat=stat, metric=parse_expression(metric), above=-1, window_seconds=10 * HOUR))
    row = {"unit": "a", "bytes_sent": 6, "bytes_received": 4, "connects": 2}
    guard.tick()
    guard.hours(9)
    guard.hours(10, row)
    covered = guard.engine.memories._memories["storm"].covered_ns / SECOND_NS
    assert 10 * HOUR * (1 - 1 / LONG_WINDOW_BUCKETS) <= covered <= 10 * HOUR
    expected = value * covered / (10 * HOUR) if stat == "sum" else value
    assert guard.values["a"] == pytest.approx(expected, rel=0.01)


def test_the_least_rate_of_a_busy_group_is_that_of_its_quietest_tick(host, daily):
    guard = Guard(host, daily(stat="min", above=1, window_seconds=2 * HOUR))
    guard.tick()
    found = guard.hours(2.5, sends("a", 180)) + guard.tick(sends("a", 120)) + guard.hours(1, sends("a", 180))
    assert found == [("firing", "a")]
    assert guard.values == {"a": 2}
    assert guard.hours(1.5, sends("a", 180)) == []
    assert guard.values == {"a": 3}


def test_below_a_level_fires_only_once_the_window_was_seen(host, daily):
    guard = Guard(host, daily(above=None, below=100, clear=99, window_seconds=2 * HOUR))
    guard.tick()
    assert guard.hours(1.9, sends("a", 1), sends("b", 0)) == []
    assert guard.hours(0.2, sends("a", 1)) == []
    found = guard.hours(1, sends("b", 1))
    assert ("firing", "b") in found
    assert ("firing", "a") in found


@pytest.mark.parametrize("stat", ["sum", "rate", "max", "min"])
def test_a_host_without_traffic_is_below_a_level(host, daily, stat):
    guard = Guard(host, daily(stat=stat, by=(), above=None, below=1, window_seconds=2 * HOUR))
    assert guard.hours(1.9) == []
    guard.start()
    assert guard.hours(2.5) == [("firing",)]
    assert guard.hours(0.1, sends("a", 9_000)) == ([] if stat == "min" else [("resolved",)])


def test_a_group_that_sent_once_is_below_a_level_for_another_window(host, daily):
    guard = Guard(host, daily(above=None, below=100, window_seconds=2 * HOUR))
    guard.tick(sends("a", 500))
    assert guard.hours(1.95) == []
    assert guard.hours(1) == [("firing", "a")]
    guard.start()
    assert guard.hours(3) == [("resolved", "a")]
    assert guard.verdicts == []


def test_a_reload_to_a_rule_below_a_level_keeps_idle_groups_and_one_back_drops_them(host, daily):
    guard = Guard(host, daily(above=1000))
    guard.hours(2, sends("backup", 1))
    rule = daily(above=None, below=100)
    guard.engine.replace_rules([rule])
    guard.lifecycle.replace_rules([rule])
    assert guard.hours(40, sends("web", 100)) == [("firing", "backup")]
    guard.engine.replace_rules([guard.rule])
    guard.hours(26, sends("web", 100))
    assert guard.engine.memories._memories[rule.id].row(("backup",)) is None


def test_a_preview_of_a_reload_has_the_value_of_an_idle_group(host, daily):
    guard = Guard(host, daily(above=1000))
    guard.hours(1, sends("backup", 50))
    guard.hours(4)
    labels = (("unit", "backup"),)
    assert guard.engine.preview(daily(above=2000), labels).breached is Severity.WARNING
    assert guard.engine.preview(daily(above=4000), labels).breached is None
    assert guard.engine.memories._memories["storm"].keeps_idle is False
    guard.engine.preview(daily(above=None, below=100), labels)
    assert guard.engine.memories._memories["storm"].keeps_idle is False


def test_losses_make_a_value_a_lower_bound_and_a_rule_below_a_level_unknown(host, daily):
    guard = Guard(host, daily())
    guard.tick(missed_events=1)
    guard.tick(sends("a", 5_000))
    (verdict,) = guard.verdicts
    assert (verdict.breached, verdict.is_lower_bound) == (Severity.WARNING, True)
    guard = Guard(host, daily(above=None, below=200, window_seconds=2 * HOUR))
    assert guard.hours(3, sends("a", 1)) != []
    guard.tick(sends("a", 1), missed_events=1)
    (verdict,) = guard.verdicts
    assert (verdict.complete, verdict.breached) == (False, None)


def test_the_worst_of_very_many_groups_fire_and_the_others_are_counted(host, daily):
    guard = Guard(host, daily(above=0))
    guard.tick()
    guard.tick(*[sends(f"u{number}", 1 + number) for number in range(2_000)])
    values = {one.labels: one.value for one in guard.verdicts}
    assert len(values) == 21
    assert values[("unit", "u1999"),] == 2_000
    assert values[OVERFLOW_LABELS] == 2_000 - 20
    guard.tick(*[sends(f"v{number}") for number in range(6_000)])
    assert {one.labels: one.value for one in guard.verdicts}[OVERFLOW_LABELS] <= 2_048 - 20


def test_a_rule_without_by_has_one_value_for_the_host(host, daily):
    guard = Guard(host, daily(by=[], above=10))
    guard.tick()
    assert guard.tick(sends("a", 6), sends("b", 6)) == [("firing",)]


def test_a_long_window_keeps_no_tick(host, daily):
    engine = Engine([daily(window_seconds=31 * DAY)])
    assert engine.retention_ns == 2 * HOUR * SECOND_NS
    assert list(engine._plan.parts_of_type(WindowCoverage)) == []


def test_an_inspection_shows_the_value(host, daily):
    guard = Guard(host, daily())
    guard.tick()
    guard.tick(sends("a", 6))
    guard.tick(sends("a", 12))
    found = guard.engine.inspect_group("storm", (("unit", "a"),), [])
    assert (found.verdict.value, found.filled_ns) == (18, 180 * SECOND_NS)
    assert [(one.metric, one.window, one.newest) for one in found.metrics] == [("bytes_sent", 18, 12 / 60)]


# The table alone


STEPS = st.tuples(
    st.sampled_from([1, 7, 50, 400]),
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9), max_size=3),
    st.booleans(),
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(STEPS, max_size=50),
    st.sampled_from([StatKind.SUM, StatKind.MAX]),
    st.sampled_from([145, 1000, 1440]),
)
def test_values_are_those_of_plain_lists_over_restarts(steps, stat, window):
    table, at, seen, saved = LongWindowTable("x", stat, window), 1_000, [], {}
    for seconds, values, restarts in steps:
        at += seconds
        table.advance(at, misses=False)
        rows = table.find_or_add([(name,) for name in values])
        table.add(rows, np.array(list(values.values()), float))
        seen += [(at, name, value) for name, value in values.items()]
        if restarts:
            saved |= table.take_changes(at_once=True)
            saved = {name: content for name, content in saved.items() if content is not None}
            shift = 10_000 * len(seen)
            table = LongWindowTable("x", stat, window)
            assert table.restore(saved, shift)
            at, seen = at + shift, [(time + shift, name, value) for time, name, value in seen]
        since = at - table.covered_ns
        assert at - window < since + 1 <= at - window + -(-window // LONG_WINDOW_BUCKETS) + 1
        combine = max if stat is StatKind.MAX else lambda *numbers: sum(numbers)
        right = defaultdict(float)
        for time, name, value in seen:
            if time >= since:
                right[name] = combine(right[name], value)
        found = {name: table.values()[row] for name in "abcd" if (row := table.row((name,))) is not None}
        assert {name: value for name, value in found.items() if value} == right


def test_without_room_the_smallest_groups_are_dropped_first_and_counted():
    table = LongWindowTable("x", StatKind.SUM, DAY * SECOND_NS, max_groups=32)
    table.advance(1, misses=False)
    table.add(table.find_or_add([("big",)]), np.array([1e9]))
    for number in range(200):
        table.advance(number * 60 * SECOND_NS, misses=False)
        rows = table.find_or_add([(f"n{number}-{index}",) for index in range(10)])
        table.add(rows[rows >= 0], np.ones((rows >= 0).sum()))
    assert table.values()[table.row(("big",))] == 1e9
    assert len(table.values()) <= 32
    assert table.dropped >= 2_000 - 32


def test_a_large_newcomer_gets_room_within_a_minute_of_a_flood(host, daily):
    guard = Guard(host, daily(above=100_000))
    guard.tick()
    for minute in range(4):
        guard.tick(*[sends(f"{minute}-{number}") for number in range(3_000)], sends("big", 60_000))
    assert 120_000 <= guard.values["big"] <= 240_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("window", b"{"),
        ("window", b"{}"),
        ("window", b"[]"),
        ("window", b'{"definition": "x", "axis_ns": 1e999, "at_ns": 1, "lost_ns": null, "dropped": 0}'),
        ("window", b"[" * 100_000),
        ("window:groups", b"3"),
        ("window:0", b"123"),
    ],
)
def test_a_damaged_part_is_no_table(name, content):
    table = LongWindowTable("x", StatKind.SUM, DAY * SECOND_NS)
    table.advance(1, misses=False)
    table.add(table.find_or_add([("a",)]), np.array([5.0]))
    saved = table.take_changes()
    assert LongWindowTable("x", StatKind.SUM, DAY * SECOND_NS).restore(saved, 0)
    assert not LongWindowTable("x", StatKind.SUM, DAY * SECOND_NS).restore(saved | {name: content}, 0)
    assert not LongWindowTable("y", StatKind.SUM, DAY * SECOND_NS).restore(saved, 0)
