"""The worst groups have instances: by excess and by volume, not by age."""

from __future__ import annotations

import numpy as np
import pytest

from watchdog.rules.engine.engine import OVERFLOW_LABELS, Engine
from watchdog.rules.engine.instance_choice import choose_instances, weigh
from watchdog.rules.language.expression import parse_expression

FAILED = parse_expression("connect_failures / closes")


def slots(*numbers):
    return np.array(numbers, np.int32)


def choose(weights, active=(), active_count=None):
    """Return shown and left out slots, and the displaced active slots; `weights` by slot."""
    firing = slots(*weights)
    choice = choose_instances(firing, np.array([*weights.values()], float), slots(*active), active_count or len(active))
    displaced = [active[index] for index in choice.displaced.tolist()]
    return choice.shown.tolist(), choice.left_out.tolist(), displaced


def test_the_heaviest_twenty_are_shown_and_the_others_left_out_in_order():
    shown, left_out, displaced = choose({slot: float(slot % 50) for slot in range(100, 150)})
    assert (shown, left_out, displaced) == (list(range(149, 129, -1)), list(range(129, 99, -1)), [])


def test_a_heavier_group_displaces_the_lightest_of_forty_active_ones():
    active = tuple(range(100, 140))
    weights = {slot: 10.0 + slot for slot in active} | {200: 900.0, 201: 5.0}
    assert choose(weights, active) == ([200], [100, 201], [100])


def test_a_group_of_similar_weight_displaces_none():
    active = tuple(range(100, 140))
    weights = dict.fromkeys(active, 10.0) | {200: 19.0}
    assert choose(weights, active) == ([], [200], [])


def test_an_active_one_that_does_not_fire_any_more_gives_way_first():
    active = tuple(range(100, 140))
    weights = dict.fromkeys(active[1:], 10.0) | {200: 30.0}
    assert choose(weights, active) == ([200], [], [100])


def test_the_overflow_has_a_place_among_the_active_ones():
    active = tuple(range(100, 139))
    assert choose(dict.fromkeys(active, 10.0) | {200: 11.0}, active, active_count=40) == ([], [200], [])


@pytest.mark.parametrize(
    ("values", "volumes", "expected"),
    [([120, 600], None, [20, 500]), ([1.0, 0.6], [10, 6000], [0.8 * 10, 0.4 * 6000]), ([np.nan, 2], None, [0, 1])],
)
def test_ratios_are_weighed_by_their_volume(values, volumes, expected):
    limit = {120: 100, 1.0: 0.2}.get(values[0], 1)
    found = weigh(
        np.array(values, float), np.full(2, limit, float), None if volumes is None else np.array(volumes, float)
    )
    assert found.tolist() == pytest.approx(expected)


def ends(process, failures, closes, **row):
    return {"process": process, "connect_failures": failures, "closes": closes, **row}


def names(verdicts):
    return [verdict.labels[0][1] for verdict in verdicts if verdict.labels != OVERFLOW_LABELS]


def test_decoys_at_100_percent_do_not_stand_before_a_large_group(host, make_rule):
    engine = Engine([make_rule(metric=FAILED, above=0.2)])
    decoys = [ends(f"decoy{number}", 10, 10) for number in range(60)]
    verdicts = engine.evaluate(host.tick(*decoys, ends("large", 6_000, 10_000), ends("equal", 10_000, 10_000)), [])
    assert names(verdicts)[:2] == ["equal", "large"]


def test_percentiles_are_weighed_by_the_number_of_values(host, make_rule):
    engine = Engine([make_rule(metric="connect_latency", stat="p50", above=0.1)])
    few = [{"process": f"few{number}", "connect_latency": 1.0} for number in range(30)]
    verdicts = engine.evaluate(host.tick(*few, *[{"process": "many", "connect_latency": 0.9}] * 50), [])
    assert names(verdicts)[0] == "many"


def test_a_later_large_group_takes_the_place_of_an_early_small_one(host, make_rule):
    engine = Engine([make_rule(metric=FAILED, above=0.2)])
    decoys = [ends(f"decoy{number}", 10, 10) for number in range(60)]
    active = [("storm", (("process", f"decoy{number}"),)) for number in range(40)]
    verdicts = engine.evaluate(host.tick(*decoys, ends("large", 6_000, 10_000)), active)
    assert names(verdicts)[0] == "large"
    assert len([one for one in verdicts if one.is_displaced]) == 1
    assert (verdicts[-1].labels, verdicts[-1].value) == (OVERFLOW_LABELS, 21)


def test_the_overflow_has_the_largest_groups_with_user_and_pid_and_their_number_by_user(host, make_rule):
    engine = Engine([make_rule(stat="sum", above=10)])
    rows = [
        {"process": f"p{number}", "connects": 100 + number, "user": f"u{number % 3}", "pid": 1000 + number}
        for number in range(50)
    ]
    snapshot = host.tick(*rows, {"process": "quiet", "connects": 3, "user": "x", "pid": 99})
    engine.evaluate(snapshot, [])
    _, found = engine.find_contributors(snapshot, "storm", OVERFLOW_LABELS)
    assert [(one.labels, one.amount, one.user, one.pid) for one in found.left_out.largest[:2]] == [
        ((("process", "p29"),), 129, "u2", 1029),
        ((("process", "p28"),), 128, "u1", 1028),
    ]
    assert (dict(found.left_out.by_user), found.left_out.user_count) == ({"u0": 10, "u1": 10, "u2": 10}, 3)
    assert (found.amount, found.process_count, found.name_count) == (sum(range(100, 130)), 30, 30)


def test_each_group_left_out_is_named_once_the_worst_first_and_within_a_limit(host, make_rule):
    engine = Engine([make_rule(stat="sum", above=10)])

    def tick(*heavy):
        rows = [{"process": f"p{number}", "connects": 100 + number} for number in range(50)]
        snapshot = host.tick(*rows, *({"process": name, "connects": 9} for name in heavy))
        engine.evaluate(snapshot, [])
        return {
            rule: [dict(labels)["process"] for labels in groups] for rule, groups in engine.take_left_out(snapshot, 25)
        }

    assert tick() == {"storm": [f"p{number}" for number in range(29, 4, -1)]}
    assert tick() == {"storm": [f"p{number}" for number in range(4, -1, -1)]}
    assert tick("new") == {}
    assert tick("new") == {"storm": ["new"]}
