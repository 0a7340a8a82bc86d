"""A daemon learns, dies, and goes on with the limits that it had: pipeline and state file, five minutes a tick."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import numpy as np
import pytest
from simulated_host import PATIENCE, SimulatedHost

from watchdog.clock import local_seconds
from watchdog.daemon.explaining import explain
from watchdog.daemon.reload_effects import reload_changes
from watchdog.errors import StoreError
from watchdog.rules.language.load import load_rules
from watchdog.scheduling.job import ScheduledTick
from watchdog.state.saved_baselines import SavedBaselines

STEP = 300
RULE = """
[[rule]]
id = "unusual"
summary = "{process} opens {value}, usually {usual}, {rarity}, {learnt}"
metric = "connects"
stat = "sum"
window = "10m"
by = ["process"]

[rule.baseline]
floor = FLOOR
learn = "3h"
"""


class LearningHost(SimulatedHost):
    """A host whose only rule has a baseline."""

    floor = 5

    def configuration(self, *rules):
        configuration = super().configuration(*rules)
        self.rules.write_text(RULE.replace("FLOOR", str(self.floor)))
        return replace(configuration, rules=load_rules([self.rules], receivers=["oncall"]).rules)

    def live(self, ticks, most=20):
        random = np.random.default_rng(ticks)
        for _ in range(ticks):
            self.clock.advance(STEP)
            self.kernel.connects = int(random.integers(most // 2, most + 1))
            now_ns = self.clock.boottime_ns()
            self.pipeline.run_tick(ScheduledTick(now_ns, now_ns, 0.0, 0))
        self.settle()

    def die(self):
        """End like after SIGKILL: nothing more is written. The outcome of each delivery is recorded before."""
        end = time.monotonic() + PATIENCE
        while self.count_pending():
            assert time.monotonic() < end
            time.sleep(0.005)
        self.pipeline._delivery.stop(1.0, 0.0)
        self.store.database.close()

    def count_pending(self):
        with self.store.database.transaction() as connection:
            return connection.execute("SELECT count(*) FROM notifications WHERE state = 'pending'").fetchone()[0]

    def group(self):
        return self.pipeline._engine.baselines.describe("unusual", (("process", "culprit"),))


@pytest.fixture
def learning(tmp_path, clock):
    host = LearningHost(tmp_path, clock)
    yield host
    host.pipeline.stop()


def test_limits_survive_a_crash_and_fire_at_once(learning):
    learning.live(6 * 12)
    before = learning.group()
    assert before.learnt_hours >= 4
    learning.die()
    learning.begin("storm")
    assert learning.group() == before
    learning.live(2)
    assert learning.receiver.notifications == []
    learning.live(2, most=2_000)
    notification = learning.receiver.notifications[0]
    assert "expected less than once in" in notification.alerts[0].reason


def test_an_explanation_has_the_time_left_to_learn(learning):
    learning.live(12)
    found = explain(learning.pipeline, learning.clock, "unusual", {})
    assert found.conclusion.startswith("it does not fire: its baseline learns for ")
    assert 3600 <= found.earliest_seconds <= 3 * 3600
    assert [(one.fire, one.fire_text) for one in found.thresholds] == [(None, "-"), (None, "-")]
    learning.live(6 * 12)
    found = explain(learning.pipeline, learning.clock, "unusual", {})
    assert found.conclusion.startswith("it does not fire: it fires 0s after its value gets above ")
    assert found.earliest_seconds == 0


def test_a_stop_keeps_the_hour_too(learning):
    learning.live(6 * 12 + 6)
    baseline = learning.pipeline._engine.baselines.of("unusual")
    highest, covered = baseline.columns.highest[0], baseline.hour.covered_seconds
    learning.pipeline.stop()
    learning.begin("storm")
    baseline = learning.pipeline._engine.baselines.of("unusual")
    assert (baseline.columns.highest[0], baseline.hour.covered_seconds) == (highest, covered)
    assert covered > 0


def test_an_alert_keeps_its_sentence_and_its_limit_over_a_crash(learning):
    learning.live(6 * 12)
    learning.live(1, most=2_000)
    [alert] = learning.receiver.notifications[0].alerts
    learning.die()
    learning.begin("storm")
    learning.live(14, most=8)  # clears for an hour
    resolved = learning.receiver.notifications[-1].alerts[0]
    assert resolved.resolved is not None
    assert (resolved.threshold, resolved.threshold_text) == (alert.threshold, alert.threshold_text)


def test_a_changed_floor_starts_anew_and_the_log_has_it(learning, caplog):
    caplog.set_level(logging.INFO, "watchdog")
    learning.live(6 * 12)
    former = learning.configuration("storm")
    learning.floor = 7
    changed = learning.configuration("storm")
    answer = reload_changes(learning.pipeline, former, changed, (), dry_run=True)
    assert "learning starts anew" in answer.notes[0]
    learning.pipeline.reload(changed)
    learning.live(1)
    assert "baseline: definition changed, learning starts anew: rules=unusual" in caplog.messages
    assert learning.group().learnt_hours == 0


def test_a_disk_that_takes_no_baseline_costs_no_alert(learning, monkeypatch, caplog):
    def fail(*_):
        raise StoreError("disk full")

    monkeypatch.setattr(SavedBaselines, "save", fail)
    learning.live(6 * 12)
    learning.live(2, most=2_000)
    assert learning.receiver.notifications[0].alerts[0].rule == "unusual"
    assert "baselines not saved, a restart would lose the newest hours: error=disk full" in caplog.messages


def test_local_time_follows_the_zone_of_the_host(monkeypatch):
    for zone, offset in (("UTC", 0), ("Asia/Kolkata", 5.5), ("America/St_Johns", -2.5)):
        monkeypatch.setenv("TZ", zone)
        assert local_seconds(1_750_000_000.0) == 1_750_000_000 + offset * 3600
    monkeypatch.setenv("TZ", "Europe/Berlin")
    winter, summer = 1_761_440_400.0, 1_761_436_800.0  # around the end of summer time
    assert local_seconds(winter) == local_seconds(summer)
