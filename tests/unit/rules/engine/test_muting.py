"""A wider rule is silent about traffic that a narrower rule reports, and only about that."""

from __future__ import annotations

import pytest

from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import Now
from watchdog.rules.engine.engine import Engine
from watchdog.rules.language.expression import parse_expression
from watchdog.rules.language.rule import Severity


class Rules:
    """An engine and a lifecycle; `tick` returns the alerts that begin to fire, as (rule, first label)."""

    def __init__(self, host, *rules):
        self.host, self.engine, self.lifecycle = host, Engine(rules), Lifecycle("web-1")
        self.engine.evaluate(host.baseline(), [])
        for _ in range(10):
            self.tick()

    def tick(self, *rows, seconds=1):
        snapshot = self.host.tick(*rows, seconds=seconds)
        verdicts = self.engine.evaluate(snapshot, self.lifecycle.active_keys(), self.lifecycle.firing_keys())
        transitions = self.lifecycle.advance(verdicts, Now(snapshot.at_ns, 5.0))
        assert self.engine.take_failures() == self.lifecycle.take_failures() == []
        firing = [one.alert for one in transitions if one.alert.resolved is None]
        return {(alert.rule, alert.labels[0][1] if alert.labels else "") for alert in firing}

    def ticks(self, number, *rows, seconds=1):
        return set().union(*(self.tick(*rows, seconds=seconds) for _ in range(number)))

    def pending(self):
        return {rule for rule, _ in set(self.lifecycle.active_keys()) - set(self.lifecycle.firing_keys())}


def storm(process, connects, user="games"):
    return {"process": process, "user": user, "direction": "out", "connects": connects}


def rules_of_windows(host, make_rule, seconds):
    narrow = make_rule("narrow", above=100, window_seconds=seconds)
    wide = make_rule("wide", above=200, window_seconds=seconds, by=("user",), unless_firing=("narrow",))
    whole = make_rule("whole", above=500, window_seconds=seconds, by=(), unless_firing=("narrow", "wide"))
    return Rules(host, whole, wide, narrow)


@pytest.fixture
def rules(host, make_rule):
    """Rules by process, by user and of the host, as the shipped ones."""
    return rules_of_windows(host, make_rule, 2)


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


@pytest.fixture
def shipped_windows(host, make_rule):
    """Rules by process, by user and of the host with the limits and windows of the shipped ones."""
    return rules_of_windows(host, make_rule, 5)


@pytest.mark.parametrize("seconds", [1, 2, 5])
@pytest.mark.parametrize("first_part", [0.05, 0.5, 0.7, 1])
@pytest.mark.parametrize("count", [2, 3, 12])
def test_equal_storms_that_begin_together_are_alerts_of_the_narrow_rule_alone(
    shipped_windows, seconds, first_part, count
):
    rest = storm("rest", 3 * seconds)
    storms = [storm(f"p{number}", 110 * seconds) for number in range(count)]
    begun = [storm(f"p{number}", int(110 * seconds * first_part)) for number in range(count)]
    fired = shipped_windows.tick(*begun, rest, seconds=seconds)
    fired |= shipped_windows.ticks(10, *storms, rest, seconds=seconds)
    assert fired == {("narrow", f"p{number}") for number in range(count)}
    assert shipped_windows.pending() == set()


def test_a_storm_that_begins_before_the_others_fire_holds_the_wider_rule(shipped_windows):
    rows = []
    for number in range(6):
        rows.append(storm(f"p{number}", 130))
        assert {rule for rule, _ in shipped_windows.tick(*rows)} <= {"narrow"}
    assert {rule for rule, _ in shipped_windows.ticks(8, *rows)} == {"narrow"}


def test_many_processes_below_the_limit_are_an_alert_of_the_wider_rule_at_once(shipped_windows):
    rows = [storm(f"n{number}", 60) for number in range(5)]  # 300 a second: beyond the limit in the fourth tick
    fired = [shipped_windows.tick(*rows) for _ in range(4)]
    assert fired == [set(), set(), set(), {("wide", "games")}]


def test_names_that_change_hold_the_wider_rule_for_no_longer_than_one_of_them_would_need(shipped_windows):
    fired = [shipped_windows.tick(storm(f"n{second}", 300)) for second in range(9)]
    # Beyond its limit in the fourth tick; a process with 300 a second fires after 1.7 s, plus two ticks.
    assert [("wide", "games") in found for found in fired].index(True) == 3 + 4
    assert set().union(*fired) == {("wide", "games")}


def test_storms_that_end_before_the_narrow_rule_fires_are_an_alert_of_the_wider_one(shipped_windows):
    rows = [storm(f"p{number}", 110) for number in range(3)]
    assert shipped_windows.ticks(4, *rows) == set()
    assert shipped_windows.pending() == {"wide"}
    assert shipped_windows.tick() == {("wide", "games")}


def test_equal_scans_of_one_user_are_alerts_of_the_narrow_rule_alone(host, make_rule):
    narrow = make_rule("narrow", "connects", "distinct:remote_port", above=100, window_seconds=60)
    wide = make_rule(
        "wide",
        "connects",
        "distinct:remote_port",
        above=200,
        window_seconds=60,
        by=("user",),
        unless_firing=("narrow",),
    )
    rules = Rules(host, wide, narrow)
    fired = set()
    for second in range(60):
        ports = (number * 10_000 + 3 * second + step for number in range(1, 4) for step in range(3))
        fired |= rules.tick(*(storm(f"p{port // 10_000}", 1) | {"remote_port": port} for port in ports))
    assert fired == {("narrow", f"p{number}") for number in range(1, 4)}


def test_a_group_that_waits_in_the_narrow_rule_holds_the_wider_one_without_a_for(host, make_rule):
    narrow = make_rule("narrow", above=100, window_seconds=2, for_seconds=5)
    wide = make_rule("wide", above=200, window_seconds=2, by=("user",), unless_firing=("narrow",))
    assert Rules(host, wide, narrow).ticks(20, storm("a", 900)) == {("narrow", "a")}
    fired = [Rules(host, wide, narrow).tick(storm(f"name{second // 3}", 900)) for second in range(20)]
    assert ("narrow", "a") not in set().union(*fired)


def test_a_long_wait_of_the_narrow_rule_holds_the_wider_one_for_a_minute(host, make_rule):
    narrow = make_rule("narrow", above=100, window_seconds=2, for_seconds=600)
    wide = make_rule("wide", above=200, window_seconds=2, by=("user",), unless_firing=("narrow",))
    rules = Rules(host, wide, narrow)
    assert rules.ticks(60, storm("a", 900)) == set()
    assert rules.ticks(3, storm("a", 900)) == {("wide", "games")}


def test_a_held_group_is_pending_and_explained(shipped_windows):
    rows = [storm(f"p{number}", 110) for number in range(3)]
    shipped_windows.ticks(4, *rows)
    verdict = shipped_windows.engine.inspect_group("wide", (("user", "games"),), []).verdict
    assert (verdict.breached, verdict.is_held, verdict.reason) == (
        Severity.WARNING,
        True,
        "a narrower rule is about to report it",
    )


def test_held_groups_are_no_overflow(host, make_rule):
    narrow = make_rule("narrow", above=100, window_seconds=5)
    wide = make_rule("wide", above=200, window_seconds=5, by=("user",), unless_firing=("narrow",))
    rules = Rules(host, wide, narrow)
    rows = [storm(f"p{user}-{number}", 105, f"user{user}") for user in range(60) for number in range(3)]
    assert {rule for rule, _ in rules.ticks(12, *rows)} == {"narrow"}


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
