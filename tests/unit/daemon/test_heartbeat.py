"""When the heartbeat beats, what it says, and when it says nothing."""

from __future__ import annotations

import json
import logging

import pytest

from watchdog import __version__
from watchdog.clock import SECOND_NS
from watchdog.daemon.heartbeat import DEADLINE_SECONDS, Heartbeat, RulesInForce
from watchdog.errors import DeliveryError, DeliveryErrorReason

INTERVAL = 60.0


class Somebody:
    """Hears what is told, or does not."""

    interval_ns = round(INTERVAL * SECOND_NS)

    def __init__(self):
        self.heard = []
        self.deaf = None

    def post(self, body, deadline_seconds, *, is_healthy):
        assert deadline_seconds == DEADLINE_SECONDS
        if self.deaf:
            raise self.deaf
        self.heard.append((is_healthy, json.loads(body)))

    def verdicts(self):
        return [well for well, _ in self.heard]


class Patient:
    """A heartbeat without its thread, and what it depends on."""

    def __init__(self, clock):
        self.clock = clock
        self.problems = []
        self.somebody = Somebody()
        self.heartbeat = Heartbeat("web-1", self._troubles, clock, logging.getLogger("watchdog"))
        self.heartbeat._target, self.heartbeat._rules = self.somebody, RulesInForce(11, "abc")

    def _troubles(self):
        return self.problems

    def tick(self, *, succeeded=True, interval=1.0):
        self.heartbeat.record_tick(succeeded=succeeded, interval_ns=round(interval * SECOND_NS))

    def ticks(self, seconds, *, succeeded=True):
        for _ in range(seconds):
            self.clock.advance(1)
            self.tick(succeeded=succeeded)


@pytest.fixture
def patient(clock):
    return Patient(clock)


def test_nothing_is_said_before_the_first_tick(patient):
    assert patient.heartbeat.send_if_due() is None
    assert patient.somebody.heard == []


def test_after_a_good_tick_it_says_who_it_is_and_what_it_judges_by(patient, clock):
    patient.tick()
    clock.advance(0.25)
    assert patient.heartbeat.send_if_due() == INTERVAL
    expected = {
        "host": "web-1",
        "version": __version__,
        "status": "ok",
        "problems": [],
        "rule_count": 11,
        "ruleset_sha256": "abc",
        "last_good_tick_age_seconds": 0.25,
    }
    assert patient.somebody.heard == [(True, expected)]


def test_a_sampler_that_hangs_lets_it_go_silent_and_is_told_once(patient, clock, caplog):
    patient.tick()
    clock.advance(10)
    patient.heartbeat.send_if_due()
    clock.advance(1)
    assert [patient.heartbeat.send_if_due() for _ in range(3)] == [INTERVAL] * 3
    assert patient.somebody.verdicts() == [True]
    assert [record.message for record in caplog.records] == ["heartbeat suppressed: no tick completed within 10s"]
    patient.tick()
    patient.heartbeat.send_if_due()
    assert patient.somebody.verdicts() == [True, True]
    assert [record.message for record in caplog.records][1:] == ["heartbeat resumed: ticks complete again"]


def test_where_ticks_are_far_apart_silence_begins_after_three_of_them(patient, clock):
    patient.tick(interval=30)
    clock.advance(90)
    patient.heartbeat.send_if_due()
    clock.advance(1)
    patient.heartbeat.send_if_due()
    assert patient.somebody.verdicts() == [True]


def test_ticks_that_fail_are_bad_news_once_none_was_good_for_a_while(patient):
    patient.tick()
    patient.ticks(5, succeeded=False)
    patient.heartbeat.send_if_due()
    patient.ticks(6, succeeded=False)
    patient.heartbeat.send_if_due()
    assert patient.somebody.verdicts() == [True, False]
    said = patient.somebody.heard[-1][1]
    assert (said["status"], said["problems"], said["last_good_tick_age_seconds"]) == ("fail", ["ticks fail"], 11.0)


def test_a_guard_whose_ticks_fail_from_the_start_says_so(patient):
    patient.tick(succeeded=False)
    patient.heartbeat.send_if_due()
    [(well, said)] = patient.somebody.heard
    assert (well, said["last_good_tick_age_seconds"]) == (False, None)


@pytest.mark.parametrize("problems", [["receiver down: receiver=oncall"], ["receiver down: receiver=oncall", "other"]])
def test_problems_outside_ticks_make_it_fail_too(patient, problems):
    patient.problems = problems
    patient.tick()
    patient.heartbeat.send_if_due()
    [(well, said)] = patient.somebody.heard
    assert (well, said["problems"]) == (False, problems)


def test_a_beat_that_is_not_heard_is_tried_sooner_and_told_once_with_the_count_when_it_works_again(patient, caplog):
    patient.somebody.deaf = DeliveryError(
        DeliveryErrorReason.TIMEOUT, "hc.example.net: no complete answer in time", retryable=True
    )
    patient.tick()
    assert [patient.heartbeat.send_if_due() for _ in range(3)] == [INTERVAL / 4] * 3
    patient.somebody.deaf = None
    assert patient.heartbeat.send_if_due() == INTERVAL
    reason = "timeout: hc.example.net: no complete answer in time"
    assert [record.getMessage() for record in caplog.records] == [
        f"heartbeat failed, retrying without further log lines: retry=15s reason={reason}",
        "heartbeat works again: failures=3",
    ]


def test_of_a_defect_only_kind_and_place_are_told(patient, caplog):
    patient.somebody.deaf = KeyError("https://hc.example.net/hunter2")
    patient.tick()
    assert patient.heartbeat.send_if_due() == INTERVAL / 4
    assert "KeyError in test_heartbeat.py:" in caplog.text
    assert "hunter2" not in caplog.text
