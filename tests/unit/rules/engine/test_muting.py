"""A wider rule is silent about traffic that a narrower rule reports, and only about that."""

from __future__ import annotations

import pytest

from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import Now
from watchdog.rules.engine.engine import Engine
from watchdog.rules.language.expression import parse_expression


class Rules:
    """An engine and a lifecycle; `tick` returns the alerts that begin to fire, as (rule, first label)."""

    def __init__(self, host, *rules):
        self.host, self.engine, self.lifecycle = host, Engine(rules), Lifecycle("web-1")
        self.engine.evaluate(host.baseline(), [])
        for _ in range(10):
            self.tick()

    def tick(self, *rows):
        snapshot = self.host.tick(*rows)
        verdicts = self.engine.evaluate(snapshot, self.lifecycle.active_keys(), self.lifecycle.firing_keys())
        transitions = self.lifecycle.advance(verdicts, Now(snapshot.at_ns, 5.0))
        assert self.engine.take_failures() == self.lifecycle.take_failures() == []
        firing = [one.alert for one in transitions if one.alert.resolved is None]
        return {(alert.rule, alert.labels[0][1] if alert.labels else "") for alert in firing}

    def ticks(self, number, *rows):
        return set().union(*(self.tick(*rows) for _ in range(number)))


def storm(process, connects, user="games"):
    return {"process": process, "user": user, "direction": "out", "connects": connects}


@pytest.fixture
def rules(host, make_rule):
    """Rules by process, by user and of the host, as the shipped ones."""
    narrow = make_rule("narrow", above=100, window_seconds=2)
    wide = make_rule("wide", above=200, window_seconds=2, by=("user",), unless_firing=("narrow",))
    whole = make_rule("whole", above=500, window_seconds=2, by=(), unless_firing=("narrow", "wide"))
    return Rules(host, whole, wide, narrow)


def test_a_storm_of_one_name_is_an_alert_of_the_narrow_rule_alone(rules):
    assert rules.ticks(5, storm("a", 5000)) == {("narrow", "a")}


def test_several_names_that_fire_each_for_itself_are_no_alert_of_the_wider_rule(rules):
    assert rules.ticks(5, *(storm(f"p{number}", 300 - number) for number in range(30))) == {
        *(("narrow", f"p{number}") for number in range(20)),
        ("narrow", "overflow"),
    }


def test_a_storm_of_many_names_is_an_alert_of_the_rule_by_user(rules):
    names = iter(range(10**6))
    fired = [rules.tick(*(storm(f"n{next(names)}", 1) for _ in range(400))) for _ in range(5)]
    assert set().union(*fired) == {("wide", "games")}


def test_a_storm_of_many_users_is_an_alert_of_the_rule_of_the_host(rules):
    assert rules.ticks(5, *(storm(f"n{uid}", 1, f"user{uid}") for uid in range(900))) == {("whole", "")}


@pytest.mark.parametrize(("decoy", "owner"), [(120, "games"), (50_000, "nobody")])
def test_a_decoy_that_fires_does_not_hide_the_rest(rules, decoy, owner):
    rules.ticks(3, storm("decoy", decoy, owner))
    fired = rules.ticks(5, storm("decoy", decoy, owner), *(storm(f"n{number}", 1) for number in range(400)))
    assert ("wide", "games") in fired


def test_a_reported_storm_that_is_still_in_the_window_is_not_reported_again(host, make_rule):
    narrow = make_rule("narrow", above=100, window_seconds=2)
    whole = make_rule("whole", above=500, window_seconds=5, by=(), unless_firing=("narrow",))
    rules = Rules(host, whole, narrow)
    assert rules.ticks(4, storm("a", 5000)) == {("narrow", "a")}
    assert rules.ticks(3, *(storm(f"n{number}", 1) for number in range(90))) == set()


def test_an_alert_of_the_wider_rule_goes_on_when_a_narrower_one_begins(rules):
    rules.ticks(3, *(storm(f"n{number}", 1) for number in range(400)))
    rules.ticks(3, storm("a", 5000))
    assert {rule for rule, _ in rules.lifecycle.firing_keys()} == {"narrow", "wide"}


def test_a_group_that_waits_in_the_narrow_rule_hides_nothing(host, make_rule):
    narrow = make_rule("narrow", above=100, window_seconds=2, for_seconds=5)
    wide = make_rule("wide", above=200, window_seconds=2, by=("user",), for_seconds=8, unless_firing=("narrow",))
    rules = Rules(host, wide, narrow)
    fired = [rules.tick(storm(f"name{second // 3}", 900)) for second in range(20)]
    assert set().union(*fired) == {("wide", "games")}


def test_a_group_that_waits_here_ends_when_the_narrow_rule_fires(host, make_rule):
    narrow = make_rule("narrow", above=100, window_seconds=2, for_seconds=5)
    wide = make_rule("wide", above=200, window_seconds=2, by=("user",), for_seconds=8, unless_firing=("narrow",))
    assert Rules(host, wide, narrow).ticks(20, storm("a", 900)) == {("narrow", "a")}


def test_shares_of_ratios_are_those_of_the_part(host, make_rule):
    failed = parse_expression("connect_failures / closes")
    narrow = make_rule("narrow", failed, above=0.2, window_seconds=2)
    wide = make_rule("wide", failed, above=0.2, window_seconds=2, by=("user",), unless_firing=("narrow",))

    def ends(process, failures, closes):
        return {"process": process, "user": "games", "connect_failures": failures, "closes": closes}

    assert Rules(host, narrow, wide).ticks(4, ends("a", 90, 100), ends("b", 10, 90)) == {("narrow", "a")}
    fired = Rules(host, narrow, wide).ticks(4, ends("a", 30, 40), *(ends(f"n{one}", 19, 100) for one in range(9)))
    assert fired == {("narrow", "a"), ("wide", "games")}


def test_values_of_a_distribution_count_where_they_are_beyond_the_limit(host, make_rule):
    narrow = make_rule("narrow", "connect_latency", "p50", above=0.2, window_seconds=2)
    wide = make_rule(
        "wide", "connect_latency", "p50", above=0.2, window_seconds=2, by=("user",), unless_firing=("narrow",)
    )

    def latencies(process, slow, fast):
        row = {"process": process, "user": "games"}
        return [row | {"connect_latency": 1.0}] * slow + [row | {"connect_latency": 0.01}] * fast

    assert Rules(host, narrow, wide).ticks(4, *latencies("a", 9, 1), *latencies("b", 1, 4)) == {("narrow", "a")}


def test_a_rule_without_the_narrower_rule_fires(host, make_rule):
    wide = make_rule("wide", above=200, window_seconds=2, by=("user",), unless_firing=("narrow",))
    assert Rules(host, wide).ticks(3, storm("a", 900)) == {("wide", "games")}
