"""The source of the status page, on a simulated host."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from simulated_host import CALM, STORM, SimulatedHost
from status_views import make_alert_detail

from watchdog.control.reload_handler import ReloadAnswer
from watchdog.daemon.control_api import ControlApi
from watchdog.daemon.heartbeat import Heartbeat
from watchdog.daemon.status_report import DaemonFacts
from watchdog.daemon.status_source import MAX_ALERTS, StatusSource
from watchdog.routing.silencing import Silence
from watchdog.rules.language.rule import Condition
from watchdog.scheduling.scheduler import Scheduler
from watchdog.scheduling.tick_loop import TickLoop
from watchdog.systemd import Systemd
from watchdog.web.chart_history import POINTS


@pytest.fixture
def simulation(tmp_path, clock):
    simulation = SimulatedHost(tmp_path, clock)
    yield simulation
    simulation.receiver.answering.set()
    simulation.pipeline.stop()


def make_source(simulation, *, shows_commands=True):
    log = logging.getLogger("watchdog")
    loop = TickLoop(Scheduler(simulation.clock, log), Systemd({}), simulation.clock, log)
    heartbeat = Heartbeat(simulation.host, list, simulation.clock, log)
    facts = DaemonFacts(loop, heartbeat, simulation.host, simulation.clock)
    simulation.receiver.destination = lambda: "webhook example.net"
    answer = ReloadAnswer(accepted=True, dry_run=False)
    api = ControlApi(simulation.pipeline, simulation.store, facts, simulation.configuration("storm"), lambda _: answer)
    source = StatusSource(simulation.pipeline, api, simulation.clock, shows_commands=shows_commands)
    simulation.pipeline.observe_snapshot = source.traffic.add
    simulation.pipeline.observe_verdicts = source.add_verdicts
    return source


def run(simulation, *connects):
    for count in connects:
        simulation.tick(count)


def chart(source, rule_id="storm"):
    return next(rule for rule in source.read().rules if rule.status.id == rule_id).series


def test_the_chart_has_values_and_limits_of_samples(simulation):
    source = make_source(simulation)
    run(simulation, CALM, 4, 4)
    source.sample()
    series = chart(source)
    assert (series.values[-1], series.warning[-1], series.above) == (4.0, 5.0, True)
    assert np.isnan(series.critical).all()
    simulation.clock.advance(57)
    run(simulation, 2, 2, 2)
    source.sample()
    assert chart(source).values[[-3, -1]].tolist() == [4.0, 2.0]


def test_a_peak_between_two_samples_is_in_the_chart(simulation):
    source = make_source(simulation)
    run(simulation, CALM, CALM)
    source.sample()
    run(simulation, STORM, STORM, CALM, CALM, CALM)
    source.sample()
    assert chart(source).values[-1] == STORM
    simulation.clock.advance(30)
    run(simulation, 1, 1, 1)
    source.sample()
    assert chart(source).values[-1] == 1.0, "a peak counts once"


def test_a_rule_that_has_measured_nothing_has_no_chart(simulation):
    simulation.kernel.comm = b"another"
    source = make_source(simulation)
    run(simulation, STORM, STORM)
    source.sample()
    assert chart(source) is None


def test_a_reload_drops_the_charts_of_rules_that_are_gone(simulation):
    source = make_source(simulation)
    run(simulation, CALM, 4, 4)
    source.sample()
    simulation.pipeline.reload(simulation.configuration("other"))
    run(simulation, 4, 4)
    source.sample()
    assert [rule.status.id for rule in source.read().rules] == ["other"]
    assert source._history.series("storm", simulation.clock.boottime_ns()) is None


def test_command_lines_are_for_members_only(simulation, monkeypatch):
    detail = make_alert_detail()
    assert detail.evidence["top_process"]["command"]
    pages = []
    for shows_commands in (True, False):
        source = make_source(simulation, shows_commands=shows_commands)
        monkeypatch.setattr(source._alerts, "list_details", lambda limit: ([detail], 0))
        pages.append(source.read().alerts[0])
    assert pages[0] == detail
    top = {**detail.evidence["top_process"], "command": None, "unread": None}
    assert pages[1].evidence == {**detail.evidence, "top_process": top}


def test_silences_have_their_matchers_in_words_and_the_number_of_their_alerts(simulation):
    source = make_source(simulation)
    where = (Condition("process", ("culprit*", "x"), ("y",)),)
    ends_ns = simulation.clock.boottime_ns() + 3_600 * 10**9
    simulation.store.silences.add(Silence("", where, "ann", "move", 0.0, ends_ns))
    run(simulation, *[STORM] * 6)
    [silence] = source.read().silences
    assert (silence.matchers, silence.author, silence.alerts) == ("process=culprit* process=x process!=y", "ann", 1)
    assert silence.ends - source.read().wall == pytest.approx(3_600 - 6)


def test_the_worst_alerts_are_shown_and_the_others_counted(simulation):
    source = make_source(simulation)
    run(simulation, *[STORM] * 6)
    details, more = source._alerts.list_details(0)
    assert (details, more) == ([], 1)
    assert len(source.read().alerts) == 1 <= MAX_ALERTS
    assert source.read().more_alerts == 0


def test_the_thread_samples_until_it_is_stopped(simulation, monkeypatch):
    monkeypatch.setattr("watchdog.daemon.status_source.SAMPLE_SECONDS", 0.01)
    source = make_source(simulation)
    run(simulation, CALM, 4, 4)
    source.start()
    simulation.pause.wait(0)
    for _ in range(6_000):
        if chart(source) is not None:
            break
        simulation.pause.wait(0.01)
    assert chart(source).values.shape == (POINTS,)
    source.stop()
    assert not source._thread.is_alive()
