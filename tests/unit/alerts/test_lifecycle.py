"""The life of alerts, tick by tick."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import factories
from watchdog.alerts import wording
from watchdog.alerts.alert import AlertState, TransitionKind, fingerprint
from watchdog.alerts.instance import AlertInstance
from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import Now
from watchdog.rules.engine.contributor_values import LeftOutGroups
from watchdog.rules.engine.engine import OVERFLOW_LABELS, Verdict
from watchdog.rules.language import template
from watchdog.rules.language.rule import Severity, Thresholds

SECOND_NS = 1_000_000_000
WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL
LABELS = (("process", "nginx"),)
UNKNOWN = "unknown"


def rule(
    name="storm",
    for_seconds=0,
    keep_seconds=0,
    critical=None,
    above=True,
    summary="{process}: {value}",
    by=("process",),
):
    fire = {WARNING: 100.0, CRITICAL: critical}
    clear = {WARNING: 60.0, CRITICAL: 300.0}
    fire = {severity: limit for severity, limit in fire.items() if limit is not None}
    return factories.make_rule(
        name,
        by=by,
        for_seconds=for_seconds,
        keep_firing_for_seconds=keep_seconds,
        summary=template.parse_summary(summary, by, "rate"),
        thresholds=Thresholds(above, fire, {severity: clear[severity] for severity in fire}),
        receivers=("oncall",),
        runbook="https://example.net/runbook",
    )


class Life:
    """A lifecycle of one rule with one instance; each given value is its value in the next tick."""

    def __init__(self, new_rule, lifecycle=None):
        self.rule = new_rule
        self.lifecycle = lifecycle or Lifecycle("web1")
        self.at_ns, self.wall = 1_000 * SECOND_NS, 5_000.0
        self.lifecycle.restore([], [new_rule], self.at_ns, 0, 0)

    def verdict(self, value, labels=LABELS, reason=""):
        if value == UNKNOWN:
            return Verdict(self.rule, labels, False, 0.0, None, None, "input incomplete")
        limits = self.rule.thresholds
        fires = [severity for severity, limit in limits.fire.items() if value > limit]
        holds = [severity for severity, limit in limits.clear.items() if value >= limit]
        return Verdict(self.rule, labels, True, value, max(fires, default=None), max(holds, default=None), reason)

    def tick(self, *values, seconds=1, **options):
        """Run a tick of `seconds` for each value; return the kinds of the transitions."""
        kinds = []
        for value in values:
            self.transitions = self.advance([self.verdict(value, **options)], seconds)
            kinds += [transition.kind.value for transition in self.transitions]
        return kinds

    def advance(self, verdicts, seconds=1):
        self.at_ns += seconds * SECOND_NS
        self.wall += seconds
        return self.lifecycle.advance(verdicts, Now(self.at_ns, self.wall))

    @property
    def alert(self):
        return self.lifecycle.firing_alerts().get(fingerprint(self.rule.id, LABELS))


# for


def test_without_for_an_instance_fires_at_once():
    assert Life(rule()).tick(101) == ["firing"]


def test_an_instance_is_pending_for_the_whole_of_for():
    life = Life(rule(for_seconds=3))
    assert life.tick(101, 101, 101) == []
    assert life.alert is None
    assert life.lifecycle.active_keys() == [("storm", LABELS)]
    assert life.tick(101) == ["firing"]


def test_false_while_pending_removes_the_instance_without_a_transition():
    life = Life(rule(for_seconds=2))
    assert life.tick(101, 101, 99) == []
    assert life.lifecycle.active_keys() == []
    assert life.tick(101, 101) == []
    assert life.tick(101) == ["firing"]


def test_a_pending_value_must_be_over_the_fire_threshold_not_just_the_clear_threshold():
    assert Life(rule(for_seconds=2)).tick(101, 80, 101, 101) == []


def test_unknown_time_does_not_count_for_for():
    life = Life(rule(for_seconds=2))
    assert life.tick(101, UNKNOWN, UNKNOWN, UNKNOWN, 101) == []
    assert life.tick(101) == ["firing"]


def test_an_instance_that_was_never_true_is_not_kept():
    life = Life(rule())
    life.tick(99, UNKNOWN)
    assert life.lifecycle.active_keys() == []
    assert life.lifecycle.take_changes() == []


# keep_firing_for


def test_without_keep_firing_for_an_alert_resolves_as_soon_as_it_clears():
    assert Life(rule()).tick(101, 60, 59) == ["firing", "resolved"]


def test_an_alert_fires_on_for_the_whole_of_keep_firing_for():
    life = Life(rule(keep_seconds=3))
    assert life.tick(101, 59, 59, 59) == ["firing"]
    assert life.alert.state is AlertState.FIRING
    assert life.tick(59) == ["resolved"]
    assert life.alert is None


@pytest.mark.parametrize("value", [60, 101])
def test_true_during_keep_firing_for_starts_it_again(value):
    life = Life(rule(keep_seconds=2))
    assert life.tick(101, 59, 59, value, 59, 59) == ["firing"]
    assert life.tick(59) == ["resolved"]


def test_unknown_time_does_not_count_for_keep_firing_for():
    life = Life(rule(keep_seconds=2))
    assert life.tick(101, 59, UNKNOWN, UNKNOWN, UNKNOWN, 59) == ["firing"]
    assert life.tick(59) == ["resolved"]


def test_unknown_never_resolves():
    assert Life(rule()).tick(101, *[UNKNOWN] * 50) == ["firing"]


def test_an_instance_without_a_verdict_keeps_its_state():
    life = Life(rule(keep_seconds=2))
    life.tick(101, 59)
    assert life.advance([], seconds=50) == []
    assert life.tick(59) == []
    assert life.tick(59) == ["resolved"]


def test_a_step_of_the_wall_clock_changes_no_timer():
    life = Life(rule(for_seconds=2, keep_seconds=2))
    life.tick(101)
    life.wall += 3600
    assert life.tick(101) == []
    life.wall -= 7200
    assert life.tick(101, 59, 59) == ["firing"]
    life.wall += 3600
    assert life.tick(59) == ["resolved"]


# Severities


def test_critical_from_the_start_is_one_alert():
    assert Life(rule(critical=500)).tick(501) == ["firing"]


def test_severity_rises_when_critical_was_true_for_its_own_for():
    life = Life(rule(critical=500, for_seconds=2))
    assert life.tick(101, 101, 501) == ["firing"]
    assert life.alert.severity is WARNING
    assert life.tick(501) == []
    assert life.tick(501) == ["severity raised"]
    assert life.alert.severity is CRITICAL


def test_severity_falls_when_critical_was_clear_for_keep_firing_for():
    life = Life(rule(critical=500, keep_seconds=2))
    assert life.tick(501, 300, 299, 299) == ["firing"]
    assert life.tick(299) == ["severity lowered"]
    assert (life.alert.severity, life.alert.threshold) == (WARNING, 100)
    assert life.alert.reason == "value below 300/s for 2s"


def test_critical_that_falls_to_zero_resolves_once():
    life = Life(rule(critical=500, keep_seconds=2))
    assert life.tick(501, 0, 0, 0) == ["firing", "resolved"]
    assert life.transitions[0].alert.severity is CRITICAL


def test_a_breach_in_an_incomplete_tick_counts():
    life = Life(rule(critical=500, keep_seconds=1))
    life.tick(501)
    part = Verdict(life.rule, LABELS, False, 120.0, WARNING, WARNING, "input incomplete")
    assert [life.advance([part]) for _ in range(5)] == [[]] * 5
    assert (life.alert.severity, life.alert.value) == (CRITICAL, 120)


# Content of the alert


def test_a_firing_alert_has_every_field():
    life = Life(
        rule(for_seconds=2, summary="{process} on {host}: {value} over {threshold} for {since:seconds} ({severity})")
    )
    life.tick(150, 120, 130)
    alert = life.transitions[0].alert
    assert alert == life.alert
    assert alert.summary == "nginx on web1: 130/s over 100/s for 2 s (warning)"
    assert (alert.value, alert.peak, alert.threshold, alert.format) == (130, 130, 100, "rate")
    assert (alert.started, alert.fired, alert.resolved) == (5001, 5003, None)
    assert alert.reason == "value above 100/s for 2s"
    assert (alert.receivers, alert.runbook) == (("oncall",), "https://example.net/runbook")


def test_value_peak_and_summary_are_those_of_the_newest_tick():
    life = Life(rule())
    life.tick(150, 400, 120)
    assert (life.alert.value, life.alert.peak, life.alert.summary) == (120, 400, "nginx: 120/s")


def test_the_peak_of_a_fire_below_rule_is_its_minimum():
    life = Life(rule(above=False))
    for value in (5.0, 2.0, 3.0):
        life.advance([Verdict(life.rule, LABELS, True, value, WARNING, WARNING, "")])
    assert life.alert.peak == 2


def test_a_resolved_alert_has_the_value_at_clear_the_peak_and_the_reason():
    life = Life(rule(keep_seconds=2))
    life.tick(150, 400, 50, 40, 30)
    alert = life.transitions[0].alert
    assert (alert.state, alert.value, alert.peak, alert.resolved) == (AlertState.RESOLVED, 30, 400, 5005)
    assert (alert.fired, alert.reason) == (5001, "value below 60/s for 2s")


def test_an_alert_of_an_exited_process_has_that_reason_and_its_last_value():
    life = Life(rule())
    life.tick(150)
    life.tick(math.nan, reason="nothing to measure")
    alert = life.transitions[0].alert
    assert (alert.state, alert.value, alert.reason) == (AlertState.RESOLVED, 150, "nothing to measure")


def test_an_unknown_value_is_not_shown():
    life = Life(rule())
    life.tick(150, UNKNOWN)
    assert life.alert.value == 150


def test_the_overflow_alert_has_the_number_of_further_instances():
    life = Life(rule())
    life.advance([Verdict(life.rule, OVERFLOW_LABELS, True, 1234.0, WARNING, WARNING, "")])
    (alert,) = life.lifecycle.firing_alerts().values()
    assert (alert.labels, alert.summary) == (OVERFLOW_LABELS, "1,234 more instances of storm fire")


@pytest.mark.parametrize(
    ("labels", "user", "unit", "ending"),
    [
        ({"process": "sshd"}, "nobody", "ssh.service", " (user nobody)"),
        ({"process": "sshd"}, "nobody", "", " (user nobody)"),
        ({"process": "redis"}, "redis", "redis.service", ""),
        ({"process": "redis"}, "redis", "user@1000/redis.service", " (user redis)"),
        ({"process": "sshd"}, "root", "ssh.service", ""),
        ({"user": "nobody"}, "nobody", "", ""),
        ({"process": "(unattributed)"}, "", "", ""),
    ],
)
def test_a_summary_ends_with_the_account_unless_that_is_expected(labels, user, unit, ending):
    assert wording.account_text(labels, user, unit) == ending


def test_an_alert_has_the_account_of_its_evidence_in_the_summary_as_long_as_it_lasts():
    life = Life(rule())
    life.advance([life.verdict(101)])
    (instance,) = life.lifecycle.instances_needing_evidence()
    top = factories.make_top_process(user="nobody", unit="ssh.service")
    instance.add_evidence(factories.make_evidence(top_process=top))
    assert instance.alert.summary.endswith(" (user nobody)")
    life.advance([life.verdict(102)])
    assert instance.alert.summary.count("(user nobody)") == 1
    after = restarted(life)
    assert after.alert.summary == instance.alert.summary


def test_the_summary_of_an_overflow_has_its_users():
    life = Life(rule())
    life.advance([Verdict(life.rule, OVERFLOW_LABELS, True, 30.0, WARNING, WARNING, "")])
    (instance,) = life.lifecycle.instances_needing_evidence()
    left_out = LeftOutGroups((), (("games", 20), ("", 3)), 4)
    instance.add_evidence(factories.make_evidence(left_out=left_out))
    assert instance.alert.summary == "30 more instances of storm fire (by user: games 20, - 3 and 2 other users)"


def test_an_instance_that_gives_way_to_a_worse_one_ends_with_that_reason():
    life = Life(rule())
    life.advance([life.verdict(101)])
    (transition,) = life.advance([replace(life.verdict(102), is_displaced=True)])
    assert (transition.kind, transition.alert.reason) == (
        TransitionKind.RESOLVED,
        "in the overflow alert: worse instances fire",
    )
    assert life.lifecycle.active_keys() == []


def test_a_pending_instance_that_gives_way_ends_without_a_transition():
    life = Life(rule(for_seconds=60))
    life.advance([life.verdict(101)])
    assert life.advance([replace(life.verdict(102), is_displaced=True)]) == []
    assert life.lifecycle.active_keys() == []


def test_instances_of_one_rule_are_independent():
    life = Life(rule())
    other = (("process", "redis"),)
    life.advance([life.verdict(101), life.verdict(101, labels=other)])
    (transition,) = life.advance([life.verdict(0), life.verdict(101, labels=other)])
    assert (transition.kind, transition.alert.labels) == (TransitionKind.RESOLVED, LABELS)
    assert life.lifecycle.active_keys() == [("storm", other)]


# Restart


def restarted(life, new_rule=None, shift_seconds=0, down_seconds=0):
    """Return a new lifecycle that was restored from the JSON of this one, as the store does."""
    saved = {}
    for key, state in life.lifecycle.take_changes():
        saved[key] = json.loads(json.dumps(state))
    after = Life(new_rule or life.rule)
    after.at_ns, after.wall = life.at_ns + (shift_seconds + down_seconds) * SECOND_NS, life.wall + down_seconds
    rules = [after.rule] if new_rule is not False else []
    after.lifecycle = Lifecycle("web1")
    states = [state for state in saved.values() if state is not None]
    after.lifecycle.restore(states, rules, after.at_ns, shift_seconds * SECOND_NS, down_seconds * SECOND_NS)
    return after


def test_an_alert_that_fired_before_a_restart_fires_on_without_a_transition():
    life = Life(rule(keep_seconds=1))
    life.tick(150)
    after = restarted(life)
    assert after.lifecycle.firing_alerts() == life.lifecycle.firing_alerts()
    assert after.tick(UNKNOWN, 150, 59) == []
    assert after.tick(59) == ["resolved"]
    assert after.transitions[0].alert.fired == 5001


def test_timers_go_on_after_a_restart():
    life = Life(rule(for_seconds=3))
    life.tick(150, 150)
    after = restarted(life)
    assert after.tick(150) == []
    assert after.tick(150) == ["firing"]


def test_timers_survive_a_reboot():
    life = Life(rule(keep_seconds=3))
    life.tick(150, 59)
    after = restarted(life, shift_seconds=-900)
    assert after.tick(59, 59) == []
    assert after.tick(59) == ["resolved"]


@pytest.mark.parametrize("shift_seconds", [0, -900], ids=["same boot", "another boot"])
def test_the_time_between_two_daemons_counts_for_no_timer(shift_seconds):
    pending, clearing = Life(rule(for_seconds=600)), Life(rule(keep_seconds=600))
    pending.tick(150)
    clearing.tick(150, 59)
    pending, clearing = (restarted(life, None, shift_seconds, 7_200) for life in (pending, clearing))

    assert pending.tick(150, 150, seconds=299) == []
    assert pending.tick(150, 150) == ["firing"]
    assert clearing.tick(59, 59, seconds=299) == []
    assert clearing.tick(59, 59) == ["resolved"]


def test_unreadable_instances_are_counted_at_a_restart_and_do_not_affect_others():
    life = Life(rule())
    life.tick(150)
    [(_, state)] = life.lifecycle.take_changes()
    spoiled = [
        {},
        state | {"severity_timers": {"dire": {}}},
        state | {"labels": [["process"]]},
        state | {"value": None},
        ["x"],
    ]
    after = Life(rule())

    assert after.lifecycle.restore([*spoiled, state], [life.rule], after.at_ns, 0, 0) == 5
    assert after.alert == life.alert


def test_an_infinite_ratio_survives_a_restart():
    life = Life(rule())
    life.tick(math.inf)
    [(_, state)] = life.lifecycle.take_changes()
    life.lifecycle.restore([json.loads(json.dumps(state, allow_nan=False))], [life.rule], life.at_ns, 0, 0)

    assert (life.alert.value, life.alert.peak) == (math.inf, math.inf)
    assert life.tick(59) == ["resolved"]
    assert life.transitions[0].alert.peak == math.inf


@pytest.mark.parametrize(("values", "has_running_timer"), [([150], True), ([150] * 3, False), ([150] * 3 + [59], True)])
def test_a_timer_runs_while_it_is_pending_and_while_it_clears(values, has_running_timer):
    life = Life(rule(for_seconds=2, keep_seconds=2))
    assert not life.lifecycle.has_running_timer
    life.tick(*values)
    assert life.lifecycle.has_running_timer is has_running_timer


def test_an_alert_that_fails_does_not_affect_others_and_its_transition_comes_with_the_next_tick(monkeypatch):
    life = Life(rule())
    others = [(("process", name),) for name in ("a", "b")]
    tell = AlertInstance.update_alert

    def fail_for_a(instance, *rest):
        if instance.labels == others[0]:
            raise RuntimeError("defect")
        return tell(instance, *rest)

    monkeypatch.setattr(AlertInstance, "update_alert", fail_for_a)
    transitions = life.advance([life.verdict(150, labels) for labels in others])
    [failure] = life.lifecycle.take_failures()
    assert [(t.kind, t.alert.labels) for t in transitions] == [(TransitionKind.FIRING, others[1])]
    assert (str(failure), failure.__notes__) == ("defect", ["with an alert of rule storm"])
    monkeypatch.undo()
    transitions = life.advance([life.verdict(150, labels) for labels in others])

    assert [(t.kind, t.alert.labels) for t in transitions] == [(TransitionKind.FIRING, others[0])]
    assert life.lifecycle.take_failures() == []


@pytest.mark.parametrize("value", [150, 10], ids=["firing", "resolved"])
def test_an_alert_with_a_failing_summary_gets_the_fallback_with_the_error(monkeypatch, value):
    life = Life(rule())
    life.tick(*[150] * (value == 10))

    def fail(*_):
        raise KeyError("unit")

    monkeypatch.setattr(template, "render_template", fail)
    assert life.tick(value) == ["firing" if value == 150 else "resolved"]
    [failure] = life.lifecycle.take_failures()

    words = f"storm is at {value}/s (limit 100/s; its summary failed: KeyError: 'unit')"
    assert life.transitions[0].alert.summary == words
    assert (type(failure), failure.__notes__) == (KeyError, ["in the summary of rule storm"])


# Saved state


def test_a_peak_is_saved_when_it_has_grown_and_restored_after_a_restart():
    life = Life(rule())
    saved = {}
    for value in (150, 400, 401, 120):
        life.tick(value)
        saved |= life.lifecycle.take_changes()
    after = Life(life.rule)
    after.lifecycle.restore(saved.values(), [life.rule], after.at_ns, 0, 0)
    after.tick(50)

    assert 396 <= after.transitions[0].alert.peak <= 401
    assert after.transitions[0].alert.value == 50


def test_a_peak_that_rises_slowly_is_not_saved_each_tick():
    life = Life(rule())
    writes = 0
    for number in range(1_000):
        life.tick(1_000 + number)
        writes += bool(life.lifecycle.take_changes())

    assert writes < 75  # one write per hundredth


def test_the_duration_of_an_alert_does_not_come_from_the_wall_clock():
    life = Life(rule())
    life.tick(150)
    life.wall += 3_600
    life.tick(150, 50)

    assert life.transitions[0].alert.duration_seconds == 2
    assert life.transitions[0].alert.resolved - life.transitions[0].alert.started == 3_602


def test_an_alert_of_a_removed_rule_is_resolved_after_a_restart():
    life = Life(rule())
    life.tick(150)
    after = restarted(life, rule("other"))
    assert [alert.state for alert in after.lifecycle.firing_alerts().values()] == [AlertState.FIRING]
    assert [(t.kind, t.alert.reason, t.alert.resolved) for t in after.advance([])] == [
        (TransitionKind.RESOLVED, "rule removed", 5002)
    ]
    assert after.lifecycle.firing_alerts() == {}
    assert after.lifecycle.take_changes() == [(fingerprint("storm", LABELS), None)]
    assert after.advance([]) == []


def test_changes_are_those_since_the_last_call():
    life, key = Life(rule(for_seconds=1, keep_seconds=5)), fingerprint("storm", LABELS)
    seen = []
    for value in (101, 101, 101.5, 101.9, 59, 59, 101, 101):
        life.tick(value)
        seen.append([name for name, _ in life.lifecycle.take_changes()])
    assert seen == [[key], [key], [], [], [key], [], [key], []]


def test_a_removed_instance_is_returned_once():
    life = Life(rule())
    life.tick(101)
    life.lifecycle.take_changes()
    life.tick(59)
    assert life.lifecycle.take_changes() == [(fingerprint("storm", LABELS), None)]
    assert life.lifecycle.take_changes() == []


# Reload


def reload(life, new_rule):
    life.rule = new_rule
    life.lifecycle.replace_rules([new_rule])


def test_a_reload_of_the_same_rules_keeps_timers():
    life = Life(rule(for_seconds=2))
    life.tick(101, 101)
    reload(life, rule(for_seconds=2))
    assert life.tick(101) == ["firing"]


def test_a_rule_with_other_thresholds_keeps_its_instances():
    life = Life(rule(keep_seconds=5))
    life.tick(150)
    reload(life, rule(critical=140))
    assert life.tick(150) == ["severity raised"]


def test_alerts_get_the_receivers_of_a_new_rule_at_once():
    life = Life(rule())
    life.tick(150)
    reload(life, replace(rule(), receivers=("other",)))
    assert life.alert.receivers == ("other",)


def test_a_removed_rule_resolves_its_alerts_and_drops_pending_instances():
    life = Life(rule())
    life.tick(150)
    life.lifecycle.replace_rules([])
    assert [(t.kind, t.alert.reason) for t in life.advance([])] == [(TransitionKind.RESOLVED, "rule removed")]
    pending = Life(rule(for_seconds=9))
    pending.tick(150)
    pending.lifecycle.replace_rules([])
    assert pending.advance([]) == []
    assert pending.lifecycle.active_keys() == []


def test_a_rule_by_other_dimensions_resolves_its_earlier_alerts():
    life = Life(rule())
    life.tick(150)
    reload(life, rule(by=("process", "unit")))
    assert [(t.kind, t.alert.reason) for t in life.advance([])] == [(TransitionKind.RESOLVED, "rule changed")]


def test_a_severity_that_a_rule_no_longer_has_is_lowered():
    life = Life(rule(critical=500))
    life.tick(600)
    reload(life, rule())
    assert life.tick(600) == ["severity lowered"]
    assert life.alert.reason == "rule changed"


# Everything against a small model

_STEPS = st.lists(st.tuples(st.sampled_from([0.0, 80.0, 150.0, 400.0, 600.0, UNKNOWN]), st.integers(1, 4)), max_size=40)


class Model:
    """One severity, with counters of known time instead of times that are shifted."""

    def __init__(self, fire, clear, for_seconds, keep_seconds):
        self.fire, self.clear, self.for_seconds, self.keep_seconds = fire, clear, for_seconds, keep_seconds
        self.state, self.counted = "inactive", 0

    def step(self, value, seconds):
        if value == UNKNOWN:
            return
        if self.state == "inactive" and value > self.fire:
            self.state, self.counted = "pending", -seconds
        if self.state == "pending":
            self.counted += seconds
            if value <= self.fire:
                self.state = "inactive"
            elif self.counted >= self.for_seconds:
                self.state, self.counted = "active", None
        elif self.state == "active":
            if value >= self.clear:
                self.counted = None
            else:
                self.counted = 0 if self.counted is None else self.counted + seconds
                if self.counted >= self.keep_seconds:
                    self.state = "inactive"


@given(
    steps=_STEPS,
    for_seconds=st.integers(0, 5),
    keep_seconds=st.integers(0, 5),
    restart=st.integers(0, 40),
    reload_at=st.integers(0, 40),
)
def test_any_history_has_the_severities_of_a_small_model(steps, for_seconds, keep_seconds, restart, reload_at):
    life = Life(rule(for_seconds=for_seconds, keep_seconds=keep_seconds, critical=500))
    models = {WARNING: Model(100, 60, for_seconds, keep_seconds), CRITICAL: Model(500, 300, for_seconds, keep_seconds)}
    was = None
    for number, (value, seconds) in enumerate(steps):
        if number == restart:
            life = restarted(life)
        if number == reload_at:
            reload(life, life.rule)
        kinds = life.tick(value, seconds=seconds)
        for model in models.values():
            model.step(value, seconds)
        now = max((severity for severity, model in models.items() if model.state == "active"), default=None)
        assert (life.alert.severity if life.alert else None) == now
        expected = {
            (False, False): [],
            (False, True): ["firing"],
            (True, False): ["resolved"],
            (True, True): [] if was == now else ["severity raised" if (now or 0) > (was or 0) else "severity lowered"],
        }
        assert kinds == expected[was is not None, now is not None]
        assert bool(life.lifecycle.active_keys()) == any(model.state != "inactive" for model in models.values())
        was = now
