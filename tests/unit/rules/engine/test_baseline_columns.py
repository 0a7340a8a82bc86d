"""The columns of baselines against a slow, plain reference: one group at a time, one number after the other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.rules.engine.baseline_columns import INCOMPLETE, NO_AMOUNT, BaselineColumns
from watchdog.rules.language.rule import Season

F = np.float32
SLOTS = {"day": 24, "week": 168, "none": 0}
DECAY = {"day": F(0.1), "week": F(0.3)}


def vector(function, *values):
    """Return the result of a ufunc for single numbers, computed as for arrays."""
    return function(*(np.array([value], F) for value in values))[0]


class Tail:
    def __init__(self):
        self.hours = self.above = self.excess = self.gap = F(0)
        self.seen = 0

    def learn(self, excess, weight, is_calm):
        if weight > 0:
            forget = F(2 ** (-1 / 672))
            above = weight if excess > 0 else F(0)
            self.hours = self.hours * forget + weight
            self.above = self.above * forget + above
            self.excess = self.excess * forget + above * max(excess, F(0))
        if is_calm:
            self.seen = min(self.seen + 1, 255)
            step = max(F(1 / 168), F(1) / F(self.seen))
            self.gap = self.gap + (max(-excess, F(0)) - self.gap) * step

    def margin(self, rate):
        prior = min(max(F(1.2) * self.gap, F(0.06)), F(0.3)) if self.seen >= 12 else F(0.3)
        shape, scale = F(2) + self.above, F(2) * prior + self.excess
        p = (F(1) + self.above) / (F(48) + self.hours)
        return scale * (vector(np.power, max(p / rate, F(1)), F(1) / shape) - F(1))


class Group:
    """The baseline of one group, as the documentation has it."""

    def __init__(self, floor, rarity, season, learn, above):
        self.floor, self.c, self.rarity, self.learn, self.is_above = F(floor), F(floor / 2), rarity, learn, above
        self.slots, self.decay = [0] * SLOTS[season], DECAY.get(season, F(0))
        self.all_hours, self.age, self.run, self.quiet, self.shift = 0, 0, 0, 0, F(0)
        self.tails, self.highest, self.limits = (Tail(), Tail()), NO_AMOUNT, [F(np.inf)] * len(rarity)

    def y(self, amount):
        return np.copysign(vector(np.log1p, abs(amount) / self.c), amount)

    def amount(self, y):
        if self.age < self.learn or np.isinf(y):
            return F(np.inf)
        return np.copysign(self.c * vector(np.expm1, min(abs(y), F(60))), y)

    @staticmethod
    def decoded(code):
        return (F(code) - F(32768)) / F(1024)

    def arms(self, slot):
        n = len(self.slots)
        near = max(self.slots[(slot + step) % n] for step in (-1, 0, 1)) if n else 0
        uses = [self.age > 0, self.age >= 2 * n and near > 0]
        if not self.is_above:
            top = int(32768 - np.log1p(2.0) * 1024)
            uses = [uses[0] and self.all_hours <= top, uses[1] and near <= top]
        return list(zip(self.tails, (self.all_hours, near), uses, strict=True))

    def set_limits(self, slot):
        self.record_limit, self.limits = self.limits_of(slot)

    def limits_of(self, slot):
        arms, limits, record_limit = self.arms(slot), [], None
        count = max(sum(F(used) for _, _, used in arms), F(1))
        for rarity in self.rarity:
            rate = F(1) / (F(rarity) * count)
            ys = [self.decoded(code) + tail.margin(rate) if used else F(np.inf) for tail, code, used in arms]
            record_limit = self.amount(ys[0]) if record_limit is None else record_limit
            limit = self.amount(min(ys))
            limits.append(max(limit, self.floor) if self.is_above else limit)
        return record_limit, limits

    def close(self, slot):
        highest, self.highest = self.highest, NO_AMOUNT
        ok = np.isfinite(highest)
        if not ok:
            self.quiet = min(self.quiet, 2) + 1
            self.mend(False, F(0))
            return
        record_limit, limits = self.limits_of(slot)
        fired = highest > limits[0]
        record = fired and highest > record_limit
        y = self.y(highest)
        bounded = min(y, self.y(limits[0])) if fired else y
        for tail, code, used in self.arms(slot):
            weight = (F(0.25) if fired else F(1)) if used else F(0)
            tail.learn(bounded - self.decoded(code), weight, used and not fired and highest != 0)
        if not record:
            self.follow(slot, y)
        self.age += 1
        if record:
            self.run, self.quiet = (0 if self.quiet > 2 else self.run) + 1, 0
        else:
            self.run, self.quiet = 0 if self.quiet > 2 else self.run, min(self.quiet, 2) + 1
        self.mend(record, y)

    def follow(self, slot, y):
        code, phase = min(max(F(32768) + y * F(1024), F(1)), F(65535)), F(slot * 0.6180339887498949 % 1)

        def followed(was, decay):
            now = code if code > was or was == 0 else F(was) - decay * (F(was) - code)
            return int(min(now + phase, F(65535)))

        self.all_hours = followed(self.all_hours, F(1 / 168))
        if self.slots:
            self.slots[slot % len(self.slots)] = followed(self.slots[slot % len(self.slots)], self.decay)

    def mend(self, record, y):
        if record:
            self.shift += (F(32768) + y * F(1024) - F(self.all_hours) - self.shift) / F(max(self.run, 1))
        elif self.run == 0:
            self.shift = F(0)
        if self.run >= 24:
            up = int(max(self.shift, F(0)))
            self.slots = [min(code + up, 65535) if code else 0 for code in self.slots]
            self.all_hours, self.run = min(self.all_hours + up, 65535), 0


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
