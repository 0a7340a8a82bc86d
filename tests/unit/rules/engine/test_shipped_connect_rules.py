"""The shipped rules about connects: they fire, and near misses stay silent."""

from __future__ import annotations

import pytest

from watchdog.resources import shipped_rules_folder
from watchdog.rules.engine.engine import Engine
from watchdog.rules.language.load import load_rules


@pytest.fixture
def firing(host):
    """Return a function from ticks, lists of rows, to the ids of the shipped rules that fire in each tick."""
    engine = Engine(load_rules([shipped_rules_folder() / "failed-connects.toml"], receivers=()).rules)
    engine.evaluate(host.baseline(), [])
    for _ in range(40):
        engine.evaluate(host.tick(), [])

    def firing(ticks):
        verdicts = [engine.evaluate(host.tick(*rows), []) for rows in ticks]
        return [{one.rule.id: (one.value, one.breached.name) for one in tick if one.breached} for tick in verdicts]

    return firing


def waiting(number, connects=0, **values):
    row = {"process": "app", "direction": "out", "state": "SYN_SENT", "open": 1, **values}
    return [row | {"connects": int(index < connects)} for index in range(number)]


def ended(number, failed=0, **values):
    row = {"process": "app", "direction": "out", "state": "CLOSE", "closes": 1, **values}
    return [row | {"connect_failures": int(index < failed)} for index in range(number)]


def test_connects_to_a_peer_that_does_not_answer_fire_after_five_seconds(firing):
    seen = firing([waiting(30, connects=30), *[waiting(30)] * 6])
    assert seen == [{}] * 4 + [{"connects-without-answer": (30, "WARNING")}] * 3


def test_connects_that_pile_up_fire(firing):
    seen = firing([waiting(number, connects=3) for number in range(3, 60, 3)])
    assert seen[6] == {}
    assert seen[7]["connects-without-answer"] == (12, "WARNING")
    assert firing([waiting(200)] * 5)[-1]["connects-without-answer"] == (200, "CRITICAL")


@pytest.mark.parametrize(
    "tick",
    [
        waiting(10),
        waiting(30, connects=7),  # a busy client of peers 100 ms away or more: new connects take the place of others
        waiting(500, connects=500),
        waiting(30, user="bpf-watchdog"),
        waiting(30, state="ESTABLISHED"),
        ended(30, failed=6),
        ended(30, failed=30, direction="in"),
    ],
)
def test_near_misses_stay_silent(firing, tick):
    assert not any(seen for seen in firing([tick] * 9) if "connects-without-answer" in seen)
    assert not any(seen for seen in firing([tick]) if "failed-connect-storm" in seen)


def test_connects_that_wait_in_short_bursts_stay_silent(firing):
    assert not any(firing([waiting(40, connects=40), [], waiting(40, connects=40), waiting(40), []] * 4))


def test_failures_are_a_share_of_the_attempts_that_ended(firing):
    quiet = [[]] * 40
    attempts = [{"process": "app", "direction": "out", "state": "SYN_SENT", "connects": 1, "open": 1}] * 8
    seen = firing([attempts, *quiet, ended(40, failed=40)])
    assert seen[-1] == {"failed-connect-storm": (1.0, "CRITICAL")}
    assert firing([*quiet, ended(12, failed=5)])[-1] == {"failed-connect-storm": (pytest.approx(5 / 12), "WARNING")}


def test_few_ends_stay_silent(firing):
    assert firing([ended(9, failed=9)]) == [{}]
