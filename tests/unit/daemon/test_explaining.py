"""Conclusions of `explain` while an alert comes and goes: hits, absence, long windows, ceilings; second by second."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from simulated_host import SimulatedHost

from watchdog.cli.explain import _lines
from watchdog.daemon.explaining import explain
from watchdog.daemon.rule_states import RuleStates
from watchdog.storage.reader import StateReader

RULE = """
[[rule]]
id = "{id}"
summary = "{{process}} {{value}}"
metric = "connects"
stat = "sum"
window = "{window}"
by = ["process"]
where = {{ process = "culprit*" }}
{limits}
"""
LIMITS = {
    "hits": 'fire_above = 5\nhits = "3 of 5"',
    "absent": 'fire_below = 1\nabsent = "fire"\nabsent_for = "60s"',
    "silent": 'fire_below = 3\nfor = "5s"\nabsent_for = "20s"',
    "daily": "fire_above = 50",
}


class ExplainedHost(SimulatedHost):
    """A host with a rule of each kind."""

    def configuration(self, *_):
        windows = {"hits": "2s", "daily": "1d"}
        texts = [RULE.format(id=name, window=windows.get(name, "10s"), limits=text) for name, text in LIMITS.items()]
        self.more_rules = "".join(texts)
        return super().configuration()

    def live(self, ticks, connects=0):
        for _ in range(ticks):
            self.tick(connects)

    def explain(self, rule):
        return explain(self.pipeline, StateReader(self.store.database.path), self.clock, rule, {"process": "culprit"})

    def conclusion(self, rule):
        return self.explain(rule).conclusion

    def lines(self, rule):
        return dict(_lines(json.loads(json.dumps(asdict(self.explain(rule))))))


@pytest.fixture
def explained(tmp_path, clock):
    host = ExplainedHost(tmp_path, clock)
    yield host
    host.pipeline.stop()


def test_hits_are_counted_until_the_alert_fires(explained):
    explained.live(12, connects=1)
    assert (
        explained.conclusion("hits") == "it does not fire: it fires as soon as its value gets above 5 in 3 of 5 ticks"
    )
    explained.live(1, connects=9)
    assert explained.conclusion("hits") == "it is pending: it fires with 2 more hits in the newest 5 ticks"
    explained.live(1, connects=9)
    assert explained.conclusion("hits") == "it is pending: it fires with 1 more hit in the newest 5 ticks"
    explained.live(1, connects=9)
    assert explained.conclusion("hits") == "it fires"


def test_an_absent_group_has_the_time_that_is_left(explained):
    explained.live(12, connects=1)
    assert (
        explained.conclusion("absent")
        == "it does not fire: it fires as soon as its value gets below 1, or after 1m without a connection"
    )
    explained.live(13)
    found = explained.explain("absent")
    assert (found.earliest_seconds, found.conclusion) == (
        47,
        "it is pending: it fires in 47s if the group stays absent",
    )
    [timer] = found.timers
    assert (timer.elapsed_seconds, timer.duration_seconds) == (13, 60)
    rules = RuleStates(explained.pipeline, explained.clock).list_rules(explained.configuration())
    assert next(one.timer for one in rules if one.id == "absent") == timer
    explained.live(47)
    assert explained.conclusion("absent") == "it fires"


def test_a_group_that_is_gone_is_judged_from_its_next_connection_on(explained):
    explained.live(12, connects=1)
    explained.live(10)
    assert explained.conclusion("silent").startswith("it is pending: it fires in ")
    explained.live(30)
    assert (
        explained.conclusion("silent")
        == "it does not fire (the group has no rows now): it is judged again from its next connection on"
    )


def test_a_sum_that_breaches_before_its_window_is_filled_is_sure(explained):
    explained.live(12, connects=4)
    assert "not sure" in explained.lines("daily")["warning"]
    explained.live(2, connects=4)
    assert explained.lines("daily")["warning"] == "fires above 50, clears below 50: breached"
