"""The effects of a reload on firing alerts, as `reload --dry-run` shows them, and as they come true."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulated_host import CALM, STORM, FakeReceiver, SimulatedHost

from watchdog.daemon.reload_effects import reload_changes
from watchdog.rules.language.rule import Severity, Thresholds

SECOND_NS = 1_000_000_000


@pytest.fixture
def simulation(tmp_path, clock):
    simulation = SimulatedHost(tmp_path, clock)
    simulation.repeat_seconds = 3_600
    simulation.others = {"chat": FakeReceiver("chat")}
    yield simulation
    simulation.receiver.answering.set()
    simulation.pipeline.stop()


@pytest.fixture
def firing(simulation):
    """Return the configuration in force, with its rule firing at 10/s."""
    configuration = simulation.configuration("storm")
    simulation.pipeline.reload(configuration)
    for connects in [CALM, *[STORM] * 7]:
        simulation.tick(connects)
    return configuration


def changed(configuration, **changes):
    [rule] = configuration.rules
    return replace(configuration, rules=(replace(rule, **changes),))


def limits(warning, critical=None, clear=None):
    fire = {Severity.WARNING: warning} | ({} if critical is None else {Severity.CRITICAL: critical})
    return Thresholds(True, fire, {one: limit if clear is None else clear for one, limit in fire.items()})


def effects(simulation, former, new):
    answer = reload_changes(simulation.pipeline, former, new, (), dry_run=True)
    return [(one.rule, one.effect, one.detail) for one in answer.alerts]


def alerts(simulation):
    with simulation.pipeline.view() as view:
        return [(alert.severity, alert.receivers) for alert in view.lifecycle.firing_alerts().values()]


def test_the_same_files_change_nothing(simulation, firing):
    assert effects(simulation, firing, simulation.configuration("storm")) == []
    answer = reload_changes(simulation.pipeline, firing, simulation.configuration("storm", "other"), (), dry_run=True)
    assert (answer.added, answer.changed, answer.removed, answer.rules) == (("other",), (), (), 2)


def test_a_raised_limit_resolves_the_alert_and_it_does(simulation, firing):
    new = changed(firing, thresholds=limits(50), keep_firing_for_ns=2 * SECOND_NS)
    assert effects(simulation, firing, new) == [
        ("storm", "resolves", "its value is below 50/s after keep_firing_for of 2s")
    ]
    simulation.pipeline.reload(new)
    for _ in range(4):
        simulation.tick(STORM)
    assert alerts(simulation) == []


def test_a_limit_between_fire_and_clear_changes_nothing(simulation, firing):
    assert effects(simulation, firing, changed(firing, thresholds=limits(50, clear=8))) == []


def test_a_lowered_critical_limit_raises_the_severity_and_it_does(simulation, firing):
    new = changed(firing, thresholds=limits(5, critical=8), for_ns=0)
    assert effects(simulation, firing, new) == [("storm", "changes severity", "warning to critical")]
    simulation.pipeline.reload(new)
    simulation.tick(STORM)
    assert [severity for severity, _ in alerts(simulation)] == [Severity.CRITICAL]


def test_a_removed_rule_and_other_labels_resolve_the_alert(simulation, firing):
    assert effects(simulation, firing, simulation.configuration("other")) == [("storm", "resolves", "rule removed")]
    assert effects(simulation, firing, changed(firing, by=("process", "unit"))) == [
        ("storm", "resolves", "rule changed")
    ]


def test_another_window_begins_again(simulation, firing):
    assert effects(simulation, firing, changed(firing, window_ns=60 * SECOND_NS)) == [
        ("storm", "begins again", "its window starts anew: nothing changes until it is filled after 1m")
    ]


def test_other_receivers_are_named(simulation, firing):
    assert effects(simulation, firing, changed(firing, receivers=("chat",))) == [
        ("storm", "changes receivers", "-oncall +chat")
    ]
    assert effects(simulation, firing, changed(firing, receivers=("chat", "oncall"))) == [
        ("storm", "changes receivers", "+chat")
    ]
