"""Promises of docs/anomalies.md in uncommon lives: rules of the host, floods of names, changes by hand, summer time."""

from __future__ import annotations

import datetime as dt
import math
import time
from dataclasses import replace

import pytest
from baseline_life import DAY, HOUR, STEP, Life, baseline_rule, kinds

from factories import make_stat
from watchdog.alerts.alert import TransitionKind
from watchdog.clock import local_seconds
from watchdog.rules.engine import rule_baseline
from watchdog.rules.language.rule import Season, Severity, Thresholds

WEB = (("process", "web"),)


@pytest.fixture(autouse=True)
def _utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("above", [True, False])
def test_a_host_without_any_connection_learns_that_it_has_none(host, make_rule, above):
    life = Life(host, baseline_rule(make_rule, by=(), above=above))
    life.usual(2 * DAY)
    assert life.engine.baselines.describe("busy", ()).learnt_hours >= 46
    life.tick({"web": 5000})
    assert [kind for kind, _ in kinds(life)] == ([TransitionKind.FIRING] if above else [])


def working_days(life, days):
    for _ in range(days):
        life.usual(8 * HOUR, web=20)
        life.usual(8 * HOUR, web=2000)
        life.usual(8 * HOUR, web=20)


@pytest.mark.parametrize("season", [Season.DAY, Season.NONE])
@pytest.mark.parametrize("value", [900, 30_000])
def test_an_accepted_level_ends_its_alert_also_where_it_is_unusual_for_its_hour_alone(host, make_rule, season, value):
    life = Life(host, baseline_rule(make_rule, season=season))
    working_days(life, 3)
    life.usual(4 * HOUR, web=20)
    life.tick({"web": value})
    life.tick({"web": value})
    fires = season is Season.DAY or value > 2000
    assert len(life.transitions) == fires
    assert life.engine.baselines.accept("busy", WEB) == 1
    life.tick({"web": value})
    assert [one.alert.reason for one in life.transitions[1:]] == ["new normal"] * fires
    assert life.limits("web")[Severity.WARNING] >= 2 * value


def test_accept_does_not_end_a_hold(host, make_rule):
    life = Life(host, baseline_rule(make_rule))
    life.usual(3 * DAY, web=100)
    life.engine.baselines.hold("busy", WEB)
    life.usual(2 * HOUR, web=1000)
    life.engine.baselines.accept("busy", WEB)
    assert life.engine.baselines.describe("busy", WEB).is_held
    life.usual(26 * HOUR, web=50_000)
    assert life.limits("web")[Severity.WARNING] < 50_000


def test_a_ceiling_below_the_usual_fires_with_its_own_reason(host, make_rule):
    limits = {Severity.WARNING: math.inf, Severity.CRITICAL: 5000.0}
    life = Life(host, baseline_rule(make_rule, thresholds=Thresholds(True, limits, limits)))
    life.usual(2 * DAY, web=200)
    life.tick({"web": 9000})
    assert "expected less than once in " in life.transitions[0].alert.reason
    life = Life(host, baseline_rule(make_rule, thresholds=Thresholds(True, limits, limits)))
    life.usual(2 * DAY, web=10_000)
    for count in (0, 0, 4000, 4000):
        life.tick({"web": count})
    [alert] = [one.alert for one in life.transitions if one.kind is TransitionKind.FIRING][-1:]
    assert (alert.reason, alert.threshold_text) == ("value above 5,000", "5,000")


def test_records_that_have_ended_are_no_new_level(host, make_rule):
    life = Life(host, baseline_rule(make_rule))
    life.usual(3 * DAY, web=100)
    hours = []
    for level in (3000, 3000, 3000, 100, 100, 3000, 100, 100, 100, 100, 100, 3000):
        life.usual(HOUR, web=level)
        hours.append(life.engine.baselines.describe("busy", WEB).record_hours)
    assert hours == [1, 2, 3, 4, 4, 5, 6, 6, 6, 0, 0, 1]  # the sum of two ticks reaches into the next hour


@pytest.mark.parametrize("stat", ["count", "distinct:process"])
def test_groups_without_a_value_take_no_row_and_are_forgotten_where_values_are_counted(host, make_rule, stat):
    rule = baseline_rule(make_rule, metric="connect_latency")
    life = Life(host, replace(rule, stat=make_stat(stat)))

    def tick(**latencies):
        life.wall += STEP
        rows = [{"process": name, "open": 1, "connect_latency": latency} for name, latency in latencies.items()]
        life.engine.evaluate(replace(life.host.tick(*rows, seconds=STEP), wall=life.wall), [])

    for _ in range(HOUR):
        tick(web=0.1, idle=math.nan)
    assert len(life.baseline.groups) == 1
    for _ in range(DAY + HOUR):
        tick(idle=math.nan)
    assert life.baseline.groups.unseen_days.tolist() == [1]


def learn_hourly_job(host, make_rule):
    """Return a life with a job that has connections once in an hour, so that others take its slot between."""
    life = Life(host, baseline_rule(make_rule))
    for _ in range(30):
        life.tick({"web": 1000, "job": 40})
        life.usual(HOUR - 1, web=1000)
    return life


def flood(life, ticks, names):
    for tick in range(ticks):
        life.tick({"web": 1000} | {f"x{tick}-{name}": 15 for name in range(names)})


@pytest.mark.parametrize("bound", ["rows of an hour", "rows of the rule"])
def test_a_group_that_returns_in_a_flood_of_names_has_its_own_limit(host, make_rule, monkeypatch, bound):
    life = learn_hourly_job(host, make_rule)
    if bound == "rows of an hour":
        monkeypatch.setattr(rule_baseline, "_MAX_NEW_ROWS", 20)
    else:
        life.baseline.max_rows = 30
    job = (("process", "job"),)
    slot = life.baseline.groups.slots[life.baseline.row_of_labels(job)]
    flood(life, 9, 60)
    assert slot not in life.baseline.groups.slots[[life.baseline.row_of_labels(job)]]
    assert len(life.baseline.groups) <= 30
    life.tick({"web": 1000, "job": 500})
    assert [one.alert.labels for one in life.transitions] == [job]


def test_a_group_without_room_gets_a_row_when_the_hour_has_ended(host, make_rule, monkeypatch):
    life = learn_hourly_job(host, make_rule)
    monkeypatch.setattr(rule_baseline, "_MAX_NEW_ROWS", 5)
    late = {f"x{number}": 15 for number in range(5)}
    life.tick({"web": 1000} | late)
    for _ in range(2 * HOUR):
        life.tick({"web": 1000, "late": 30})
    assert life.engine.baselines.describe("busy", (("process", "late"),)) is not None


@pytest.mark.parametrize(
    ("zone", "day"),
    [("Europe/Berlin", "2025-03-27"), ("America/St_Johns", "2025-10-30"), ("Australia/Lord_Howe", "2025-04-02")],
)
def test_summer_time_begins_and_ends_without_an_alert(host, make_rule, monkeypatch, zone, day):
    monkeypatch.setenv("TZ", zone)
    life = Life(host, baseline_rule(make_rule))
    life.wall = dt.datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp()
    offsets = set()
    for _ in range(6 * DAY):
        local = local_seconds(life.wall + STEP)
        offsets.add(local - life.wall)
        level = 2000 if 8 <= local // 3600 % 24 < 18 else 20
        life.tick({"web": int(life.random.integers(level // 2, level + 1))})
    assert len(offsets) == 2
    assert life.transitions == []
    life.tick({"web": 20_000})
    assert kinds(life)[0][0] is TransitionKind.FIRING
