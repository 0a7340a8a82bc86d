"""`hits` in place of `for`: the newest ticks that are known, over restarts and reloads."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import factories
from watchdog.alerts.alert import fingerprint
from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import SECOND_NS, Now
from watchdog.rules.engine.engine import Verdict
from watchdog.rules.language.rule import Hits, Severity

LABELS = (("process", "nginx"),)
LIMIT, CLEAR = 100, 60
HIT, BETWEEN, MISS, UNKNOWN = 150, 80, 10, None


def hits_rule(count=3, ticks=5, **changes):
    return factories.make_rule(above=LIMIT, clear=CLEAR, **{"hits": Hits(count, ticks), **changes})


class Life:
    """One instance; each value is that of the next tick, None an unknown one."""

    def __init__(self, rule):
        self.rule, self.at_ns = rule, 1_000 * SECOND_NS
        self.lifecycle = Lifecycle("web1")
        self.lifecycle.restore([], [rule], self.at_ns, 0, 0)
        self.saved = {}

    def tick(self, *values, severities=(Severity.WARNING,)):
        kinds = []
        for value in values:
            self.at_ns += SECOND_NS
            known = value is not None
            breached = [severity for severity in severities if known and value > self.rule.thresholds.fire[severity]]
            held = [severity for severity in severities if known and value >= self.rule.thresholds.clear[severity]]
            worst, kept = max(breached, default=None), max(held, default=None)
            verdict = Verdict(self.rule, LABELS, known, value if known else 0.0, worst, kept, "")
            transitions = self.lifecycle.advance([verdict], Now(self.at_ns, 5_000.0))
            kinds += [one.kind.value for one in transitions]
        return kinds

    def restart(self, rule=None):
        self.rule = rule or self.rule
        self.saved |= dict(self.lifecycle.take_changes())
        documents = [document for document in self.saved.values() if document is not None]
        self.lifecycle = Lifecycle("web1")
        assert self.lifecycle.restore(json.loads(json.dumps(documents)), [self.rule], self.at_ns, 0, 0) == 0

    @property
    def is_firing(self):
        return fingerprint(self.rule.id, LABELS) in self.lifecycle.firing_alerts()


def test_an_alert_fires_with_the_tick_that_completes_the_hits():
    life = Life(hits_rule(3, 5))
    assert life.tick(HIT, MISS, HIT, MISS) == []
    assert life.tick(HIT) == ["firing"]
    assert life.lifecycle.firing_alerts().popitem()[1].reason == "value above 100/s in 3 of 5 ticks"


def test_hits_that_are_too_far_apart_do_not_add_up():
    life = Life(hits_rule(3, 5))
    assert life.tick(*[HIT, MISS, MISS] * 20) == []


def test_a_pending_instance_ends_when_its_last_hit_is_too_old():
    life = Life(hits_rule(2, 3))
    life.tick(HIT, MISS, MISS)
    assert life.lifecycle.active_keys() == [(life.rule.id, LABELS)]
    life.tick(MISS)
    assert life.lifecycle.active_keys() == []


def test_an_alert_fires_on_while_there_are_enough_hits_or_the_value_has_not_cleared():
    life = Life(hits_rule(2, 3))
    assert life.tick(HIT, HIT) == ["firing"]
    assert life.tick(MISS, HIT, HIT, BETWEEN, BETWEEN, BETWEEN) == []
    assert life.tick(MISS) == ["resolved"]


def test_keep_firing_for_begins_when_neither_holds():
    life = Life(hits_rule(2, 3, keep_firing_for_seconds=3))
    assert life.tick(HIT, HIT, MISS, MISS, MISS, MISS) == ["firing"]
    assert life.tick(MISS) == ["resolved"]


def test_unknown_ticks_are_none_of_the_newest_ticks():
    life = Life(hits_rule(3, 3))
    assert life.tick(HIT, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, HIT, UNKNOWN) == []
    assert life.tick(HIT) == ["firing"]
    assert life.tick(*[UNKNOWN] * 10) == []
    assert life.tick(MISS) == ["resolved"]


def test_each_severity_has_its_own_hits():
    life = Life(hits_rule(2, 4, critical=500, clear_critical=300))
    severities = (Severity.WARNING, Severity.CRITICAL)
    assert life.tick(600, 150, severities=severities) == ["firing"]
    assert life.tick(600, severities=severities) == ["severity raised"]


def test_hits_continue_over_a_restart_at_every_tick():
    life = Life(hits_rule(3, 5))
    for value in (HIT, MISS, HIT, MISS):
        life.restart()
        assert life.tick(value) == []
    life.restart()
    assert life.tick(HIT) == ["firing"]


@pytest.mark.parametrize(("before", "after"), [(Hits(3, 5), None), (None, Hits(3, 5)), (Hits(2, 9), Hits(3, 3))])
def test_a_reload_between_for_and_hits_never_leaves_an_instance_that_cannot_end(before, after):
    rule = hits_rule(hits=before, for_seconds=0 if before else 4)
    life = Life(rule)
    life.tick(HIT, HIT)
    life.rule = replace(rule, hits=after, for_ns=0 if after else 4 * SECOND_NS)
    life.lifecycle.replace_rules([life.rule])
    life.tick(*[MISS] * 9)
    assert life.lifecycle.active_keys() == []


@given(
    st.integers(1, 6).flatmap(lambda ticks: st.tuples(st.integers(1, ticks), st.just(ticks))),
    st.lists(st.tuples(st.sampled_from([HIT, BETWEEN, MISS, UNKNOWN]), st.booleans()), max_size=40),
)
def test_hits_are_those_of_a_plain_count(numbers, steps):
    count, ticks = numbers
    life, known, fires = Life(hits_rule(count, ticks)), [], False
    for value, restarts in steps:
        life.tick(value)
        if value is not UNKNOWN:
            known.append(value)
            enough = known[-ticks:].count(HIT) >= count
            has_fired, fires = fires, enough or (fires and value >= CLEAR)
            if has_fired and not fires:
                known = []  # the hits of one alert do not count for the next
        assert life.is_firing == fires
        if restarts:
            life.restart()
