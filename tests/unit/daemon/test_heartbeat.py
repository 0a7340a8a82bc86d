"""The heartbeat: when it is sent, its content, and when it is suppressed."""

from __future__ import annotations

import json
import logging

import pytest

from watchdog import __version__
from watchdog.clock import SECOND_NS
from watchdog.daemon.heartbeat import DEADLINE_SECONDS, Heartbeat, RulesInForce
from watchdog.daemon.host_name import HostName
from watchdog.errors import DeliveryError, DeliveryErrorReason

INTERVAL = 60.0


class FakeMonitor:
    """A monitor that records heartbeats, or refuses them with `error`."""

    interval_ns = round(INTERVAL * SECOND_NS)

    def __init__(self):
        self.received = []
        self.error = None

    def post(self, body, deadline_seconds, *, is_healthy):
        assert deadline_seconds == DEADLINE_SECONDS
        if self.error:
            raise self.error
        self.received.append((is_healthy, json.loads(body)))

    def health(self):
        return [well for well, _ in self.received]


class HeartbeatSetup:
    """A heartbeat without its thread, with fakes around it."""

    def __init__(self, clock):
        self.clock = clock
        self.problems = []
        self.share = 1.0  # of each random time
        self.monitor = FakeMonitor()
        self.heartbeat = Heartbeat(
            HostName(lambda: "web-1"), self._get_problems, clock, logging.getLogger("watchdog"), self._draw
        )
        self.heartbeat._target, self.heartbeat._rules = self.monitor, RulesInForce(11, "abc")

    def _get_problems(self):
        return self.problems

    def _draw(self, low, high):
        return low + (high - low) * self.share

    def tick(self, *, succeeded=True, interval=1.0):
        self.heartbeat.record_tick(succeeded=succeeded, interval_ns=round(interval * SECOND_NS))

    def ticks(self, seconds, *, succeeded=True):
        for _ in range(seconds):
            self.clock.advance(1)
            self.tick(succeeded=succeeded)


@pytest.fixture
def setup(clock):
    return HeartbeatSetup(clock)


def test_no_heartbeat_before_the_first_tick(setup):
    assert setup.heartbeat.send_if_due() is None
    assert setup.monitor.received == []


def test_after_a_good_tick_it_has_host_version_and_rules(setup, clock):
    setup.tick()
    clock.advance(0.25)
    assert setup.heartbeat.send_if_due() == INTERVAL
    expected = {
        "host": "web-1",
        "version": __version__,
        "status": "ok",
        "trouble": [],
        "rule_count": 11,
        "ruleset_sha256": "abc",
        "last_good_tick_age_seconds": 0.25,
    }
    assert setup.monitor.received == [(True, expected)]


def test_a_sampler_that_hangs_suppresses_it_and_is_logged_once(setup, clock, caplog):
    setup.tick()
    clock.advance(10)
    setup.heartbeat.send_if_due()
    clock.advance(1)
    assert [setup.heartbeat.send_if_due() for _ in range(3)] == [None] * 3
    assert setup.monitor.health() == [True]
    assert [record.message for record in caplog.records] == ["heartbeat suppressed: no tick completed within 10s"]
    setup.tick()
    setup.heartbeat.send_if_due()
    assert setup.monitor.health() == [True, True]
    assert [record.message for record in caplog.records][1:] == ["heartbeat resumed: ticks complete again"]


def test_one_that_was_due_while_a_tick_was_late_is_sent_at_the_end_of_this_tick(setup, clock):
    setup.tick()
    setup.heartbeat.send_if_due()
    clock.advance(INTERVAL)
    setup.heartbeat._wake_up.clear()
    assert setup.heartbeat.send_if_due() is None
    setup.tick()
    assert setup.heartbeat._wake_up.is_set()
    assert setup.heartbeat.send_if_due() == INTERVAL
    assert setup.monitor.health() == [True, True]
    setup.heartbeat._wake_up.clear()
    setup.tick()
    assert not setup.heartbeat._wake_up.is_set()


def test_with_a_long_interval_it_is_suppressed_after_three_intervals(setup, clock):
    setup.tick(interval=30)
    clock.advance(90)
    setup.heartbeat.send_if_due()
    clock.advance(1)
    setup.heartbeat.send_if_due()
    assert setup.monitor.health() == [True]


def test_failing_ticks_make_it_fail_once_none_has_succeeded_lately(setup):
    setup.tick()
    setup.ticks(5, succeeded=False)
    setup.heartbeat.send_if_due()
    setup.ticks(6, succeeded=False)
    setup.heartbeat.send_if_due()
    assert setup.monitor.health() == [True, False]
    document = setup.monitor.received[-1][1]
    assert (document["status"], document["trouble"], document["last_good_tick_age_seconds"]) == (
        "fail",
        ["ticks fail"],
        11.0,
    )


def test_ticks_that_fail_from_the_start_make_it_fail(setup):
    setup.tick(succeeded=False)
    setup.heartbeat.send_if_due()
    [(well, document)] = setup.monitor.received
    assert (well, document["last_good_tick_age_seconds"]) == (False, None)


@pytest.mark.parametrize("problems", [["receiver down: receiver=oncall"], ["receiver down: receiver=oncall", "other"]])
def test_problems_outside_ticks_make_it_fail_too(setup, problems):
    setup.problems = problems
    setup.tick()
    setup.heartbeat.send_if_due()
    [(well, document)] = setup.monitor.received
    assert (well, document["trouble"]) == (False, problems)


def test_a_failed_heartbeat_is_retried_sooner_and_logged_once_and_its_recovery_with_the_count(setup, caplog):
    setup.monitor.error = DeliveryError(
        DeliveryErrorReason.TIMEOUT, "hc.example.net: no complete answer in time", retryable=True
    )
    setup.tick()
    assert [setup.heartbeat.send_if_due() for _ in range(3)] == [INTERVAL / 4] * 3
    setup.monitor.error = None
    assert setup.heartbeat.send_if_due() == INTERVAL
    reason = "timeout: hc.example.net: no complete answer in time"
    assert [record.getMessage() for record in caplog.records] == [
        f"heartbeat failed, retrying without further log lines: retry=15s reason={reason}",
        "heartbeat works again: failures=3",
    ]


def test_only_type_and_location_of_a_defect_are_logged(setup, caplog):
    setup.monitor.error = KeyError("https://hc.example.net/hunter2")
    setup.tick()
    assert setup.heartbeat.send_if_due() == INTERVAL / 4
    assert "KeyError in test_heartbeat.py:" in caplog.text
    assert "hunter2" not in caplog.text


def test_hosts_that_start_together_send_at_different_times_from_the_second_heartbeat_on(setup):
    setup.share = 0.3
    setup.tick()
    assert setup.heartbeat.send_if_due() == 0.3 * INTERVAL
    assert [setup.heartbeat.send_if_due() for _ in range(2)] == [INTERVAL] * 2


def test_hosts_that_lost_the_monitor_together_send_at_different_times_again(setup):
    setup.tick()
    for _ in range(2):
        setup.heartbeat.send_if_due()
    setup.monitor.error = DeliveryError(DeliveryErrorReason.CONNECT, "hc.example.net: refused", retryable=True)
    setup.share = 0.5
    assert setup.heartbeat.send_if_due() == INTERVAL / 4 * 0.75
    setup.monitor.error = None
    assert [setup.heartbeat.send_if_due() for _ in range(2)] == [INTERVAL / 2, INTERVAL]


def test_hosts_that_reload_together_send_at_different_times_again(setup):
    setup.tick()
    for _ in range(2):
        setup.heartbeat.send_if_due()
    setup.share = 0.4
    setup.heartbeat.set_target(None, RulesInForce(11, "abc"))
    setup.heartbeat._target = setup.monitor
    assert setup.heartbeat.send_if_due() == 0.4 * INTERVAL
