"""Selection of instances for evidence, and the time limit."""

from __future__ import annotations

import numpy as np
import pytest

import factories
from watchdog.alerts.evidence import NOT_TAKEN, Evidence
from watchdog.alerts.evidence_collector import MAX_PER_TICK, EvidenceCollector
from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import Now
from watchdog.kernel.quality import Quality
from watchdog.measure.interning import InternedNames
from watchdog.measure.procfs import CommandLine, Process, UnreadReason
from watchdog.measure.snapshot import Snapshot
from watchdog.receivers.render.evidence_text import evidence_sections
from watchdog.rules.engine.contributor_values import ContributingProcess, Contributors
from watchdog.rules.engine.judge import Verdict
from watchdog.rules.language import template
from watchdog.rules.language.rule import OVERFLOW_LABELS, Severity

SECOND_NS = 1_000_000_000
WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL
LIMITS = {WARNING: 100.0, CRITICAL: 500.0}
STORM = factories.make_rule(
    summary=template.parse_summary("{process}: {value}", ("process",)), above=100.0, critical=500.0, window_seconds=5
)

OTHER = factories.make_rule("other", summary=STORM.summary, above=100.0, critical=500.0, window_seconds=5)


class Scene:
    """A lifecycle with one instance per process, and a collector of their evidence."""

    def __init__(self, clock):
        self.clock, self.lifecycle = clock, Lifecycle("web-1")
        self.asked, self.looked = [], []
        self.metric, self.unknown_rules = "connects", ()
        self.seconds_each = 0.0
        self.process = None
        self.collector = EvidenceCollector(self, lambda pid: (1_000 - 60) * SECOND_NS, self.read, clock)

    def find_contributors(self, snapshot, rule_id, labels):
        self.asked.append(labels[0][1])
        self.clock.advance(self.seconds_each)
        crawler = ContributingProcess(4711, 1.0, labels[0][1], "", "", "", "")
        return STORM, Contributors(self.metric, 1.0, (), 0, (crawler,), 1, (), 1.0, 1.0)

    def read(self, pid, start_ns):
        self.looked.append((pid, start_ns))
        return self.process

    def tick(self, values):
        """Run one tick, a second later, with these values by name of process; return the transitions."""
        self.clock.advance(1)
        now = Now.read(self.clock)
        verdicts = [self.verdict(name, value) for name, value in values.items()]
        snapshot = Snapshot(
            now.boottime_ns, SECOND_NS, now.wall, {"pid": np.zeros(0)}, {}, {}, InternedNames(), Quality()
        )
        transitions = self.lifecycle.advance(verdicts, now)
        return self.collector.collect(snapshot, self.lifecycle, transitions)

    @staticmethod
    def verdict(name, value):
        worst = max((severity for severity, limit in LIMITS.items() if value > limit), default=None)
        labels = OVERFLOW_LABELS if name == "overflow" else (("process", name),)
        return Verdict(OTHER if name == "other" else STORM, labels, True, value, worst, worst, "")


@pytest.fixture
def scene(clock):
    return Scene(clock)


def test_evidence_is_taken_when_an_alert_begins_and_when_its_severity_rises_and_not_in_between(scene):
    for value in (150, 160, 600, 700, 200, 50):
        scene.tick({"crawler": value})
    assert scene.asked == ["crawler", "crawler"]


def test_transitions_have_evidence_with_the_start_of_the_process(scene):
    [transition] = scene.tick({"crawler": 150})
    top_process = transition.alert.evidence.top_process
    assert (top_process.name, top_process.pid, top_process.has_exited) == ("crawler", 4711, True)
    assert top_process.started == transition.alert.evidence.taken - 61
    assert scene.looked == [(4711, 940 * SECOND_NS)]
    assert scene.lifecycle.firing_alerts()[transition.alert.fingerprint] == transition.alert


def test_the_command_line_of_a_live_process_is_requested_and_added_when_it_comes(scene):
    scene.process = Process("crawler", ((1, "systemd"),))
    [transition] = scene.tick({"crawler": 150})
    [request] = scene.collector.take_requests()
    assert transition.alert.evidence.top_process.unread is UnreadReason.LATE
    assert (request.pid, request.start_ns, request.fingerprint) == (
        4711,
        940 * SECOND_NS,
        transition.alert.fingerprint,
    )
    assert scene.collector.take_requests() == []

    found = CommandLine(("/opt/crawler", "--token=hunter2"), "/opt/crawler")
    [changed] = scene.lifecycle.add_command_lines([(request, found)])
    assert changed.evidence.top_process.command == "/opt/crawler --token=***"
    assert scene.lifecycle.add_command_lines([(request, found)]) == []
    scene.tick({"crawler": 600})  # it rises, and its evidence is taken again
    [alert] = scene.lifecycle.firing_alerts().values()
    assert (alert.evidence.top_process.command, scene.collector.take_requests()) == ("/opt/crawler --token=***", [])


def test_no_command_line_is_requested_of_ended_processes_or_against_the_settings(scene):
    scene.tick({"crawler": 150})
    scene.process, scene.collector.with_command = Process("crawler", ()), False
    [transition] = scene.tick({"crawler": 150, "other": 150})
    assert scene.collector.take_requests() == []
    assert transition.alert.evidence.top_process.unread is None


def test_an_answer_for_an_alert_that_has_ended_is_dropped(scene):
    scene.process = Process("crawler", ())
    scene.tick({"crawler": 150})
    [request] = scene.collector.take_requests()
    scene.tick({"crawler": 50})
    assert scene.lifecycle.add_command_lines([(request, CommandLine(("x",)))]) == []


def test_the_worst_alerts_of_a_tick_have_evidence_and_the_others_a_missing_reason(scene):
    transitions = scene.tick({f"p{number}": 101 + number * 5 for number in range(1_000)})
    assert scene.asked == [f"p{number}" for number in range(999, 999 - MAX_PER_TICK, -1)]
    assert [one.alert.evidence.missing_reason for one in transitions] == [NOT_TAKEN] * (1_000 - MAX_PER_TICK) + [
        ""
    ] * MAX_PER_TICK


def test_many_alerts_of_one_rule_take_no_evidence_from_another(scene):
    transitions = scene.tick({**{f"p{number}": 900 for number in range(100)}, "other": 101})
    [other] = [one.alert for one in transitions if one.alert.rule == "other"]
    assert other.evidence.missing_reason == ""
    assert "other" in scene.asked[:2]


def test_a_tick_takes_evidence_for_at_most_a_tenth_of_a_second(scene):
    scene.seconds_each = 0.04
    scene.tick({f"p{number}": 150 for number in range(10)})
    assert len(scene.asked) == 3


def test_the_overflow_has_evidence_before_all_others(scene):
    transitions = scene.tick({**{str(number): 200 for number in range(20)}, "overflow": 150})
    assert scene.asked == ["overflow", *map(str, range(19))]
    assert transitions[-1].alert.evidence.top_process.name == "overflow"


def test_the_overflow_has_new_evidence_when_it_has_twice_the_groups(scene):
    for number in (150, 200, 301, 400):
        scene.tick({"overflow": number})
    assert scene.asked == ["overflow"] * 2


def test_evidence_that_fails_does_not_affect_other_alerts(scene, monkeypatch):
    trace = scene.find_contributors

    def fail_for_a(snapshot, rule_id, labels):
        if labels[0][1] == "a":
            raise RuntimeError("no trace")
        return trace(snapshot, rule_id, labels)

    monkeypatch.setattr(scene, "find_contributors", fail_for_a)
    transitions = scene.tick({"a": 150, "b": 140})
    assert [one.alert.evidence is None for one in transitions] == [True, False]
    [failure] = scene.collector.take_failures()
    assert (str(failure), failure.__notes__) == ("no trace", ["in the evidence of an alert of rule storm"])
    assert scene.collector.take_failures() == []


@pytest.mark.parametrize(("metric", "known"), [("lost_connections", False), ("connects", True)])
def test_an_alert_about_losses_names_the_rules_that_they_leave_unknown(scene, metric, known):
    scene.metric, scene.unknown_rules = metric, tuple(f"rule-{number}" for number in range(12))
    evidence = scene.tick({"ghost": 150})[0].alert.evidence

    assert (evidence.unknown_rules, evidence.unknown_rule_count) == (
        ((), 0) if known else (scene.unknown_rules[:10], 12)
    )
    assert Evidence.from_json(evidence.to_json()) == evidence
    text = evidence_sections(evidence).get("unknown_rules", "")
    assert text.endswith("rule-9 and 2 more") is not known
