"""The columns of baselines against a slow, plain reference: one group at a time, one number after the other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from baseline_reference import F, Group
from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.rules.engine.baseline_columns import INCOMPLETE, BaselineColumns
from watchdog.rules.language.rule import Season


def same(columns, groups, slot):
    limits = np.stack(columns.limits(slice(0, len(groups)), slot))
    expected = np.array([group.limits_of(slot)[1] for group in groups], F).T
    assert limits.dtype == np.float32
    assert np.array_equal(limits, expected)
    assert columns.all_hours[: len(groups)].tolist() == [group.all_hours for group in groups]


@pytest.mark.parametrize(
    ("season", "above", "days"), [("day", True, 12), ("day", False, 8), ("week", True, 22), ("none", True, 8)]
)
def test_limits_are_those_of_the_reference_bit_by_bit(season, above, days):
    random, count = np.random.default_rng(days), 8
    sign = 1 if above else -1
    columns = BaselineColumns(10.0, (720.0, 8760.0), Season(season), 24, above=above)
    columns.add(count)
    groups = [Group(10.0, (720.0, 8760.0), season, 24, above) for _ in range(count)]
    levels = np.exp(random.uniform(0, 8, count))
    adopted, expected_adopted = 0, 0
    for hour in range(days * 24):
        day_factor = 1 + 3 * (8 <= hour % 24 < 18)
        for _ in range(3):
            amounts = sign * random.poisson(levels * day_factor).astype(F)
            amounts[0] *= hour % 50 == 49  # rarely more than 0
            amounts[1] *= 30 if hour > 100 else 1  # a new normal
            amounts[2] *= 20 if 120 <= hour < 130 else 1  # an attack
            amounts[3] = np.nan if hour % 7 == 3 else amounts[3]
            fires = columns.tick(amounts)
            for group, amount, fire in zip(groups, amounts, fires, strict=True):
                assert fire == (amount > group.limits[0])
                group.highest = np.fmax(group.highest, amount)
        if hour % 11 == 5:
            columns.highest[4] = groups[4].highest = INCOMPLETE
        runs = [group.run for group in groups]
        ended = columns.end_hour()
        for start in range(0, count, 3):  # in parts, as over a minute
            rows = slice(start, min(start + 3, count))
            adopted += int(columns.close(rows, ended[rows], hour).sum())
            columns.set_limits(rows, hour + 1)
        for group, run in zip(groups, runs, strict=True):
            group.close(hour)
            expected_adopted += run == 23 and group.run == 0
            group.set_limits(hour + 1)
        same(columns, groups, hour + 1)
    assert adopted == expected_adopted
    assert adopted >= (season == "day" and above)


amount_lists = st.lists(
    st.one_of(st.floats(0, 1e6, width=32), st.sampled_from([0.0, float("nan"), float("inf")])), min_size=3, max_size=3
)


@settings(max_examples=40, deadline=None)
@given(st.lists(amount_lists, min_size=30, max_size=90), st.integers(1, 48), st.integers(0, 3))
def test_any_life_has_the_limits_of_the_reference(hours, learn, jump):
    columns = BaselineColumns(3.0, (48.0,), Season.DAY, learn)
    columns.add(3)
    groups = [Group(3.0, (48.0,), "day", learn, True) for _ in range(3)]
    number = 0
    for amounts in hours:
        columns.tick(np.array(amounts, F))
        columns.close(slice(0, 3), columns.end_hour(), number)
        for group, amount in zip(groups, amounts, strict=True):
            group.highest = np.fmax(group.highest, F(amount))
            group.close(number)
        number += 1 + (jump if number % 5 == 0 else 0)
        columns.set_limits(slice(0, 3), number)
        for group in groups:
            group.set_limits(number)
        same(columns, groups, number)


def test_new_and_dropped_groups_leave_the_others_as_they_are():
    random = np.random.default_rng(3)
    columns, alone = (BaselineColumns(1.0, (720.0,)) for _ in range(2))
    columns.add(2)
    alone.add(1)
    for hour in range(120):
        if hour == 60:
            columns.add(200)
        if hour == 90:
            columns.keep(np.array([1, 5, 9]))
        level = F(random.integers(0, 100))
        amounts = np.full(columns.count, F(hour))
        amounts[0 if hour >= 90 else 1] = level
        for one, values in ((columns, amounts), (alone, np.array([level]))):
            one.tick(values)
            one.close(slice(0, one.count), one.end_hour(), hour)
            one.set_limits(slice(0, one.count), hour + 1)
    assert columns.limit[0] == alone.limit[0]
    assert np.isfinite(columns.limit[:3]).all()
    assert columns.count == 3


def test_a_group_takes_at_most_110_bytes_here():
    columns = BaselineColumns(1.0, (720.0, 8760.0))
    columns.add(1000)
    columns.keep(np.arange(1000))
    size = sum(getattr(owner, name).nbytes for owner, name in columns.columns()) + columns.limit.nbytes
    assert size <= 110_000


@pytest.mark.parametrize("rarity", [24.0, 48.0, 168.0])
@pytest.mark.parametrize("spread", [0.1, 0.7])
def test_a_steady_group_keeps_the_promise_of_any_rarity(rarity, spread):
    random, count, days = np.random.default_rng(int(rarity)), 100, 30
    columns = BaselineColumns(10.0, [rarity])
    columns.add(count)
    fired = 0
    for hour in range(days * 24):
        columns.set_limits(slice(0, count), hour)
        highest = 100 * np.exp(random.normal(0, spread, (12, count))).max(axis=0).astype(np.float32)
        fired += columns.tick(highest).sum() * (hour >= 20 * 24)
        columns.close(slice(0, count), columns.end_hour(), hour)
    assert fired / count / 10 <= 2 * 24 / rarity


def test_a_season_of_a_week_tells_weekdays_from_sundays():
    limits = {}
    for season in (Season.DAY, Season.WEEK):
        columns = BaselineColumns(10.0, (720.0,), season)
        columns.add(1)
        random = np.random.default_rng(1)
        for hour in itertools.count():
            sunday = hour // 24 % 7 == 6
            columns.tick(np.array([random.poisson(2000 if sunday else 100)], F))
            columns.close(slice(0, 1), columns.end_hour(), hour)
            columns.set_limits(slice(0, 1), hour + 1)
            if hour == 24 * 7 * 5 + 24 * 2 + 11:  # a Wednesday
                break
        limits[season] = columns.limit[0]
    assert limits[Season.WEEK] < limits[Season.DAY]
