"""Rules with novelty: the first sight of a combination, over reloads, restarts, floods and damage."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import SECOND_NS, Now
from watchdog.rules.engine.engine import Engine
from watchdog.rules.engine.seen_combinations import SeenCombinations
from watchdog.rules.language.expression import Comparison, MetricReference
from watchdog.rules.language.novelty_table import novelty_thresholds
from watchdog.rules.language.rule import OVERFLOW_LABELS, Condition, Novelty, Severity
from watchdog.rules.language.template import parse_summary

HOUR_NS = 3600 * SECOND_NS


class Guard:
    """Engine and alerts of rules, and a store for both, after each tick."""

    def __init__(self, host, *rules):
        self.host, self.alerts, self.memories, self.rules = host, {}, {}, rules
        self.start()

    def start(self, *rules):
        self.rules = rules or self.rules
        self.engine, self.lifecycle = Engine(self.rules), Lifecycle("web-1")
        parts = {}
        for (rule, name), content in self.memories.items():
            parts.setdefault(rule, {})[name] = content
        self.learning_anew = self.engine.memories.restore(parts, 0)
        documents = [one for one in self.alerts.values() if one is not None]
        self.lifecycle.restore(documents, self.rules, self.host.at_ns, 0, 0)
        self.engine.evaluate(self.host.baseline(), self.lifecycle.active_keys())

    def reload(self, *rules):
        self.rules = rules
        self.engine.replace_rules(rules)
        self.lifecycle.replace_rules(rules)

    def tick(self, *rows, **options):
        """Run a tick; return (kind, labels as values) of each transition."""
        snapshot = self.host.tick(*rows, **options)
        verdicts = self.engine.evaluate(snapshot, self.lifecycle.active_keys())
        self.transitions = self.lifecycle.advance(verdicts, Now(snapshot.at_ns, 5_000.0))
        assert self.engine.take_failures() == self.lifecycle.take_failures() == []
        self.alerts |= dict(self.lifecycle.take_changes())
        for key, content in self.engine.memories.take_changes():
            self.memories[key] = content
            if content is None:
                del self.memories[key]
        return [(one.kind.value, *(value for _, value in one.alert.labels)) for one in self.transitions]


def novelty_rule(make_rule, learn_seconds=10, forget_seconds=86_400, keep_seconds=5, **options):
    novelty = Novelty(learn_seconds * SECOND_NS, forget_seconds * SECOND_NS, Severity.WARNING)
    by = options.setdefault("by", ("process", "remote"))
    return make_rule(
        **{
            "name": "new-peer",
            "stat": "sum",
            "novelty": novelty,
            "thresholds": novelty_thresholds(novelty),
            "keep_firing_for_seconds": keep_seconds,
            "summary": parse_summary("{process} talks for the first time", by),
        }
        | options
    )


def connect(process="app", remote="192.0.2.1", **values):
    return {"process": process, "remote": remote, "direction": "out", "connects": 1, **values}


@pytest.fixture
def guard(host, make_rule):
    return Guard(host, novelty_rule(make_rule))


def learnt(guard, *rows, seconds=1):
    for _ in range(11):
        guard.tick(*rows, seconds=seconds)
    return guard


def test_nothing_fires_while_the_rule_learns_and_what_it_saw_is_known(guard):
    assert [guard.tick(connect(remote=f"192.0.2.{last}")) for last in range(10)] == [[]] * 10
    assert guard.engine.inspect_rule("new-peer").learning_ns == 0
    assert guard.tick() == []
    assert guard.tick(connect(remote="192.0.2.3")) == []


def test_a_new_combination_fires_once_and_ends_after_keep_firing_for(guard):
    learnt(guard, connect())
    assert guard.tick(connect(), connect(remote="198.51.100.9")) == [("firing", "app", "198.51.100.9")]
    (alert,) = guard.lifecycle.firing_alerts().values()
    assert (alert.reason, alert.value, alert.severity) == ("seen for the first time", 1, Severity.WARNING)
    seen = [guard.tick(connect(remote="198.51.100.9")) for _ in range(8)]
    assert seen == [*[[]] * 5, [("resolved", "app", "198.51.100.9")], [], []]
    assert guard.tick(connect("other")) == [("firing", "other", "192.0.2.1")]


def test_the_reason_of_the_end_has_the_time(guard):
    learnt(guard)
    guard.tick(connect())
    for _ in range(6):
        guard.tick()
    (transition,) = guard.transitions
    assert transition.alert.reason == "no longer new for 5s"


def test_a_row_counts_if_it_meets_where_and_has_something_of_the_metric_and_the_gate_holds(host, make_rule):
    out = Condition("direction", any_of=("out",))
    gate = Comparison(">=", MetricReference("connects"), 3)
    guard = learnt(Guard(host, novelty_rule(make_rule, where=[out], only_if=gate)))
    assert guard.tick(connect(connects=0), connect(direction="in", connects=9)) == []
    assert guard.tick(connect()) == []
    assert guard.tick(connect(connects=2)) == [("firing", "app", "192.0.2.1")]


@pytest.mark.parametrize(("metric", "value"), [("listeners", 1), ("rtt", 0.2), ("bytes_sent", 5)])
def test_every_kind_of_metric_can_be_seen(host, make_rule, metric, value):
    stat = {"listeners": "last", "rtt": "count"}.get(metric, "sum")
    guard = learnt(Guard(host, novelty_rule(make_rule, metric=metric, stat=stat)))
    assert guard.tick(connect(connects=0, **{metric: value})) == [("firing", "app", "192.0.2.1")]


def test_a_combination_that_was_not_seen_for_the_time_of_forget_is_new_again(host, make_rule):
    guard = Guard(host, novelty_rule(make_rule, learn_seconds=3600, forget_seconds=7200))
    guard.tick(connect("rare"), connect("daily"))
    for _ in range(7):
        assert guard.tick(connect("daily"), seconds=1200) == []
    assert guard.tick(connect("rare"), connect("daily"), seconds=1200) == [("firing", "rare", "192.0.2.1")]


@pytest.mark.parametrize(("forget", "period"), [(3600, 1200), (86_400, 7200)])
def test_a_combination_in_use_is_known_after_a_restart_although_its_time_is_seldom_saved(
    host, make_rule, forget, period
):
    guard = Guard(host, novelty_rule(make_rule, forget_seconds=forget))
    for tick in range(40 * period // 120):
        fired = guard.tick(*[connect()] * (tick * 120 % period == 0), seconds=120)
    guard.start()
    for _ in range(period // 120):
        fired += guard.tick(seconds=120)
    assert guard.tick(connect(), seconds=120) == fired == []


def test_a_combination_that_is_not_in_use_is_forgotten_over_any_number_of_restarts(host, make_rule):
    guard = Guard(host, novelty_rule(make_rule, forget_seconds=3600))
    guard.tick(seconds=20)
    assert guard.tick(connect()) != []
    for _ in range(33):  # each saves the combination anew
        guard.tick(seconds=120)
        guard.engine.memories.mark_changed()
        guard.tick()
        guard.start()
    assert guard.tick(connect(), seconds=120)[0][0] == "firing"


def test_more_than_ten_within_an_hour_are_one_alert_with_their_number(guard):
    learnt(guard)
    fired = [guard.tick(connect(f"p{number}"), seconds=60) for number in range(14)]
    singles = [("firing", f"p{number}", "192.0.2.1") for number in range(10)]
    assert [one for found in fired for one in found if one[0] == "firing"] == [*singles, ("firing", "overflow")]
    alerts = {alert.labels: alert for alert in guard.lifecycle.firing_alerts().values()}
    overflow = alerts[OVERFLOW_LABELS]
    assert (overflow.value, overflow.summary) == (4, "4 new combinations of process, remote within an hour (new-peer)")


def test_the_combinations_of_one_alert_are_named_once(guard):
    learnt(guard, connect())
    rows = [connect(f"p{number}") for number in range(15)]
    snapshot = guard.host.tick(*rows)
    guard.engine.evaluate(snapshot, [])
    [(rule, names)] = guard.engine.take_left_out(snapshot, 100)
    assert (rule, {dict(labels)["process"] for labels in names}) == ("new-peer", {f"p{number}" for number in range(15)})
    _, contributors = guard.engine.find_contributors(snapshot, "new-peer", OVERFLOW_LABELS)
    assert contributors.amount == 15
    assert contributors.left_out is not None
    guard.engine.evaluate(guard.host.tick(*rows), [])
    assert guard.engine.take_left_out(snapshot, 100) == []


def test_a_burst_is_one_alert_and_the_next_hour_begins_anew(host, make_rule):
    guard = learnt(Guard(host, novelty_rule(make_rule, keep_seconds=3600)))
    assert guard.tick(*[connect(f"p{number}") for number in range(500)]) == [("firing", "overflow")]
    assert guard.tick(connect("late")) == []
    assert guard.lifecycle.firing_alerts().popitem()[1].value == 501
    assert [guard.tick(), guard.tick(seconds=3599)] == [[], []]
    assert guard.tick() == [("resolved", "overflow")]
    assert guard.tick(connect("single")) == [("firing", "single", "192.0.2.1")]


def test_a_reload_keeps_what_was_seen_unless_the_definition_changes(host, make_rule):
    rule = novelty_rule(make_rule)
    guard = learnt(Guard(host, rule), connect())
    longer = replace(rule, novelty=Novelty(5 * SECOND_NS, 86_400 * SECOND_NS, Severity.WARNING), window_ns=SECOND_NS)
    guard.reload(longer)
    assert guard.tick(connect(), connect("b")) == [("firing", "b", "192.0.2.1")]
    guard.reload(replace(rule, by=("process",)))
    assert ("firing", "c") not in guard.tick(connect("c"))
    guard.start()
    assert guard.learning_anew == []
    learnt(guard)
    assert guard.tick(connect("c"), connect("d")) == [("firing", "d")]


def test_a_rule_that_is_gone_leaves_nothing_behind(host, make_rule):
    guard = learnt(Guard(host, novelty_rule(make_rule)), connect())
    assert guard.memories
    guard.reload(make_rule())
    guard.tick()
    assert guard.memories == {}
    guard.memories = {("former", "novelty"): b"{}", ("former", "novelty:3"): b"x"}
    guard.start()
    guard.tick()
    assert guard.memories == {}


def test_a_definition_that_changed_while_the_daemon_was_down_is_learnt_anew(host, make_rule):
    rule = novelty_rule(make_rule)
    guard = learnt(Guard(host, rule), connect())
    guard.start(replace(rule, where=(Condition("direction", any_of=("out",)),)))
    assert guard.learning_anew == ["new-peer"]
    assert guard.tick(connect("b")) == []


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"definition": 3}'])
def test_a_damaged_memory_is_learnt_anew(host, make_rule, content):
    guard = learnt(Guard(host, novelty_rule(make_rule)), connect())
    guard.memories["new-peer", "novelty"] = content
    guard.start()
    assert guard.learning_anew == ["new-peer"]
    assert guard.tick(connect("b")) == []


@pytest.mark.parametrize("key", ["dropped", "observed_ns", "single", "others"])
@pytest.mark.parametrize("value", ["1e999", "null", '{"a": [1, 1e999]}', "[[1, 1e999]]"])
def test_a_header_with_a_value_of_another_kind_takes_nothing_over(host, make_rule, key, value):
    guard = learnt(Guard(host, novelty_rule(make_rule)), connect())
    header = json.loads(guard.memories["new-peer", "novelty"])
    guard.memories["new-peer", "novelty"] = json.dumps(header | {key: "?"}).replace('"?"', value).encode()
    guard.start()
    assert guard.learning_anew == ["new-peer"]
    assert guard.tick(connect(), connect("b")) == []  # it learns, from the begin


def test_a_flood_is_saved_as_one_number_a_minute(guard):
    learnt(guard)
    for number in range(150):
        guard.tick(*[connect(f"p{number}-{one}") for one in range(20)])
    header = json.loads(guard.memories["new-peer", "novelty"])
    assert len(header["others"]) <= 4
    assert sum(count for _, count in header["others"]) == 3_000


def test_a_damaged_part_forgets_its_combinations_only(host, make_rule):
    rows = [connect(f"p{number}") for number in range(60)]
    guard = learnt(Guard(host, novelty_rule(make_rule)), *rows, seconds=60)
    lost = next(key for key in guard.memories if key[1] != "novelty")
    del guard.memories[lost]
    guard.start()
    fired = guard.tick(*rows)
    assert guard.learning_anew == []
    assert 1 <= len(fired) < 15
    assert guard.tick(*rows) == []


STEPS = st.tuples(
    st.lists(st.sampled_from("abcdef"), max_size=3, unique=True),
    st.sampled_from(["", "", "restart", "reload"]),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_each_combination_fires_once_whatever_restarts_and_reloads_come_between(make_host, make_rule, steps):
    rule = novelty_rule(make_rule, learn_seconds=300, by=("process",), keep_seconds=0)
    guard, known = Guard(make_host(), rule), set()
    for minute, (names, event) in enumerate(steps, 1):
        found = [one for one in guard.tick(*map(connect, names), seconds=60) if one[0] == "firing"]
        wanted = [("firing", name) for name in sorted(set(names) - known)] if minute > 5 else []
        assert sorted(found) == wanted
        known |= set(names)
        if event == "restart":
            guard.start()
        elif event == "reload":
            guard.reload(replace(rule, window_ns=SECOND_NS * (2 + minute)))


def test_a_combination_of_a_tick_that_was_not_judged_in_time_fires_with_the_next_one(guard, monkeypatch):
    learnt(guard)
    monkeypatch.setattr(guard.engine, "_judges_in_time", lambda unknown: [])
    assert guard.tick(connect()) == []
    monkeypatch.undo()
    assert guard.tick() == [("firing", "app", "192.0.2.1")]


def test_of_very_many_new_combinations_each_is_seen_after_some_ticks(guard):
    learnt(guard)
    assert guard.tick(*[connect(f"p{number}") for number in range(9_000)]) == [("firing", "overflow")]
    guard.tick(), guard.tick()
    assert guard.lifecycle.firing_alerts().popitem()[1].value == 9_000


# Room


def keys(*numbers):
    return np.array(numbers, np.uint64) << np.uint64(58)


def contained(seen, count):
    return {number for number in range(count) if seen.contain(keys(number))[0]}


def test_without_room_those_that_were_seen_least_recently_are_dropped_and_counted():
    seen = SeenCombinations(max_combinations=8)
    for number in range(8):
        seen.add(keys(number), number)
    seen.mark_seen(keys(0, 1, 60), np.array([50, 51, 52], np.uint32))
    seen.add(keys(8, 9, 10), 60)
    assert contained(seen, 11) == {0, 1, 5, 6, 7, 8, 9, 10}
    assert (len(seen), seen.dropped) == (8, 3)
    seen.add(keys(*range(20, 40)), 70)
    assert (len(seen), seen.dropped) == (8, 3 + 8 + 12)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sets(st.integers(0, 63), max_size=5)),
            st.tuples(st.just("see"), st.sets(st.integers(0, 63), max_size=5)),
            st.tuples(st.just("forget"), st.integers(0, 20)),
            st.tuples(st.just("restart"), st.none()),
        ),
        max_size=30,
    )
)
def test_the_kept_combinations_are_those_of_a_dictionary(steps):
    seen, model, saved, restored = SeenCombinations(), {}, {}, set()
    seen.set_forget(0)
    late = seen.saved_seconds + 60  # than the saved time
    for number, (action, value) in enumerate(steps):
        second = 20 * number
        match action:
            case "add":
                new = sorted(value - model.keys())
                seen.add(keys(*new), second)
                model |= dict.fromkeys(new, second)
            case "see":
                seen.mark_seen(keys(*sorted(value)), np.full(len(value), second, np.uint32))
                model |= dict.fromkeys(value & model.keys(), second)
                restored -= value
            case "forget":
                since = max(second - 20 * value, 0)
                seen.forget_before(since)
                model = {key: at for key, at in model.items() if at + late * (key in restored) >= since}
                restored &= model.keys()
            case "restart":
                saved |= seen.take_changes()
                seen.mark_all_changed()
                saved |= seen.take_changes()
                seen = SeenCombinations.restore(content for content in saved.values() if content is not None)
                seen.set_forget(0)
                restored = set(model)
        assert contained(seen, 64) == model.keys()


def test_a_flood_of_names_is_bounded_and_combinations_in_use_stay_known(host, make_rule):
    guard = Guard(host, novelty_rule(make_rule, by=("process",)))
    judge = guard.engine._judges[0]
    judge.memory.seen.max_combinations = 200
    learnt(guard, connect("used"), connect("rare"))
    for block in range(30):
        names = [connect(f"p{block}-{number}") for number in range(50)]
        found = guard.tick(connect("used"), *names)
        assert ("firing", "used") not in found
    assert len(judge.memory.seen) <= 200
    assert judge.memory.seen.dropped >= 30 * 50 - 200
    assert sum(len(content) for content in guard.memories.values()) < 200 * 12 + 4_000
    assert judge.memory.seen.contain(judge._keys[judge._is_known]).all()
    [(rule, dropped)] = guard.engine.memories.take_dropped(0).items()
    assert (rule, dropped) == ("new-peer", judge.memory.dropped)
    guard.tick(*(connect(f"late{number}") for number in range(250)))
    hour_ns = 3600 * SECOND_NS
    assert guard.engine.memories.take_dropped(hour_ns - 1) == {}
    assert guard.engine.memories.take_dropped(hour_ns) == {"new-peer": judge.memory.dropped - dropped}
    assert guard.engine.memories.take_dropped(hour_ns) == {}


def test_an_inspection_of_a_known_combination_breaches_nothing(guard):
    learnt(guard, connect())
    guard.tick(connect(connects=7))
    found = guard.engine.inspect_group("new-peer", (("process", "app"), ("remote", "192.0.2.1")), [])
    assert (found.verdict.value, found.verdict.breached, found.verdict.reason) == (16, None, "no longer new")
    assert guard.engine.inspect_rule("new-peer").groups == 1
