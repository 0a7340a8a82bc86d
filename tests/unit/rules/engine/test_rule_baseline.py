"""Rules with a baseline, from rows of snapshots to verdicts and alerts: a simulated host with hours of 12 ticks."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from baseline_life import DAY, HOUR, MONDAY, STEP, Life, baseline_rule, kinds

from watchdog.alerts.alert import TransitionKind
from watchdog.rules.engine.baselines import BaselineEvent
from watchdog.rules.engine.engine import Engine
from watchdog.rules.language.rule import Severity, Thresholds


@pytest.fixture(autouse=True)
def _utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")


def test_is_silent_while_it_learns_then_fires_above_its_own_limit_and_explains_it(host, make_rule):
    life = Life(host, baseline_rule(make_rule))
    life.usual(DAY - HOUR, web=100)
    life.tick({"web": 100_000})
    assert life.transitions == []  # still learning
    life = Life(host, baseline_rule(make_rule))
    life.usual(3 * DAY + 2, web=100)
    assert life.transitions == []
    limit = life.limits("web")[Severity.WARNING]
    assert 200 <= limit < 800
    life.tick({"web": int(limit) * 3})
    [transition] = life.transitions
    assert transition.kind is TransitionKind.FIRING
    alert = transition.alert
    assert alert.threshold in life.limits("web").values()
    assert "in this hour it has lately reached" in alert.reason
    assert "at any hour" in alert.reason
    assert "expected less than once in 3 days" in alert.reason  # no more than was learnt
    assert "learnt 3 days" in alert.reason
    assert "3 days 3 days" in alert.summary


def test_each_group_has_its_own_limit(host, make_rule):
    life = Life(host, baseline_rule(make_rule))
    life.usual(2 * DAY, web=1000, cron=20)
    life.tick({"web": 700, "cron": 700})
    assert [one.alert.labels for one in life.transitions] == [(("process", "cron"),)]


def test_below_the_floor_nobody_is_notified(host, make_rule):
    life = Life(host, baseline_rule(make_rule, floor=500.0))
    life.usual(2 * DAY, web=4)
    life.tick({"web": 400})
    assert life.transitions == []
    life.tick({"web": 400})
    assert kinds(life)[0][0] is TransitionKind.FIRING


def test_a_ceiling_fires_while_the_baseline_learns(host, make_rule):
    limits = {Severity.WARNING: math.inf, Severity.CRITICAL: 5000.0}
    life = Life(host, baseline_rule(make_rule, thresholds=Thresholds(True, limits, limits)))
    life.usual(HOUR, web=100)
    life.tick({"web": 6000})
    assert kinds(life) == [(TransitionKind.FIRING, Severity.CRITICAL)]
    assert life.transitions[0].alert.reason == "value above 5,000"


def test_a_newcomer_is_judged_by_the_highest_limit_of_the_host(host, make_rule):
    life = Life(host, baseline_rule(make_rule))
    life.usual(2 * DAY + HOUR, web=1000, cron=20)
    limit = life.limits("web")[Severity.WARNING]
    life.tick({"web": 700, "tool": 900})
    assert life.transitions == []
    life.tick({"tool": int(limit) + 1000})
    assert [one.alert.labels for one in life.transitions] == [(("process", "tool"),)]
    assert "new here" in life.transitions[0].alert.reason


def test_an_attack_is_not_learnt_and_a_new_level_is_reported_once_and_adopted_after_a_day(host, make_rule):
    life = Life(host, baseline_rule(make_rule, keep_firing_for_seconds=3600))
    life.usual(4 * DAY, web=100)
    before = life.limits("web")[Severity.WARNING]
    life.usual(6 * HOUR, web=3000)
    assert life.limits("web")[Severity.WARNING] < 2 * before
    life.usual(20 * HOUR, web=3000)
    assert [kind for kind, _ in kinds(life)] == [TransitionKind.FIRING, TransitionKind.RESOLVED]
    assert life.transitions[-1].alert.reason == "new normal"
    assert life.limits("web")[Severity.WARNING] > 3000
    assert [(one.event, one.count) for one in life.engine.baselines.take_notes()][-1] == (BaselineEvent.NEW_NORMAL, 1)
    life.usual(DAY, web=3000)
    assert len(life.transitions) == 2


def test_a_held_level_is_never_adopted_and_accept_adopts_at_once(host, make_rule):
    life = Life(host, baseline_rule(make_rule))
    life.usual(4 * DAY, web=100)
    web = (("process", "web"),)
    assert life.engine.baselines.hold("busy", web) == 1
    life.usual(30 * HOUR, web=3000)
    assert life.limits("web")[Severity.WARNING] < 1000
    assert life.engine.baselines.accept("busy", web) == 1
    assert life.limits("web")[Severity.WARNING] > 3000
    assert life.engine.baselines.forget("busy", web) == 1
    assert life.engine.baselines.describe("busy", web) is None
    assert life.engine.baselines.forget("busy", None) == 0
    assert life.baseline.is_learning


def test_an_inspection_has_the_time_that_is_left_to_learn(host, make_rule):
    life = Life(host, baseline_rule(make_rule))
    left, hour_ns = [], 3600 * 10**9
    for _ in range(3):
        life.usual(12 * HOUR, web=100)
        left.append(life.engine.inspect_rule("busy").learning_ns)
    assert 11 * hour_ns <= left[0] <= 13 * hour_ns
    assert left[1] <= hour_ns
    assert left[2] == 0


def test_an_hour_with_losses_is_not_learnt(host, make_rule):
    life = Life(host, baseline_rule(make_rule))
    life.usual(2 * DAY, web=100)
    hours = life.engine.baselines.describe("busy", (("process", "web"),)).learnt_hours
    life.tick({"web": 100}, sums_full=10_000)
    life.usual(HOUR - 1, web=100)
    life.usual(HOUR, web=100)
    assert life.engine.baselines.describe("busy", (("process", "web"),)).learnt_hours == hours + 1


@pytest.mark.parametrize("step", [-7200.0, -1500.0, 1500.0, 3 * 3600.0])
def test_a_step_of_the_clock_loses_the_hours_around_it_and_no_limit(host, make_rule, step):
    life = Life(host, baseline_rule(make_rule))
    life.usual(3 * DAY, web=100)
    before = life.limits("web")[Severity.WARNING]
    life.usual(HOUR // 2, web=100)
    life.tick({"web": 90}, wall_step=step)
    life.usual(3 * HOUR, web=100)
    assert life.limits("web")[Severity.WARNING] == pytest.approx(before, rel=0.5)
    assert life.transitions == []
    life.tick({"web": 5000})
    assert kinds(life)[0][0] is TransitionKind.FIRING


def test_an_idle_group_keeps_its_baseline_and_returns_to_it(host, make_rule):
    life = Life(host, baseline_rule(make_rule))
    life.usual(2 * DAY, web=100, job=40)
    life.usual(DAY, web=100)
    life.tick({"web": 100, "job": 40})
    assert life.engine.baselines.describe("busy", (("process", "job"),)).learnt_hours >= 3 * 24 - 1
    life.tick({"web": 100, "job": 4000})
    assert [one.alert.labels for one in life.transitions] == [(("process", "job"),)]


def test_fires_below_the_usual_where_the_usual_is_worth_it(host, make_rule):
    life = Life(host, baseline_rule(make_rule, above=False, floor=50.0))
    for _ in range(3 * DAY):
        levels = {"web": int(life.random.integers(900, 1000)), "cron": int(life.random.integers(1, 5))}
        life.tick(levels)
    assert life.transitions == []
    assert 500 < life.limits("web")[Severity.WARNING] < 1900
    life.tick({"web": 1, "cron": 0})
    life.tick({"web": 1, "cron": 0})
    assert {one.alert.labels for one in life.transitions} == {(("process", "web"),)}
    assert "fallen to" in life.transitions[0].alert.reason


def test_changes_by_people_in_many_ticks_wait_once_to_be_saved(host, make_rule):
    life = Life(host, baseline_rule(make_rule))
    life.usual(DAY, web=1000)
    baselines = life.engine.baselines
    baselines.mark_all_due()
    while baselines.take_part_to_save() is not None:
        pass
    for second in range(5):
        baselines.accept("busy", None)
        baselines.end_hours(second, second, ())
    assert baselines.take_part_to_save().rule == "busy"
    assert baselines.take_part_to_save() is None


def test_a_restart_keeps_every_limit_bit_by_bit(host, make_rule):
    rule = baseline_rule(make_rule)
    life = Life(host, rule)
    life.usual(3 * DAY, web=1000, cron=20, db=300)
    baselines = life.engine.baselines
    saved = list(baselines.all_parts())
    again = Engine([rule])
    again.restore_baselines(baselines.secret, saved)
    for process in ("web", "cron", "db"):
        labels = (("process", process),)
        assert again.baselines.describe("busy", labels) == baselines.describe("busy", labels)
    assert np.array_equal(again.baselines.of("busy").columns.limit[:3], life.baseline.columns.limit[:3])
    life = Life(host, rule, again)
    life.wall = MONDAY + 3 * 86400 + STEP
    life.tick({"web": 500})
    life.tick({"web": 500, "cron": 600})
    assert [one.alert.labels for one in life.transitions] == [(("process", "cron"),)]


def test_a_changed_definition_starts_anew_and_another_rarity_does_not(host, make_rule):
    rule = baseline_rule(make_rule)
    life = Life(host, rule)
    life.usual(2 * DAY, web=100)
    before = life.limits("web")[Severity.WARNING]
    life.engine.baselines.take_notes()
    rarer = replace(rule, baseline=replace(rule.baseline, rarity_hours={Severity.WARNING: 2400.0}))
    life.engine.replace_rules([rarer])
    assert life.limits("web")[Severity.WARNING] > before
    assert life.engine.baselines.take_notes() == []
    life.engine.replace_rules([replace(rule, baseline=replace(rule.baseline, floor=20.0))])
    assert [one.event for one in life.engine.baselines.take_notes()] == [BaselineEvent.STARTED_ANEW]
    assert life.engine.baselines.describe("busy", (("process", "web"),)) is None


def test_groups_are_bounded_and_the_least_known_go_first(host, make_rule):
    life = Life(host, baseline_rule(make_rule))
    life.baseline.max_rows = 40
    life.usual(6 * HOUR, web=100, db=100)
    for hour in range(6):
        for tick in range(HOUR):
            life.tick({"web": 50, "db": 60} | {f"x{hour}-{tick}-{number}": 5 for number in range(10)})
    assert len(life.baseline.groups) <= 40
    assert life.baseline.dropped > 0
    for process in ("web", "db"):
        assert life.engine.baselines.describe("busy", (("process", process),)).learnt_hours >= 10


def test_a_group_finds_its_baseline_again_when_others_took_its_slot(host, make_rule):
    life = Life(host, baseline_rule(make_rule))
    life.usual(2 * DAY, web=100, job=40)
    job = (("process", "job"),)
    slot = life.baseline.groups.slots[life.baseline.row_of_labels(job)]
    for number in range(60):
        life.tick({"web": 80} | {f"x{number}-{name}": 1 for name in range(10)})
    row = life.baseline.row_of_labels(job)
    assert slot not in life.baseline.groups.slots[[row]]  # another group has it
    life.tick({"web": 80, "job": 30})
    assert life.engine.baselines.describe("busy", job).learnt_hours >= 48
    life.tick({"web": 80, "job": 3000})
    assert {one.alert.labels for one in life.transitions} == {job}


def test_many_groups_at_once_are_instances_and_one_overflow_alert(host, make_rule):
    life = Life(host, baseline_rule(make_rule))
    life.usual(2 * DAY + HOUR, web=100)
    life.tick({"web": 80} | {f"x{number}": 50_000 + number for number in range(40)})
    assert len(life.transitions) == 21
    overflow = life.transitions[-1].alert
    assert overflow.summary == "20 more instances of busy fire"
    assert overflow.reason == "value above the usual"
    assert overflow.limit.text == "learnt for each group"
    for transition in life.transitions:
        assert type(overflow).from_json(json.loads(json.dumps(transition.alert.to_json()))) == transition.alert
    saved = dict(life.lifecycle.take_changes()).values()
    assert all(json.dumps(document, allow_nan=False) for document in saved)
    for _ in range(3):
        life.tick({"web": 80})
    assert {one.kind for one in life.transitions[21:]} == {TransitionKind.RESOLVED}
