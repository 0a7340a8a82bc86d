"""The life of a baseline against the plain reference: hours, gaps, clock steps, restarts, reloads, new normals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from baseline_reference import NO_AMOUNT, F, Group
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import factories
from watchdog.rules.engine.baseline_blobs import dump_part, load_parts
from watchdog.rules.engine.rule_baseline import RuleBaseline
from watchdog.rules.language.rule import BaselineSpec, Season, Severity

STEP = 300  # seconds between two ticks
COUNT = 3
SECRET = bytes(16)


class Reference:
    """The groups of a rule, and its hours: an hour counts if ticks at most 6 minutes apart cover 54 minutes of it."""

    def __init__(self, spec):
        arguments = spec.floor, self.rarity(spec), spec.season.value, spec.learn_hours, spec.above
        self.groups = [Group(*arguments) for _ in range(COUNT)]
        self.number, self.last, self.covered, self.learnt = None, None, 0.0, 0

    @staticmethod
    def rarity(spec):
        return [spec.rarity_hours[severity] for severity in sorted(spec.rarity_hours)]

    def tick(self, time, amounts):
        number = int(time // 3600)
        step = 0.0 if self.last is None else time - self.last
        step = step if 0 < step <= 360 else 0.0
        inside = min(step, time - number * 3600)
        if number == self.number:
            self.covered += step
        else:
            if self.number is not None:
                self.end(number, is_whole=self.covered + max(step - (time - number * 3600), 0.0) >= 3240)
            self.number, self.covered = number, inside
        self.last = time
        for group, amount in zip(self.groups, amounts, strict=True):
            group.highest = np.fmax(group.highest, amount)

    def end(self, number, *, is_whole):
        for group in self.groups:
            if is_whole:
                group.close(self.number)
            group.highest = NO_AMOUNT
            group.set_limits(number)
        self.learnt += is_whole


class Daemon:
    """The product's baseline, fed with the same ticks; its groups have rows from the beginning."""

    def __init__(self, spec):
        self.rule = factories.make_rule("busy", baseline=spec)
        self.baseline = RuleBaseline(self.rule, SECRET, 100)
        self.baseline.groups.add(np.arange(1, COUNT + 1, dtype=np.uint64), np.zeros(COUNT, np.int32))
        self.baseline.columns.add(COUNT)

    def tick(self, time, amounts):
        self.baseline.end_hours(time, 0, is_measured=True)
        self.baseline.columns.tick(amounts)

    def restart(self):
        saved = dump_part("busy", self.baseline, 0)
        self.baseline = RuleBaseline(self.rule, SECRET, 100)
        assert load_parts(self.baseline, [saved]) == 0

    def reload(self, spec):
        self.rule = replace(self.rule, baseline=spec)
        self.baseline.apply_rule(self.rule)


def check(daemon, reference):
    baseline, number = daemon.baseline, reference.number
    assert baseline.hour.number == number
    assert baseline.learnt_hours == reference.learnt
    limits = np.stack(baseline.columns.limits(slice(0, COUNT), number))
    assert np.array_equal(limits, np.array([group.limits_of(number)[1] for group in reference.groups], F).T)
    assert np.array_equal(baseline.columns.limit[:COUNT], limits[0])
    for name in ("all_hours", "age", "run", "highest"):
        assert getattr(baseline.columns, name)[:COUNT].tolist() == [getattr(group, name) for group in reference.groups]


events = st.one_of(
    st.tuples(st.just("hours"), st.integers(1, 40), st.floats(0.2, 60)),
    st.tuples(st.just("hours"), st.integers(24, 40), st.floats(5, 60)),
    st.tuples(st.just("clock step"), st.sampled_from([-90_000.0, -3_600.0, -40.0, 30.0, 900.0, 7_200.0])),
    st.tuples(st.just("gap"), st.integers(400, 100_000)),
    st.tuples(st.just("restart")),
    st.tuples(st.just("reload"), st.floats(24, 1e5), st.integers(1, 100)),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(events, min_size=1, max_size=12), st.sampled_from(list(Season)), st.booleans(), st.integers(0, 99))
def test_any_life_is_that_of_the_reference_to_the_last_bit(life, season, above, seed):
    random = np.random.default_rng(seed)
    spec = BaselineSpec(10.0, {Severity.WARNING: 720.0, Severity.CRITICAL: 8760.0}, 24, season, above)
    daemon, reference = Daemon(spec), Reference(spec)
    sign, time, levels = 1 if above else -1, 1e6, np.exp(random.uniform(1, 6, COUNT))
    for kind, *values in [("hours", 30, 1.0), ("hours", 30, 1.1), *life, ("hours", 2, 1.0)]:
        match kind:
            case "hours":
                for _ in range(values[0] * 3600 // STEP):
                    time += STEP
                    amounts = (sign * random.poisson(levels * values[1])).astype(F)
                    daemon.tick(time, amounts)
                    reference.tick(time, amounts)
            case "clock step" | "gap":
                time += values[0]
            case "restart":
                daemon.restart()
                reference.last = None
            case "reload":
                spec = replace(spec, rarity_hours={Severity.WARNING: values[0]}, learn_hours=values[1])
                daemon.reload(spec)
                for group in reference.groups:
                    group.rarity, group.learn = reference.rarity(spec), values[1]
                    group.set_limits(reference.number)
        check(daemon, reference)
