"""`distinct:<dimension>` and `count`: different values in a window, exact or a lower bound."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.clock import SECOND_NS
from watchdog.rules.engine.distinct import DistinctValues
from watchdog.rules.engine.engine import Engine
from watchdog.rules.engine.groups import GroupSlots
from watchdog.rules.engine.selection import Selection
from watchdog.rules.engine.view import View, group_snapshot
from watchdog.rules.language.rule import Condition, Severity

WARNING = Severity.WARNING


def connect(process="scanner", port=80, remote="192.0.2.1", **values):
    return {"process": process, "remote_port": port, "remote": remote, "direction": "out", "connects": 1, **values}


def numbers(verdicts):
    return {verdict.labels[0][1]: verdict.value for verdict in verdicts}


@pytest.fixture
def ports(host, make_rule):
    """Return a function from ticks of rows to {process: ports} of the newest tick."""
    engine = Engine([make_rule(stat="distinct:remote_port", above=0, window_seconds=3)])
    engine.evaluate(host.baseline(), [])
    return lambda *rows, **options: numbers(engine.evaluate(host.tick(*rows, **options), []))


def test_each_value_counts_once_while_it_is_in_the_window(ports):
    assert ports(connect(port=1), connect(port=1), connect(port=2)) == {"scanner": 2}
    assert ports(connect(port=3)) == {"scanner": 3}
    assert ports(connect(port=1)) == {"scanner": 3}
    assert ports() == {"scanner": 2}
    assert ports() == {"scanner": 1}
    assert ports() == {}


def test_rows_without_something_of_the_metric_do_not_count(ports):
    assert ports(connect(port=1, connects=0), connect(port=2)) == {"scanner": 1}


def test_groups_do_not_share_values(ports):
    assert ports(connect("a", 1), connect("a", 2), connect("b", 1)) == {"a": 2, "b": 1}


def test_values_count_by_where_metric_and_dimension(host, make_rule):
    inside = Condition("remote", any_of=("10.0.0.0/8",))
    rules = [
        make_rule("peers", stat="distinct:remote", above=0, where=[inside]),
        make_rule("latencies", metric="rtt", stat="distinct:remote", above=0),
        make_rule("sockets", metric="open", stat="distinct:local_port", above=0),
        make_rule("processes", stat="distinct:process", above=0, by=["user"]),
    ]
    engine = Engine(rules)
    engine.evaluate(host.baseline(), [])
    rows = [connect(remote=f"10.0.0.{host_}", rtt=0.1 if host_ < 4 else float("nan")) for host_ in range(6)]
    rows += [connect("other", user="www", remote="192.0.2.1", open=1, local_port=port) for port in (1, 1, 2)]
    found = {(one.rule.id, one.labels[0][1]): one.value for one in engine.evaluate(host.tick(*rows), [])}
    assert found == {
        ("peers", "scanner"): 6,
        ("latencies", "scanner"): 4,
        ("sockets", "other"): 2,
        ("processes", ""): 1,
        ("processes", "www"): 1,
    }


def test_the_count_of_a_distribution_is_the_number_of_its_values(host, make_rule):
    engine = Engine([make_rule(metric="rtt", stat="count", above=2, window_seconds=2)])
    engine.evaluate(host.baseline(), [])
    row = {"process": "a", "rtt": 0.1}
    seen = [numbers(engine.evaluate(host.tick(*[row] * count), [])) for count in (2, 1, 1, 3, 0, 0)]
    assert seen == [{}, {"a": 3}, {}, {"a": 4}, {"a": 3}, {}]


def test_a_count_below_a_level_fires_where_nothing_is_measured(host, make_rule):
    engine = Engine([make_rule(metric="rtt", stat="count", above=None, below=2, window_seconds=2)])
    engine.evaluate(host.baseline(), [])
    row = {"process": "a", "rtt": 0.1}
    assert [numbers(engine.evaluate(host.tick(*rows), [])) for rows in ([row] * 2, [row] * 2, [], [])] == [
        {},
        {},
        {},
        {"a": 0},
    ]


@pytest.mark.parametrize(("stat", "metric"), [("distinct:remote_port", "connects"), ("count", "rtt")])
def test_the_history_has_the_number_of_each_tick_alone(host, make_rule, stat, metric):
    engine = Engine([make_rule(metric=metric, stat=stat, above=0)])
    engine.evaluate(host.baseline(), [])
    for rows in ([1, 2, 2], [], [3]):
        snapshot = host.tick(*[connect(port=port, rtt=0.1) for port in rows])
        engine.evaluate(snapshot, [])
    _, contributors = engine.find_contributors(snapshot, "storm", (("process", "scanner"),))
    assert contributors.history == ((2, 0, 1) if stat != "count" else (3, 0, 1))


# Bounds


def run(host, make_rule, active=(), **options):
    rule = make_rule(stat="distinct:remote_port", window_seconds=3, **options)
    engine, keys = Engine([rule]), [(rule.id, (("process", name),)) for name in active]
    engine.evaluate(host.baseline(), keys)
    return engine, lambda *rows, **quality: engine.evaluate(host.tick(*rows, **quality), keys)


def test_lost_connections_make_the_number_a_lower_bound(host, make_rule):
    engine, tick = run(host, make_rule, above=3)
    (verdict,) = tick(*[connect(port=port) for port in range(4)], missed_events=2)
    assert (verdict.value, verdict.breached, verdict.is_lower_bound) == (4, WARNING, True)
    assert not engine.unknown_rules


def test_a_lost_port_may_be_a_new_one(host, make_rule):
    engine, tick = run(host, make_rule, active=["scanner"], above=3)
    tick(), tick(), tick()
    (verdict,) = tick(*[connect(port=port) for port in range(3)], connect(port=None, connects=2))
    assert (verdict.value, verdict.complete, verdict.breached) == (3, False, None)
    assert engine.unknown_rules == ("storm",)


def test_what_exceeds_the_bound_of_a_group_or_of_all_is_missing_from_it_alone(host):
    groups = GroupSlots(["process"])
    view = View(groups, ())
    values = DistinctValues(view, "connects", "remote_port", max_values=10, max_pairs=256)
    values.keep_for(3 * SECOND_NS)

    def tick(*rows):
        snapshot, selection = host.tick(*rows), Selection()
        view.load(group_snapshot(groups, snapshot, 10 * SECOND_NS, selection), selection)
        values.add_newest_tick()
        slots = {name: groups.slot((("process", name),), snapshot) for name in ("a", "b", "z")}
        counts = values.counts(3 * SECOND_NS)
        missing = dict(zip(values.missing.slots.tolist(), values.missing.amounts.tolist(), strict=True))
        return {name: (counts[slot], missing.get(slot, 0)) for name, slot in slots.items() if slot}

    assert tick(*[connect("a", port) for port in range(14)], connect("b", 1)) == {"a": (10, 4), "b": (1, 0)}
    assert tick(connect("a", 3), connect("a", 99), connect("b", 2)) == {"a": (10, 1), "b": (2, 0)}
    crowd = [connect(f"p{number // 10}", number % 10) for number in range(400)]
    counted = tick(*crowd, connect("z", 1), connect("z", 2))["z"]
    assert sum(counted) == 2
    assert values.counts(3 * SECOND_NS).sum() <= 256
    tick(), tick(), tick(), tick(), tick()
    assert tick(*[connect("z", port) for port in range(9)])["z"] == (9, 0)


EVENTS = st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.integers(0, 1))


@settings(max_examples=60, deadline=None)
@given(
    ticks=st.lists(st.tuples(st.sampled_from([1, 1, 2, 5]), st.lists(EVENTS, max_size=6)), max_size=25),
    windows=st.lists(st.integers(2, 8), min_size=1, max_size=3, unique=True),
    reload_at=st.integers(0, 24),
)
def test_numbers_are_those_of_sets_also_over_a_reload(make_host, make_rule, ticks, windows, reload_at):
    host, seen = make_host(), defaultdict(dict)
    rules = [
        make_rule(f"w{seconds}", stat="distinct:remote_port", above=0, window_seconds=seconds) for seconds in windows
    ]
    engine = Engine(rules)
    engine.evaluate(host.baseline(), [])
    for index, (seconds, events) in enumerate(ticks):
        if index == reload_at:
            engine.replace_rules(reversed(rules))
        rows = [connect(process, port, connects=connects) for process, port, connects in events]
        verdicts = engine.evaluate(host.tick(*rows, seconds=seconds), [])
        for process, port, connects in events:
            if connects:
                seen[process][port] = host.at_ns
        right = {
            (rule.id, process): sum(at_ns > host.at_ns - rule.window_ns for at_ns in ports.values())
            for rule in rules
            for process, ports in seen.items()
        }
        assert {(one.rule.id, one.labels[0][1]): one.value for one in verdicts} == {
            key: number for key, number in right.items() if number
        }


def test_an_inspection_shows_the_number_of_the_window_and_of_the_newest_tick(host, make_rule):
    engine = Engine([make_rule(stat="distinct:remote_port", above=5)])
    engine.evaluate(host.baseline(), [])
    engine.evaluate(host.tick(connect(port=1), connect(port=2), connect("other", 9)), [])
    engine.evaluate(host.tick(connect(port=3)), [])
    rule = engine.inspect_rule("storm")
    assert (rule.groups, rule.worst, rule.share) == (2, ((("process", "scanner"),), 3), 3 / 5)
    [reading] = engine.inspect_group("storm", (("process", "scanner"),), []).metrics
    assert (reading.metric, reading.statistic, reading.window, reading.newest) == (
        "connects",
        "distinct remote_port",
        3,
        1,
    )
