"""Each shipped rule with a baseline learns a usual level, fires far above it, and stays silent on near misses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import Now
from watchdog.resources import shipped_rules_folder
from watchdog.rules.engine.engine import Engine
from watchdog.rules.language.load import load_rules
from watchdog.rules.language.rule import Severity

STEP = 15  # seconds between two ticks
LEARN_HOURS = 4
RULES = {rule.id: rule for rule in load_rules([shipped_rules_folder()], receivers=()).rules if rule.baseline}
MEGABYTE = 1e6


def out(**values):
    return [{"process": "app", "unit": "app.service", "direction": "out", "state": "ESTABLISHED"} | values]


def inward(**values):
    return [{"process": "app", "unit": "app.service", "direction": "in", "state": "ESTABLISHED"} | values]


def failed(number):
    return out(state="CLOSE", closes=number, connect_failures=number)


def latencies(seconds):
    return [row for _ in range(25) for row in out(connects=1, connect_latency=seconds)]


def round_trips(seconds):
    return out(packets_received=1000, rtt=seconds)


# By rule: rows of one tick for a level, the usual level, one below the floor in a minute, however unusual.
CASES = {
    "unusual-outbound-connections": (lambda level: out(connects=level), 100, 25),
    "unusual-inbound-connections": (lambda level: inward(established=level), 200, 50),
    "unusual-bytes-sent": (lambda level: out(bytes_sent=level * MEGABYTE), 100, 25),
    "unusual-bytes-received": (lambda level: out(bytes_received=level * MEGABYTE), 100, 25),
    "unusual-failed-connects": (failed, 20, 7),
    "unusual-connect-latency": (latencies, 0.1, 0.045),
    "unusual-round-trip-time": (round_trips, 0.15, 0.09),
    "unusual-retransmissions": (lambda share: out(packets_sent=10_000, retransmits=round(10_000 * share)), 0.01, 0.009),
}


def test_each_rule_with_a_baseline_has_its_case():
    assert set(CASES) == set(RULES)


class Life:
    """A host that lives by one shipped rule, which learns for fewer hours than as shipped."""

    def __init__(self, host, rule_id):
        rule = RULES[rule_id]
        self.rule = replace(rule, baseline=replace(rule.baseline, learn_hours=LEARN_HOURS))
        self.rows = CASES[rule_id][0]
        self.host, self.engine, self.lifecycle = host, Engine([self.rule]), Lifecycle("web-1")
        self.wall, self.fired = 1_750_032_000.0, []
        self.engine.evaluate(host.baseline(), [])

    def live(self, seconds, levels):
        for _ in range(0, seconds, STEP):
            self.wall += STEP
            snapshot = replace(self.host.tick(*self.rows(next(levels)), seconds=STEP), wall=self.wall)
            verdicts = self.engine.evaluate(snapshot, self.lifecycle.active_keys())
            for transition in self.lifecycle.advance(verdicts, Now(snapshot.at_ns, self.wall)):
                self.fired.append((transition.kind.value, transition.alert.severity))
            assert self.engine.take_failures() == self.lifecycle.take_failures() == []
        return self.fired


def around(level, seed=1):
    random = np.random.default_rng(seed)
    while True:
        yield type(level)(level * random.uniform(0.7, 1.0))


def constant(level):
    while True:
        yield level


@pytest.mark.parametrize("rule_id", sorted(CASES))
def test_fires_far_above_the_usual_only(host, rule_id):
    _, level, _ = CASES[rule_id]
    life = Life(host, rule_id)
    assert life.live((LEARN_HOURS + 1) * 3600 + STEP, around(level)) == []
    assert life.live(300, constant(type(level)(1.1 * level))) == []  # a near miss: little more than usual
    life.live(300, constant(type(level)(6 * level)))
    assert life.fired[0] == ("firing", life.fired[0][1])
    factor = 60 if rule_id == "unusual-retransmissions" else 500
    life.live(300, constant(type(level)(factor * level)))
    assert max(severity for _, severity in life.fired) is Severity.CRITICAL


@pytest.mark.parametrize("rule_id", sorted(CASES))
def test_below_the_floor_it_is_silent(host, rule_id):
    _, _, below = CASES[rule_id]
    life = Life(host, rule_id)
    life.live((LEARN_HOURS + 1) * 3600 + STEP, around(below / 20 if isinstance(below, float) else max(below // 20, 1)))
    assert life.live(300, constant(below)) == []
