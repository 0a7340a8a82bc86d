"""A daemon learns, dies, and goes on with the limits that it had: pipeline and state file, five minutes a tick."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
from simulated_host import PATIENCE, SimulatedHost

from watchdog.cli.rules import _share_text
from watchdog.clock import local_seconds
from watchdog.control.baseline_handlers import baseline_handlers
from watchdog.daemon.baseline_control import BaselineControl
from watchdog.daemon.explaining import explain
from watchdog.daemon.reload_effects import reload_changes
from watchdog.daemon.rule_states import RuleStates
from watchdog.errors import StoreError, UsageError, WatchdogError
from watchdog.rules.engine import rule_baseline
from watchdog.rules.language.load import load_rules
from watchdog.scheduling.job import ScheduledTick
from watchdog.state.saved_baselines import SavedBaselines
from watchdog.storage.reader import StateReader

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
        return replace(configuration, rules=self.loaded_rules())

    def loaded_rules(self):
        return load_rules([self.rules], receivers=["oncall"]).rules

    def live(self, ticks, most=20):
        random = np.random.default_rng(ticks)
        for _ in range(ticks):
            self.clock.advance(STEP)
            self.kernel.connects = int(random.integers(most // 2, most + 1))
            now_ns = self.clock.boottime_ns()
            self.pipeline.run_tick(ScheduledTick(now_ns, now_ns, 0.0, 0))
            self.settle()

    def settle(self):
        """Return once the outcome of each delivery is recorded: the next tick would be after its time limit."""
        end = time.monotonic() + PATIENCE
        while self.count_pending():
            assert time.monotonic() < end
            time.sleep(0.005)

    def die(self):
        """End like after SIGKILL: nothing more is written."""
        self.settle()
        self.pipeline._delivery.stop(1.0, 0.0)
        self.store.database.close()

    def count_pending(self):
        with self.store.database.transaction() as connection:
            return connection.execute("SELECT count(*) FROM notifications WHERE state = 'pending'").fetchone()[0]

    def ask(self, request, **arguments):
        handler = baseline_handlers(BaselineControl(self.pipeline))[request]
        answer = getattr(handler, "handle", handler)(arguments)
        return json.loads(json.dumps(answer, allow_nan=False))

    def rule(self):
        [rule] = RuleStates(self.pipeline, self.clock).list_rules(self.configuration())
        return rule

    def explain(self, **labels):
        return explain(self.pipeline, StateReader(self.store.database.path), self.clock, "unusual", labels)

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
    found = learning.explain()
    assert found.conclusion.startswith("it does not fire: its baseline learns for ")
    assert 3600 <= found.earliest_seconds <= 3 * 3600
    assert [(one.fire, one.fire_text) for one in found.thresholds] == [(None, "-"), (None, "-")]
    rule = learning.rule()
    assert (rule.worst.share, rule.limit_text, _share_text(asdict(rule), rule.worst.share)) == (None, "-", "learning")
    learning.live(6 * 12)
    found = learning.explain()
    assert found.conclusion.startswith("it does not fire: it fires as soon as its value gets above ")
    assert found.earliest_seconds == 0
    rule = learning.rule()
    assert 0 < rule.worst.share < 1
    assert rule.limit_text == found.thresholds[0].fire_text != "-"


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


@pytest.mark.parametrize("restarts", [False, True])
def test_a_rule_that_was_out_of_force_goes_on_with_its_limits(learning, caplog, restarts):
    caplog.set_level(logging.INFO, "watchdog")
    learning.live(6 * 12 + 1)
    before = learning.group()
    enabled, disabled = (replace(learning.configuration(), rules=rules) for rules in (learning.loaded_rules(), ()))
    learning.pipeline.reload(disabled)
    learning.live(3)
    if restarts:
        learning.configuration = lambda *_: disabled
        learning.die()
        learning.begin()
        learning.live(3)
    learning.pipeline.reload(enabled)
    assert learning.group() == before
    learning.live(1)
    assert "baseline: rule is back, limits in force: rules=unusual learnt_hours=5" in caplog.messages
    learning.live(2, most=2_000)
    assert learning.receiver.notifications[0].alerts[0].rule == "unusual"


def test_a_rule_that_is_back_with_another_definition_learns_anew(learning, caplog):
    caplog.set_level(logging.INFO, "watchdog")
    learning.live(6 * 12 + 1)
    learning.pipeline.reload(replace(learning.configuration(), rules=()))
    learning.floor = 7
    learning.pipeline.reload(learning.configuration())
    learning.live(1)
    assert learning.group().learnt_hours == 0
    assert "baseline: definition changed, learning starts anew: rules=unusual" in caplog.messages


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


# ------------------------------------------------------------------------------------------------------- by commands

CULPRIT = {"process": "culprit"}


def test_baselines_are_shown_while_they_learn_and_after(learning):
    learning.live(12 + 2)
    [rule] = learning.ask("baseline show")["rules"]
    assert (rule["rule"], rule["is_learning"], rule["learn_hours"], rule["groups"]) == ("unusual", True, 3, 1)
    found = learning.explain()
    assert (found.baseline.is_learning, found.baseline.learnt_hours) == (True, rule["learnt_hours"])
    assert found.conclusion.startswith("it does not fire: its baseline learns for ")
    assert (found.thresholds[0].fire_text, found.thresholds[0].clear_text) == ("-", "-")
    learning.live(5 * 12)
    shown = learning.ask("baseline show", rule="unusual")
    assert not shown["rule"]["is_learning"]
    [group] = shown["groups"]
    assert (group["labels"], group["is_new"], group["is_held"]) == (CULPRIT, False, False)
    assert group["limits"]["warning"] > group["highest"] > 0
    assert learning.ask("baseline show", rule="unusual", labels=CULPRIT)["groups"] == [group]
    found = learning.explain(**CULPRIT)
    assert (found.baseline.highest, found.baseline.is_learning) == (group["highest"], False)
    assert learning.explain(process="nobody").baseline.is_known is False


def test_an_accepted_level_ends_its_alert_and_survives_a_crash(learning):
    learning.live(6 * 12)
    learning.live(14, most=300)
    assert learning.receiver.notifications[-1].status == "firing"
    former = learning.group().limits
    assert learning.ask("baseline accept", rule="unusual", labels=CULPRIT)["groups"] == 1
    learning.live(2, most=300)
    [alert] = learning.receiver.notifications[-1].alerts
    assert (alert.resolved is not None, alert.reason) == (True, "new normal")
    learning.die()
    learning.begin("storm")
    assert all(learning.group().limits[severity] > 2 * limit for severity, limit in former.items())


def test_a_held_group_adopts_no_level_until_it_is_released(learning):
    learning.live(6 * 12)
    learning.ask("baseline hold", rule="unusual", labels=CULPRIT)
    learning.live(30 * 12, most=2_000)
    assert learning.explain().state == "firing"
    [group] = learning.ask("baseline show", rule="unusual")["groups"]
    assert group["is_held"]
    learning.ask("baseline release", rule="unusual")
    learning.live(26 * 12, most=2_000)
    assert learning.explain().state == "inactive"


def test_a_release_keeps_the_new_levels_of_groups_that_were_not_held(learning):
    learning.live(6 * 12)
    learning.live(5 * 12, most=2_000)
    hours = learning.group().record_hours
    assert hours
    learning.ask("baseline release", rule="unusual")
    assert learning.group().record_hours == hours


def test_a_forgotten_rule_learns_anew_also_after_a_crash(learning):
    learning.live(6 * 12)
    assert learning.ask("baseline forget", rule="unusual")["groups"] == 1
    learning.live(1, most=2_000)
    assert learning.receiver.notifications == []
    learning.die()
    learning.begin("storm")
    learning.live(1, most=2_000)
    [rule] = learning.ask("baseline show")["rules"]
    assert (rule["is_learning"], rule["learnt_hours"]) == (True, 0)
    assert learning.receiver.notifications == []


def test_a_change_within_the_end_of_an_hour_hits_its_own_group(learning, monkeypatch):
    monkeypatch.setattr(rule_baseline, "_MIN_CLOSED_ROWS", 0)
    learning.live(12 * 12)
    learning.kernel.comm = b"other"
    learning.live(9 * 12)
    baseline = learning.pipeline._engine.baselines.of("unusual")
    for seconds in range(3_600):  # to the first tick of an hour, before all groups are closed
        learning.clock.advance(1)
        if int(local_seconds(learning.clock.wall())) % 3_600 == 0:
            break
        assert seconds < 3_599
    baseline.groups.unseen_days[0] = 100  # to be dropped at the end of this hour
    now_ns = learning.clock.boottime_ns()
    baseline.end_hours(local_seconds(learning.clock.wall()), now_ns, is_measured=True)
    assert len(baseline.groups) == 2  # the first one is dropped when the hour is closed
    learning.ask("baseline forget", rule="unusual", labels={"process": "other"})
    assert learning.pipeline._engine.baselines.describe("unusual", (("process", "other"),)) is None


@pytest.mark.parametrize(
    ("request_name", "arguments", "error", "message"),
    [
        ("accept", {"rule": "unusul"}, UsageError, 'unknown rule "unusul": did you mean "unusual"'),
        ("accept", {}, UsageError, "rule is missing"),
        ("show", {"labels": CULPRIT}, UsageError, "rule is missing"),
        ("forget", {"rule": "unusual", "labels": {"proces": "x"}}, UsageError, 'did you mean "process"'),
        ("hold", {"rule": "unusual", "labels": {"process": "nobody"}}, WatchdogError, "knows no group process=nobody"),
        ("show", {"rule": "unusual", "labels": {"process": "nobody"}}, WatchdogError, "knows no group process=nobody"),
        ("show", {"rule": "unusual", "group": "x"}, UsageError, "unknown argument"),
    ],
)
def test_requests_on_no_baseline_are_refused(learning, request_name, arguments, error, message):
    learning.live(3)
    with pytest.raises(error, match=message):
        learning.ask(f"baseline {request_name}", **arguments)


def test_a_change_by_hand_is_logged_with_its_group(learning, caplog):
    caplog.set_level(logging.INFO, "watchdog")
    learning.live(12 + 2)
    learning.ask("baseline hold", rule="unusual", labels=CULPRIT)
    assert "baseline changed by hand: action=hold rule=unusual group=process=culprit count=1" in caplog.messages
