"""A real Alertmanager takes firing, refresh and end of each alert, whatever this host's wall clock does meanwhile."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import datetime

import pytest
from alertmanagers import pair

import factories
from watchdog.alerts.boottimes import Boottimes
from watchdog.clock import SECOND_NS, Now, boot_id
from watchdog.config.secrets import Secret
from watchdog.receivers.alertmanager import API_PATH, Alertmanager
from watchdog.receivers.transport.http import Endpoint
from watchdog.selftest.fakes import SteppedClock

STEPS = {
    "8 h": 28_800.0,
    "-8 h": -28_800.0,
    "10 min": 600.0,
    "-10 min": -600.0,
    "2000 d": 172_800_000.0,
    "none": 0.0,
}
PHASES = ("pending", "firing", "ending")
TOLERANCE_SECONDS = 2.0
FOR_SECONDS = 3.0


class Case:
    """One alert of a host whose clock has `before` as its error, and `after` from the phase on."""

    def __init__(self, url, phase, before, after):
        self.name = f"{phase}, {before} then {after}"
        self.clock = SteppedClock()
        self.clock.wall_offset_seconds = STEPS[before]
        self._phase, self._after = phase, STEPS[after]
        self.receiver = Alertmanager("am", [Endpoint(Secret(url + API_PATH))], self.clock)
        now = Now.read(self.clock)
        self.started_ns = now.boottime_ns - round(FOR_SECONDS * SECOND_NS)
        started = now.wall - FOR_SECONDS
        self.reach("pending")
        now = Now.read(self.clock)
        self.alert = factories.make_alert(
            labels=(("process", self.name),),
            started=started,
            fired=now.wall,
            boottimes=Boottimes(self.started_ns, now.boottime_ns),
        )
        self.fired = time.time()

    def reach(self, phase):
        if phase == self._phase:
            self.clock.wall_offset_seconds = self._after

    def send(self, alert, phase=""):
        now = Now.read(self.clock)
        made = factories.make_notification(
            alert, host=self.name, created=now.wall, created_ns=now.boottime_ns, boot_id=boot_id()
        )
        self.reach(phase)
        self.receiver.send(made.shown_at(Now.read(self.clock), boot_id()), 10.0)

    def end(self):
        self.ended = time.time()
        resolved = self.alert.resolved_at(Now.read(self.clock), "value below 5/s")
        self.send(resolved, "ending")


@pytest.fixture
def instance(tmp_path, server, wait_for):
    """Run one Alertmanager; its webhook is `server`."""
    instance, _ = pair(tmp_path, server.url)
    instance.start()
    try:
        wait_for(lambda: instance.get("/api/v2/status"), "Alertmanager")
        yield instance
    finally:
        instance.kill()


def seconds(text):
    return datetime.fromisoformat(text[:19] + "+00:00").timestamp()


def starts_by_host(instance):
    return {one["labels"]["host"]: seconds(one["startsAt"]) for one in instance.get("/api/v2/alerts?active=true") or ()}


def notified(server, status):
    posted = [alert for _, _, body in list(server.posts) for alert in json.loads(body)["alerts"]]
    return {alert["labels"]["host"]: alert for alert in posted if alert["status"] == status}


def test_each_alert_fires_is_refreshed_and_ends_over_steps_of_the_clock(instance, server, wait_for):
    pairs = [(step, "none") for step in STEPS] + [("none", step) for step in STEPS if step != "none"]
    cases = [Case(instance.url, phase, *pair) for phase in PHASES for pair in pairs]
    try:
        for case in cases:
            case.send(case.alert)
        assert starts_by_host(instance).keys() == {case.name for case in cases}
        wait_for(lambda: len(notified(server, "firing")) == len(cases), "all alerts to be notified", 30.0)
        for case in cases:
            case.reach("firing")
            case.receiver.refresh([case.alert], case.name, 10.0)
        assert starts_by_host(instance) == {
            case.name: pytest.approx(case.fired, abs=TOLERANCE_SECONDS) for case in cases
        }
        assert notified(server, "resolved") == {}
        for case in cases:
            case.end()
        wait_for(lambda: starts_by_host(instance) == {}, "all alerts to end")
        wait_for(lambda: len(notified(server, "resolved")) == len(cases), "all ends to be notified", 30.0)
    finally:
        for case in cases:
            case.receiver.close()
    for case in cases:
        end = notified(server, "resolved")[case.name]
        truth = case.ended - case.fired
        duration = seconds(end["endsAt"]) - seconds(end["startsAt"])
        assert duration == pytest.approx(truth, abs=TOLERANCE_SECONDS), case.name
        lasted = end["annotations"]["description"].splitlines()[0]
        possible = [f"lasted {FOR_SECONDS + truth + off:.0f} s" for off in (-1, 0, 1)]
        assert lasted.startswith(tuple(possible)), (case.name, lasted, truth)


def test_a_notification_made_before_a_step_has_the_times_after_it():
    clock = SteppedClock()
    now = Now.read(clock)
    started_ns = now.boottime_ns - 90 * SECOND_NS
    alert = factories.make_alert(
        started=now.wall - 90, fired=now.wall - 60, boottimes=Boottimes(started_ns, started_ns + 30 * SECOND_NS)
    )
    made = factories.make_notification(alert, created=now.wall, created_ns=now.boottime_ns, boot_id=boot_id())
    assert made.shown_at(Now.read(clock), boot_id()) == made
    clock.wall_offset_seconds = -28_800.0
    shown = made.shown_at(Now.read(clock), boot_id())
    [one] = shown.alerts
    assert (one.started, one.fired, shown.created) == pytest.approx(
        (alert.started - 28_800, alert.fired - 28_800, now.wall - 28_800), abs=0.5
    )
    other_boot = replace(made, boot_id="another").shown_at(Now.read(clock), boot_id())
    assert (other_boot.created, other_boot.alerts) == (made.created, made.alerts)
