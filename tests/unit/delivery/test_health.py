"""One definition of a receiver that is down: the alert, the heartbeat's problem and the local log agree."""

from __future__ import annotations

import json

import pytest

from watchdog.clock import SECOND_NS, Now
from watchdog.delivery.health import Outage, ReceiverHealth
from watchdog.delivery.receiver_down import ReceiverDownAlerts
from watchdog.receivers.base import VolatileReceiverState

DOWN_AFTER_SECONDS = 600
HANG_SECONDS = 30.0
DENIED = "auth: 127.0.0.1 answered 401"


@pytest.fixture
def health(clock):
    return ReceiverHealth(VolatileReceiverState(), clock, HANG_SECONDS)


@pytest.fixture
def alerts():
    return ReceiverDownAlerts(("oncall", "hook"), DOWN_AFTER_SECONDS * SECOND_NS)


def down(alerts, health, clock):
    outages = {} if health.outage is None else {"oncall": health.outage}
    return alerts.down_receivers(outages, clock.boottime_ns())


def test_a_receiver_is_down_once_its_outage_has_lasted_receiver_down_after(alerts, health, clock):
    health.attempt_failed(DENIED)
    clock.advance(DOWN_AFTER_SECONDS - 1)
    assert down(alerts, health, clock) == {}
    clock.advance(1)
    assert down(alerts, health, clock) == {"oncall": health.outage}
    assert health.outage.describe("oncall") == (
        f"receiver down: receiver=oncall since=2025-06-15T15:06:40.000Z reason={DENIED}"
    )


def test_a_receiver_that_took_one_notification_is_not_down(alerts, health, clock):
    health.attempt_failed(DENIED)
    clock.advance(DOWN_AFTER_SECONDS)
    health.attempt_succeeded()
    assert down(alerts, health, clock) == {}


def test_an_attempt_that_hangs_counts_from_its_start(alerts, health, clock):
    health.attempt_started()
    clock.advance(HANG_SECONDS - 1)
    assert health.outage is None
    clock.advance(DOWN_AFTER_SECONDS - HANG_SECONDS + 1)
    assert down(alerts, health, clock).keys() == {"oncall"}


@pytest.mark.parametrize("seconds", [0, DOWN_AFTER_SECONDS - 1, DOWN_AFTER_SECONDS, 100 * DOWN_AFTER_SECONDS])
def test_the_alert_fires_exactly_when_the_receiver_is_down(alerts, clock, seconds):
    outage = Outage(clock.boottime_ns(), clock.wall(), DENIED)
    clock.advance(seconds)
    is_down = alerts.down_receivers({"oncall": outage}, clock.boottime_ns()).keys()
    alerts.advance({"oncall": outage}, Now.read(clock))
    assert alerts.alerts_by_receiver().keys() == is_down


def test_a_receiver_that_is_not_configured_is_not_down(alerts, clock):
    outage = Outage(clock.boottime_ns() - 2 * DOWN_AFTER_SECONDS * SECOND_NS, clock.wall(), DENIED)
    assert alerts.down_receivers({"removed": outage}, clock.boottime_ns()) == {}


def test_an_outage_is_saved_once_and_removed_when_it_ends(clock):
    receiver_state = VolatileReceiverState()
    health = ReceiverHealth(receiver_state, clock, HANG_SECONDS)
    health.attempt_failed(DENIED)
    health.save()
    assert json.loads(receiver_state.get("outage"))["reason"] == DENIED
    assert ReceiverHealth(receiver_state, clock, HANG_SECONDS).outage == health.outage
    health.attempt_succeeded()
    health.save()
    assert receiver_state.get("outage") is None
