"""The pipeline with a fake clock, a fake collector and a real state file."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from simulated_host import CALM, HOUR, PATIENCE, RULE, STORM, FakeCollector, FakeReceiver, SimulatedHost

from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import SECOND_NS
from watchdog.config.settings import (
    EscalationSettings,
    EvidenceSettings,
)
from watchdog.daemon.pipeline import RuleErrors
from watchdog.daemon.reload_alert import Refusal
from watchdog.delivery import local_log as local_log_module
from watchdog.delivery.receiver_down import RECEIVER_DOWN_RULE
from watchdog.errors import ConfigError, DeliveryError, DeliveryErrorReason, Problem, StoreError
from watchdog.measure.meter import Meter
from watchdog.measure.process_reader import ProcessReader
from watchdog.measure.procfs import UnreadReason
from watchdog.measure.program_file import ProgramFile
from watchdog.routing.grouping import Grouping
from watchdog.routing.inhibition import Inhibition
from watchdog.routing.silencing import Silence
from watchdog.routing.suppression_rules import SuppressionRules
from watchdog.rules.engine.engine import Engine
from watchdog.rules.engine.judge import Judge
from watchdog.rules.language.load import load_rules
from watchdog.rules.language.rule import Condition
from watchdog.scheduling.job import ScheduledTick
from watchdog.state.outbox import Outbox
from watchdog.state.store import Store


@pytest.fixture
def simulation(tmp_path, clock):
    simulation = SimulatedHost(tmp_path, clock)
    yield simulation
    simulation.receiver.answering.set()
    simulation.pipeline.stop()


# From calm over pending (second 4 on: over 5/s in two seconds), firing (7) and clearing (15) to calm again (18).
SECONDS = [CALM] * 3 + [STORM] * 12 + [CALM] * 9
STEPS = {
    "an hour back": -HOUR,
    "an hour forward": HOUR,
    "a week forward": 7 * 24 * HOUR,
    "back to 1970": -1_749_990_000,
    "from 1970 to now": 1_749_990_000,
}
PHASES = {"before": 1, "pending": 5, "firing": 9, "clearing": 17, "after": 21}


def history(simulation, caplog, at=None, then=lambda _: None):
    """Run all seconds; return for each second its log lines and the number of delivered notifications."""
    seen = []
    for second, connects in enumerate(SECONDS):
        if second == at:
            then(simulation)
        caplog.clear()
        simulation.tick(connects)
        seen.append(([record.getMessage() for record in caplog.records], simulation.receiver.entries()))
    return seen


def test_the_life_of_an_alert_second_by_second(simulation, caplog):
    caplog.set_level(logging.INFO)
    seen = history(simulation, caplog)
    said = {second: messages for second, (messages, _) in enumerate(seen) if messages}

    assert said == {
        7: ["firing: storm process=culprit: value above 5/s for 3s"],
        18: ["resolved: storm process=culprit: gone for 3s"],
    }
    assert seen[-1][1] == [
        ("firing", "first notification", ["storm"]),
        ("firing", "repeat", ["storm"]),
        ("resolved", "resolved", ["storm"]),
    ]


@pytest.mark.parametrize("seconds", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("at", PHASES.values(), ids=PHASES)
def test_a_step_of_the_wall_clock_changes_nothing(tmp_path, clock, simulation, caplog, at, seconds):
    caplog.set_level(logging.INFO)
    undisturbed = history(simulation, caplog)
    (tmp_path / "other").mkdir()
    other = SimulatedHost(tmp_path / "other", clock)
    stepped = history(other, caplog, at, lambda simulation: simulation.clock.step(seconds))
    other.pipeline.stop()

    assert stepped == undisturbed


@pytest.mark.parametrize("seconds", [-HOUR, 0, HOUR], ids=["an hour back", "no step", "an hour forward"])
@pytest.mark.parametrize("at", PHASES.values(), ids=PHASES)
def test_a_restart_loses_no_alert_and_sends_none_again(simulation, caplog, at, seconds):
    caplog.set_level(logging.INFO)

    def restart(simulation):
        simulation.pipeline.stop()
        simulation.clock.step(seconds)
        simulation.begin("storm")

    entries = history(simulation, caplog, at, restart)[-1][1]

    assert [entry for entry in entries if entry[1] != "repeat"] == [
        ("firing", "first notification", ["storm"]),
        ("resolved", "resolved", ["storm"]),
    ]
    assert entries[-1][0] == "resolved"


# ------------------------------------------------------------------------------------------------------------ evidence


def process_of_ours(simulation):
    """Make this process the one that opens connections."""
    simulation.kernel.pid = os.getpid()
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    simulation.kernel.start_ns = int(fields[19]) * SECOND_NS // os.sysconf("SC_CLK_TCK") + 1


def wait_for_answer(late_evidence):
    """Wait until a command line was read, or could not be."""
    end = time.monotonic() + PATIENCE
    while late_evidence._answers.empty():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("is_held", [False, True])
def test_an_alert_that_fires_at_once_is_committed_first_and_sent_with_its_command_line(simulation, is_held):
    program = "import os, time; os.write(1, b'0\\n'); time.sleep(60)"
    reader = ProcessReader((os.path.realpath(sys.executable), "-I", "-S", "-c", program)) if is_held else None
    late_evidence = simulation.pipeline._late_evidence
    late_evidence._reader = reader or ProcessReader(read_seconds=PATIENCE)
    late_evidence._reading_ns = round(PATIENCE * SECOND_NS)
    simulation.rules.write_text(RULE.format(id="fast").replace('\nfor = "3s"', ""))
    rules = load_rules([simulation.rules], receivers=["oncall"]).rules
    simulation.pipeline.reload(replace(simulation.configuration("storm"), rules=rules))
    process_of_ours(simulation)
    for _ in range(2):
        simulation.tick(STORM)
    [alert] = simulation.receiver.notifications[0].alerts
    top_process = alert.evidence.top_process

    if is_held:
        assert (top_process.command, top_process.unread) in {(None, UnreadReason.HELD), (None, UnreadReason.LATE)}
    else:
        assert top_process.command.startswith(Path("/proc/self/cmdline").read_text().split("\0")[0])
    wait_for_answer(late_evidence)
    simulation.tick(STORM)
    [firing] = simulation.pipeline._lifecycle.firing_alerts().values()
    assert firing.evidence.top_process == top_process
    assert simulation.receiver.entries() == [("firing", "first notification", ["fast"])]


def test_an_alert_describes_a_process_that_died_before_the_alert_fired(simulation, monkeypatch):
    process_of_ours(simulation)
    late_evidence = simulation.pipeline._late_evidence
    late_evidence._reading_ns, late_evidence._reader._read_seconds = round(PATIENCE * SECOND_NS), PATIENCE
    for second in range(8):
        if second == 3:  # pending since 1, fires at 4
            wait_for_answer(late_evidence)
            monkeypatch.setattr(simulation.pipeline._evidence, "_read", lambda *_: None)
        simulation.tick(STORM)
    simulation.settle()
    [alert] = simulation.receiver.notifications[0].alerts
    culprit = alert.evidence.top_process

    assert (culprit.pid, culprit.has_exited) == (os.getpid(), True)
    age = (simulation.clock.boottime_ns() - simulation.kernel.start_ns) / SECOND_NS  # from two clocks, one of them fake
    assert culprit.started == pytest.approx(simulation.clock.wall() - age)
    assert culprit.command.startswith(Path("/proc/self/cmdline").read_text().split("\0")[0])
    assert culprit.parents[0][0] == os.getppid()
    assert alert.evidence.history[-3:] == (STORM, STORM, STORM)
    assert [(peer.amount, peer.connections) for peer in alert.evidence.peers] == [(STORM, STORM)]


def test_evidence_survives_a_restart_and_is_in_the_resolved_notification(simulation):
    process_of_ours(simulation)
    fire(simulation)
    evidence = simulation.receiver.notifications[0].alerts[0].evidence
    simulation.pipeline.stop()
    simulation.begin("storm")
    for _ in range(8):
        simulation.tick(CALM)
    last = simulation.receiver.notifications[-1]

    assert last.status == "resolved"
    assert last.alerts[0].evidence == evidence
    assert last.alerts[0].value == CALM
    assert last.alerts[0].peak == STORM


def test_an_alert_has_the_program_of_its_process_as_the_kernel_knows_it(simulation):
    process_of_ours(simulation)
    fire(simulation)
    top_process = simulation.receiver.notifications[0].alerts[0].evidence.top_process
    assert top_process.program == ProgramFile("/opt/culprit", "8:1", 77, ("deleted",))


def test_command_lines_can_be_kept_out_of_alerts(simulation):
    process_of_ours(simulation)
    configuration = simulation.configuration("storm")
    simulation.pipeline.reload(
        replace(configuration, settings=replace(configuration.settings, evidence=EvidenceSettings(command_line=False)))
    )
    fire(simulation)

    assert simulation.receiver.notifications[0].alerts[0].evidence.top_process.command is None
    assert simulation.pipeline._late_evidence._thread is None  # nothing was read, and no reader started


def test_evidence_that_cannot_be_taken_costs_no_alert(simulation, monkeypatch):
    monkeypatch.setattr(Engine, "find_contributors", fail)
    for _ in range(8):
        with contextlib.suppress(RuleErrors):
            simulation.tick(STORM)
    simulation.settle()

    assert simulation.receiver.entries()[0] == ("firing", "first notification", ["storm"])
    assert simulation.receiver.notifications[0].alerts[0].evidence is None


# -------------------------------------------------------------------------------------------- receivers that are silent


DOWN = DeliveryError(DeliveryErrorReason.TIMEOUT, "no answer", retryable=True)


@pytest.fixture
def second(simulation, monkeypatch, tmp_path):
    """Make a second receiver the escalation target of the first."""
    monkeypatch.setattr(local_log_module, "SYSLOG_SOCKET", str(tmp_path / "dev-log"))
    simulation.others["second"] = FakeReceiver("second")
    simulation.escalations["oncall"] = EscalationSettings("second", 3 * SECOND_NS)
    simulation.pipeline.reload(simulation.configuration("storm"))
    return simulation.others["second"]


def until(simulation, connects, condition, most=200):
    """Tick until `condition()` holds; each waits a little, for receivers have threads of their own."""
    for _ in range(most):
        simulation.tick(connects)
        simulation.pause.wait(0.01)
        if condition():
            return
    raise AssertionError("it never came")


def test_the_escalation_target_gets_the_alert_and_after_a_restart_its_resolved_notification(simulation, second):
    simulation.receiver.error = DOWN
    until(simulation, STORM, lambda: second.notifications)
    simulation.pipeline.stop()
    simulation.begin("storm")
    until(simulation, CALM, lambda: second.notifications[-1].status == "resolved")
    about_storm = [entry for entry in second.entries() if entry[2] == ["storm"] and entry[1] != "repeat"]

    assert [(status, reason.partition(" since")[0]) for status, reason, _ in about_storm] == [
        ("firing", "escalated: oncall does not answer"),
        ("resolved", "escalated: oncall does not answer"),
    ]


def test_other_receivers_and_the_local_log_report_a_receiver_that_is_down_until_it_works(simulation, second, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dev_log:
        dev_log.bind(str(tmp_path / "dev-log"))
        dev_log.settimeout(PATIENCE)
        simulation.receiver.error = DOWN
        until(simulation, STORM, lambda: any(rules == [RECEIVER_DOWN_RULE] for _, _, rules in second.entries()))
        assert b"receiver down: receiver=oncall since=" in dev_log.recv(65_536)
        simulation.pipeline.stop()
        simulation.begin("storm")
        simulation.receiver.error = None
        until(simulation, STORM, lambda: ("resolved", "resolved", [RECEIVER_DOWN_RULE]) in second.entries())
        assert dev_log.recv(65_536).endswith(b"receiver works again: receiver=oncall")
    assert simulation.receiver.entries()[0][2] == ["storm"]
    assert [
        reason for _, reason, rules in second.entries() if rules == [RECEIVER_DOWN_RULE] and reason != "repeat"
    ] == [
        "first notification",
        "resolved",
    ]


class Forgetful(FakeReceiver):
    """A receiver with refreshes."""

    refresh_interval_seconds = 0.01

    def __init__(self, name):
        super().__init__(name)
        self.again = []

    def refresh(self, alerts, host, deadline_seconds):
        self.again.append([alert.rule for alert in alerts])


def test_firing_alerts_are_refreshed_at_each_interval_after_a_restart_and_a_reload_too(simulation):
    simulation.receiver = Forgetful("oncall")
    simulation.pipeline.reload(simulation.configuration("storm"))
    fire(simulation)
    until(simulation, STORM, lambda: simulation.receiver.again)
    assert simulation.receiver.again[0] == ["storm"]
    for renew in (
        lambda: simulation.pipeline.reload(simulation.configuration("storm")),
        lambda: (simulation.pipeline.stop(), simulation.begin("storm")),
    ):
        renew()
        simulation.receiver.again.clear()
        until(simulation, STORM, lambda: simulation.receiver.again)
    until(simulation, CALM, lambda: simulation.receiver.notifications[-1].status == "resolved")
    simulation.receiver.again.clear()
    for _ in range(5):
        simulation.tick(CALM)
    assert simulation.receiver.again == []


# ------------------------------------------------------------------------------------------------- reloads, a full disk


def fire(simulation):
    for _ in range(6):
        simulation.tick(STORM)
    assert simulation.receiver.entries()[0] == ("firing", "first notification", ["storm"])


def test_a_reload_keeps_firing_alerts_and_resolves_those_of_a_removed_rule(simulation):
    fire(simulation)
    before = len(simulation.receiver.notifications)
    simulation.pipeline.reload(simulation.configuration("storm", "second"))
    simulation.tick(STORM)
    assert simulation.receiver.entries()[before:] == []
    simulation.pipeline.reload(simulation.configuration("second"))
    for _ in range(2):
        simulation.tick(STORM)
    last = simulation.receiver.notifications[-1]

    assert [(alert.rule, alert.state, alert.reason) for alert in last.alerts] == [("storm", "resolved", "rule removed")]


def fail(*_, **__):
    raise StoreError("cannot write: disk full")


@contextlib.contextmanager
def full_disk():
    raise StoreError("cannot write: disk full")
    yield


def test_notifications_of_a_failed_commit_are_sent_with_the_next_tick(simulation, monkeypatch):
    for _ in range(3):
        simulation.tick(STORM)
    monkeypatch.setattr(simulation.store.database, "transaction", full_disk)
    with pytest.raises(StoreError):
        simulation.tick(STORM)  # the one that fires
    assert simulation.receiver.notifications == []
    monkeypatch.undo()
    simulation.tick(STORM)

    assert simulation.receiver.entries() == [("firing", "first notification", ["storm"])]


def test_a_reload_on_a_full_disk_delivers_as_soon_as_there_is_room(simulation, monkeypatch, caplog):
    monkeypatch.setattr(Outbox, "fail_unconfigured", fail)
    simulation.pipeline.reload(simulation.configuration("storm"))
    assert caplog.messages == ["outbox unavailable, deliveries paused: error=cannot write: disk full"]
    monkeypatch.undo()
    fire(simulation)


def test_stop_closes_the_collector_and_releases_the_state_folder(simulation):
    simulation.pipeline.stop()

    assert simulation.kernel.closed
    simulation.begin("storm")


def test_stop_returns_the_number_of_pending_notifications(simulation, second):
    assert simulation.pipeline.stop() == 0
    simulation.begin("storm")
    simulation.receiver.error = DOWN
    until(simulation, STORM, lambda: simulation.pipeline._delivery.pending() == 1)
    assert simulation.pipeline.stop() == 1
    simulation.begin("storm")


def test_a_tick_that_hangs_does_not_delay_the_stop(simulation):
    with simulation.pipeline._between_ticks.held():
        assert simulation.pipeline.stop() is None

    assert not simulation.kernel.closed


# ---------------------------------------------------------------------------------------------------- ticks that failed


# All functions that a tick calls. The pipeline keeps the notifications that grouping returned: no failure loses them.
STAGES = [
    *((owner, name, when) for owner, name in (
        (FakeCollector, "read"), (Meter, "advance"), (Engine, "evaluate"), (Lifecycle, "advance"), (Lifecycle,
        "firing_alerts"),
        (Grouping, "take_changes"), (Store, "commit"),
    ) for when in ("before", "after")),
    (Grouping, "advance", "before"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("owner", "name", "when"), STAGES, ids=[f"{when} {owner.__name__}.{name}" for owner, name, when in STAGES]
)
@pytest.mark.parametrize("second", [7, 18], ids=["firing", "resolved"])
def test_wherever_a_tick_fails_the_next_one_makes_its_notifications(simulation, monkeypatch, owner, name, when, second):
    original = getattr(owner, name)

    def break_off(*arguments, **options):
        if when == "after":
            original(*arguments, **options)
        raise RuntimeError("broken off")

    for number, connects in enumerate(SECONDS):
        if number == second:
            monkeypatch.setattr(owner, name, break_off)
            with pytest.raises(RuntimeError, match="broken off"):
                simulation.tick(connects)
            monkeypatch.setattr(owner, name, original)
        else:
            simulation.tick(connects)
    history = [entry for entry in simulation.receiver.entries() if entry[1] != "repeat"]

    assert history == [("firing", "first notification", ["storm"]), ("resolved", "resolved", ["storm"])]


def test_a_failed_tick_is_counted_and_its_lost_sample_makes_rules_unknown(simulation, monkeypatch):
    seen = []
    evaluate = Engine.evaluate

    def evaluate_and_note(engine, snapshot, *rest):
        seen.append(snapshot)
        return evaluate(engine, snapshot, *rest)

    monkeypatch.setattr(Meter, "advance", fail)
    for _ in range(3):
        with pytest.raises(StoreError):
            simulation.tick(CALM)
    monkeypatch.undo()
    monkeypatch.setattr(Engine, "evaluate", evaluate_and_note)
    monkeypatch.setattr(simulation.store, "commit", fail)
    with pytest.raises(StoreError):
        simulation.tick(CALM)  # it evaluated, and could not commit
    monkeypatch.delattr(simulation.store, "commit")
    for _ in range(2):
        simulation.tick(CALM)

    assert [int(snapshot.metrics["failed_ticks"].sum()) for snapshot in seen] == [3, 1, 0]
    assert [snapshot.quality.lost_samples for snapshot in seen] == [3, 0, 0]
    assert not seen[0].quality.lost_amounts  # not known
    assert simulation.kernel.complete_pass_requests == 4  # the rows that a failed tick has read are lost


def test_a_reading_that_fails_loses_no_sample(simulation, monkeypatch):
    seen = []
    evaluate = Engine.evaluate
    monkeypatch.setattr(
        Engine, "evaluate", lambda engine, snapshot, *rest: seen.append(snapshot) or evaluate(engine, snapshot, *rest)
    )
    monkeypatch.setattr(simulation.kernel, "read", fail)
    with pytest.raises(StoreError):
        simulation.tick(STORM)
    monkeypatch.delattr(simulation.kernel, "read")
    simulation.tick(CALM)
    assert [(one.quality.failed_ticks, one.quality.lost_samples) for one in seen] == [(1, 0)]


def test_the_amounts_in_samples_that_were_not_judged_bound_the_loss(simulation, monkeypatch):
    seen = []
    evaluate = Engine.evaluate

    def fail_twice(engine, snapshot, *rest):
        seen.append(snapshot)
        if len(seen) < 3:
            raise RuntimeError("not judged")
        return evaluate(engine, snapshot, *rest)

    monkeypatch.setattr(Engine, "evaluate", fail_twice)
    for connects in (4, 3):
        with pytest.raises(RuntimeError):
            simulation.tick(connects)
    simulation.tick(CALM)
    simulation.tick(CALM)
    assert [one.quality.lost_samples for one in seen] == [0, 1, 2, 0]
    assert [one.quality.lost_amounts.get("connects") for one in seen] == [None, 4, 7, None]
    assert seen[2].quality.lost_amounts["bytes_sent"] == 0


def test_stages_over_their_time_are_counted_named_and_followed_by_a_sign_of_life(simulation, monkeypatch, caplog):
    seen, progress = [], []
    evaluate = Engine.evaluate

    def evaluate_slowly(engine, snapshot, *rest):
        seen.append(int(snapshot.metrics["slow_stages"].sum()))
        simulation.clock.advance(6)
        return evaluate(engine, snapshot, *rest)

    monkeypatch.setattr(simulation.pipeline, "_report_progress", lambda: progress.append(len(seen)))
    simulation.tick(CALM)
    assert progress == []
    monkeypatch.setattr(Engine, "evaluate", evaluate_slowly)
    simulation.tick(CALM)
    simulation.tick(CALM)
    assert seen == [0, 1]
    assert progress == [*[1] * 5, *[2] * 5]  # rules, and the four stages after them
    lines = [line for line in caplog.messages if line.startswith("stage of a tick")]
    assert lines == ["stage of a tick over its limit: stage=rules took=6.00s limit=0.50s"]


def test_ticks_that_fail_give_no_sign_of_life_however_long_they_take(simulation, monkeypatch):
    progress = []

    def fail_late(*_):
        simulation.clock.advance(6)
        raise RuntimeError("not measured")

    def read_slowly():
        simulation.clock.advance(6)
        return read()

    read = simulation.kernel.read
    monkeypatch.setattr(simulation.pipeline, "_report_progress", lambda: progress.append(1))
    monkeypatch.setattr(simulation.kernel, "read", read_slowly)
    monkeypatch.setattr(Meter, "advance", fail_late)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            simulation.tick(CALM)
    assert progress == [1]  # of the first one, before it failed


def test_the_interval_of_the_tick_is_a_metric(simulation, monkeypatch):
    seen = []
    evaluate = Engine.evaluate
    monkeypatch.setattr(
        Engine, "evaluate", lambda engine, snapshot, *rest: seen.append(snapshot) or evaluate(engine, snapshot, *rest)
    )
    simulation.clock.advance(8)
    now_ns = simulation.clock.boottime_ns()
    simulation.pipeline.run_tick(ScheduledTick(now_ns, now_ns, 0.0, 0, 8 * SECOND_NS, SECOND_NS))
    sums = {name: seen[0].metrics[name].sum() for name in ("tick_interval", "configured_interval", "missed_ticks")}
    assert sums == {"tick_interval": 8, "configured_interval": 1, "missed_ticks": 7}


def test_a_refused_reload_is_an_alert_a_problem_and_a_count_until_a_reload_is_accepted(simulation, monkeypatch):
    seen = []
    evaluate = Engine.evaluate
    monkeypatch.setattr(
        Engine, "evaluate", lambda engine, snapshot, *rest: seen.append(snapshot) or evaluate(engine, snapshot, *rest)
    )
    problems = [Problem("/etc/x.toml", 3, "rule.stat", 'unknown stat "rat"'), Problem("/etc/x.toml", 9, "rule.id", "x")]
    simulation.tick(CALM)
    for _ in range(2):
        simulation.pipeline.report_refused_reload(Refusal.from_error(ConfigError(problems)))
    simulation.tick(CALM)
    simulation.tick(CALM)
    [line] = simulation.pipeline.problems()
    assert line.startswith("reload refused")
    assert '/etc/x.toml:3: rule.stat: unknown stat "rat" (and 1 more)' in line
    [notification] = simulation.receiver.notifications
    assert (notification.status, notification.group_key) == ("firing", "watchdog-reload-refused")
    assert notification.alerts[0].summary == line
    assert notification.alerts[0].runbook == "https://wiki/#watchdog-reload-refused"
    at_start = Refusal.from_error(ConfigError(problems), is_start=True)
    assert at_start.describe().startswith(
        "files refused at the start, the last good configuration is in force: /etc/x."
    )
    assert [int(snapshot.metrics["refused_reloads"].sum()) for snapshot in seen] == [0, 2, 0]

    simulation.pipeline.reload(simulation.configuration("storm"))
    for _ in range(3):
        simulation.tick(CALM)
    assert simulation.pipeline.problems() == []
    assert simulation.receiver.entries()[-1] == ("resolved", "resolved", ["watchdog-reload-refused"])
    assert len(simulation.receiver.notifications) == 2


def test_an_alert_about_a_refused_reload_ends_with_a_restart(simulation):
    simulation.pipeline.report_refused_reload(Refusal("/etc/x.toml:3: rule.stat: unknown"))
    simulation.tick(CALM)
    simulation.pipeline.stop()
    simulation.begin("storm")
    for _ in range(3):
        simulation.tick(CALM)
    assert [status for status, *_ in simulation.receiver.entries()] == ["firing", "resolved"]
    [ended] = simulation.receiver.notifications[-1].alerts
    assert ended.reason == "the daemon was restarted with files that are in force"


def test_ticks_in_which_losses_leave_a_rule_unknown_are_counted(simulation, monkeypatch):
    seen = []
    evaluate = Engine.evaluate
    monkeypatch.setattr(
        Engine, "evaluate", lambda engine, snapshot, *rest: seen.append(snapshot) or evaluate(engine, snapshot, *rest)
    )
    for missed in (0, 1, 10_000, 0):
        simulation.kernel.missed_events = missed
        simulation.tick(CALM)

    assert [int(snapshot.metrics["unknown_ticks"].sum()) for snapshot in seen] == [0, 0, 0, 1]


def test_a_rule_that_cannot_be_evaluated_affects_no_other(simulation, monkeypatch):
    simulation.pipeline.reload(simulation.configuration("broken", "storm"))
    verdicts = Judge.verdicts

    def fail_for_broken(judge, *rest):
        if judge.rule.id == "broken":
            raise RuntimeError("no verdict")
        return verdicts(judge, *rest)

    monkeypatch.setattr(Judge, "verdicts", fail_for_broken)
    for _ in range(8):
        with pytest.raises(RuleErrors) as caught:
            simulation.tick(STORM)
    simulation.settle()

    assert simulation.receiver.entries()[0] == ("firing", "first notification", ["storm"])
    assert [(str(one), one.__notes__) for one in caught.value.exceptions] == [("no verdict", ["in rule broken"])]


def test_names_in_the_log_are_harmless(simulation, caplog):
    caplog.set_level(logging.INFO)
    simulation.kernel.comm = b"culprit\x1b[2J\n"
    fire(simulation)

    assert r"firing: storm process=culprit\x1b[2J\x0a: value above 5/s for 3s" in caplog.messages


def test_unreadable_state_is_skipped_and_its_alerts_are_resolved_or_sent_again_as_new(simulation, caplog):
    fire(simulation)
    with simulation.store.database.transaction() as connection:
        connection.execute("UPDATE alerts SET document = '{}'")
        connection.execute("UPDATE groups SET document = '{'")
    simulation.pipeline.stop()
    simulation.begin("storm")
    assert caplog.messages == [
        "unreadable entries skipped, their alerts will be sent again as new: file=state.sqlite3 entries=2"
    ]
    before = len(simulation.receiver.notifications)
    for _ in range(6):
        simulation.tick(STORM)

    assert simulation.receiver.entries()[before:] == [
        ("resolved", "resolved", ["storm"]),
        ("firing", "first notification", ["storm"]),
    ]
    assert simulation.receiver.notifications[before].alerts[0].reason == "no longer active"


def test_a_notified_receiver_gets_a_resolved_notification_although_an_earlier_one_was_refused(simulation):
    fire(simulation)
    simulation.receiver.refusing = True
    while len(simulation.receiver.notifications) < 2 or simulation.receiver.notifications[-1].status == "firing":
        simulation.tick(CALM)
    simulation.receiver.refusing = False
    simulation.pipeline.stop()
    simulation.begin("storm")
    before = len(simulation.receiver.notifications)
    for _ in range(6):
        simulation.tick(CALM)
    simulation.pipeline.stop()
    simulation.begin("storm")
    simulation.tick(CALM)

    assert simulation.receiver.entries()[before:] == [("resolved", "resolved", ["storm"])]


def test_a_damaged_state_file_is_recreated_with_all_firing_alerts(simulation, caplog):
    fire(simulation)
    with simulation.store.database._lock:  # as in the middle of a transaction
        simulation.store.database._recreate("malformed")
    with simulation.store.database.transaction() as connection:
        connection.execute("DELETE FROM alerts")
        connection.execute("DELETE FROM groups")
    before = len(simulation.receiver.notifications)
    simulation.tick(STORM)
    simulation.pipeline.stop()
    simulation.begin("storm")
    simulation.tick(STORM)

    assert simulation.pipeline.restored_alert_count == 1
    assert {reason for _, reason, _ in simulation.receiver.entries()[before:]} <= {"repeat"}
    assert simulation.store.rule_history.firings_of("storm", simulation.clock.wall()).count == 1


def identities(simulation):
    return [
        (notification.status, alert.identity.host, dict(alert.identity.labels), alert.identity.incident_key)
        for notification in simulation.receiver.notifications
        for alert in notification.alerts
    ]


@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
def test_an_alert_ends_under_the_host_labels_and_key_of_its_firing(simulation, restart):
    simulation.labels, simulation.rule_labels = (
        (("env", "test"), ("team", "network")),
        'labels = { team = "storage" }\n',
    )
    simulation.pipeline.reload(simulation.configuration("storm"))
    fire(simulation)
    simulation.host_name, simulation.labels, simulation.rule_labels = "web-2.example.net", (("env", "prod"),), ""
    if restart:
        simulation.pipeline.stop()
        simulation.begin("storm")
    else:
        simulation.pipeline.reload(simulation.configuration("storm"))
    for _ in range(12):
        simulation.tick(CALM)
    found = identities(simulation)
    assert {status for status, *_ in found} == {"firing", "resolved"}
    assert {(host, *labels.items()) for _, host, labels, _ in found} == {
        ("web-1", ("env", "test"), ("team", "storage"))
    }
    assert len({key for *_, key in found}) == 1
    assert simulation.receiver.notifications[-1].host == "web-2.example.net"

    fire(simulation)
    *_, (status, host, labels, key) = identities(simulation)
    assert (status, host, labels) == ("firing", "web-2.example.net", {"env": "prod"})
    assert key != found[0][-1]


def test_the_host_name_is_looked_up_again_while_ticks_go_on(simulation):
    simulation.tick(CALM)
    simulation.host_name = "named-late"
    for _ in range(11):
        simulation.tick(CALM)
    fire(simulation)
    assert simulation.receiver.notifications[-1].host == "named-late"
    assert identities(simulation)[-1][1] == "named-late"


# ---------------------------------------------------------------------------------------- notifications that failed


class Taking:
    """Follows the notifications that the receiver took: its last state of the alert, and the number of attempts."""

    def __init__(self, simulation):
        self.simulation = simulation
        simulation.repeat_seconds = 4 * HOUR
        simulation.pipeline.reload(simulation.configuration("storm"))

    def run(self, connects, seconds):
        for _ in range(seconds):
            self.simulation.tick(connects)
            self.wait_for_outcomes()

    def wait_for_outcomes(self):
        """Wait until the outcome of each attempt is recorded: the receiver has it a moment before."""
        end = time.monotonic() + PATIENCE
        while self._outcomes() < self.attempts:
            assert time.monotonic() < end, "no outcome"
            self.simulation.pause.wait(0.001)

    def _outcomes(self):
        with self.simulation.store.database.transaction() as connection:
            return connection.execute("SELECT count(*) FROM attempts").fetchone()[0]

    @property
    def attempts(self):
        return len(self.simulation.receiver.notifications)

    def taken(self):
        ids = {notification.id: notification for notification in self.simulation.receiver.notifications}
        with self.simulation.store.database.transaction() as connection:
            rows = connection.execute("SELECT id FROM notifications WHERE state = 'delivered' ORDER BY sequence")
            return [ids[id_].status for (id_,) in rows]


@pytest.fixture
def taking(simulation):
    return Taking(simulation)


def test_an_alert_whose_notification_failed_is_sent_again_once_the_receiver_takes_it(taking, simulation):
    simulation.receiver.refusing = True
    taking.run(STORM, 6)
    assert (taking.attempts, taking.taken()) == (1, [])
    simulation.receiver.refusing = False
    taking.run(STORM, 10)
    assert taking.taken() == ["firing"]
    taking.run(STORM, 600)
    assert taking.attempts == 2
    taking.run(CALM, 10)
    assert taking.taken() == ["firing", "resolved"]


@pytest.mark.parametrize("event", ["reload", "restart"])
def test_a_reload_and_a_restart_send_it_again_at_once(taking, simulation, event):
    simulation.receiver.refusing = True
    taking.run(STORM, 5)
    simulation.receiver.refusing = False
    if event == "reload":
        simulation.pipeline.reload(simulation.configuration("storm"))
    else:
        simulation.pipeline.stop()
        simulation.begin("storm")
    taking.run(STORM, 3)
    assert taking.taken() == ["firing"]
    taking.run(STORM, 60)
    assert taking.attempts == 2


def test_a_receiver_that_refuses_for_good_is_tried_ever_more_rarely(taking, simulation):
    simulation.receiver.refusing = True
    taking.run(STORM, HOUR // 2)
    assert 7 <= taking.attempts <= 10


def test_an_end_that_failed_is_sent_again_and_once(taking, simulation):
    taking.run(STORM, 10)
    simulation.receiver.refusing = True
    taking.run(CALM, 8)
    assert taking.taken() == ["firing"]
    simulation.receiver.refusing = False
    taking.run(CALM, 300)
    assert taking.taken() == ["firing", "resolved"]


@pytest.mark.parametrize("step", [0, 8 * HOUR, -8 * HOUR])
def test_known_alerts_are_not_sent_again(taking, simulation, step):
    taking.run(STORM, 10)
    for _ in range(2):
        simulation.clock.step(step)
        simulation.pipeline.reload(simulation.configuration("storm"))
        taking.run(STORM, 10)
        simulation.pipeline.stop()
        simulation.begin("storm")
        taking.run(STORM, 10)
    assert taking.attempts == 1


def restart(simulation):
    simulation.pipeline.stop()
    simulation.begin("storm")


def silence(simulation, seconds=None):
    ends_ns = None if seconds is None else simulation.clock.boottime_ns() + seconds * SECOND_NS
    return simulation.store.silences.add(Silence("", (Condition("rule", ("storm",)),), "ada", "move", 0.0, ends_ns))


def test_a_silence_withholds_over_a_restart_and_its_end_is_the_reason_of_a_notification(simulation):
    added = silence(simulation, seconds=20)
    for _ in range(8):
        simulation.tick(STORM)
    assert set(simulation.pipeline.suppressed.values()) == {(added.suppression,)}
    restart(simulation)
    for _ in range(4):
        simulation.tick(STORM)
    assert simulation.receiver.notifications == []
    assert simulation.store.silences.current[0].withheld >= 1
    for _ in range(12):
        simulation.tick(STORM)
    status, reason, rules = simulation.receiver.entries()[0]
    assert (status, rules) == ("firing", ["storm"])
    assert reason == f"no longer suppressed: silence {added.id} ended"
    assert simulation.pipeline.suppressed == {}
    assert simulation.store.silences.current == ()


def test_an_alert_that_is_known_ends_once_under_a_silence(simulation):
    for _ in range(8):
        simulation.tick(STORM)
    assert [status for status, _, _ in simulation.receiver.entries()] == ["firing"]
    silence(simulation)
    for _ in range(10):
        simulation.tick(CALM)
    restart(simulation)
    for _ in range(10):
        simulation.tick(CALM)
    assert [status for status, _, _ in simulation.receiver.entries()] == ["firing", "resolved"]


def test_a_receiver_without_suppression_gets_silenced_alerts(simulation):
    simulation.receiver.suppress = False
    restart(simulation)
    silence(simulation)
    for _ in range(8):
        simulation.tick(STORM)
    assert [status for status, _, _ in simulation.receiver.entries()] == ["firing"]


def test_a_target_that_fires_with_its_source_is_not_notified_first_also_after_a_start(simulation):
    inhibition = Inhibition((Condition("rule", ("storm",)),), (Condition("rule", ("a-spike",)),))
    simulation.configuration = lambda *_, make=simulation.configuration: replace(
        make("a-spike", "storm"), suppression=SuppressionRules((), (inhibition,))
    )
    for _ in range(2):
        restart(simulation)
        for _ in range(12):
            simulation.tick(STORM)
    for _ in range(12):
        simulation.tick(CALM)
    assert {rule for _, _, rules in simulation.receiver.entries() for rule in rules} == {"storm"}
    assert [status for status, _, _ in simulation.receiver.entries()].count("resolved") == 1
