"""The guard by hand: its own clock, a kernel that says what the test wants, a real state file."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import SECOND_NS
from watchdog.config.settings import (
    BUILT_IN_SETTINGS,
    EscalationSettings,
    EvidenceSettings,
    RoutingSettings,
    SamplingSettings,
    Settings,
)
from watchdog.daemon.configuration import Configuration
from watchdog.daemon.pipeline import Pipeline, RuleErrors
from watchdog.delivery import local_log as alarm_module
from watchdog.delivery.delivery import Delivery
from watchdog.delivery.receiver_down import RECEIVER_DOWN_RULE
from watchdog.errors import DeliveryError, DeliveryErrorReason, StoreError
from watchdog.kernel.collector import Reading
from watchdog.kernel.layout import CONNECTION, DATAGRAMS, DATAGRAMS_KEY, FLAG_CONNECT, RESPONSE, SUMS, SUMS_KEY
from watchdog.kernel.quality import Quality
from watchdog.kernel.totals_map import Totals
from watchdog.measure.catalogue import DIRECTIONS
from watchdog.measure.meter import Meter
from watchdog.routing.grouping import Grouping
from watchdog.rules.engine.engine import Engine
from watchdog.rules.engine.judge import Judge
from watchdog.rules.language.load import load_rules
from watchdog.scheduling.job import ScheduledTick
from watchdog.state.outbox import Outbox
from watchdog.state.store import Store

PATIENCE = 10.0
CALM, STORM = 0, 10  # connects a tick
HOUR = 3_600
RULE = """\
[[rule]]
id = "{id}"
summary = "{{process}}: {{value}}"
metric = "connects"
stat = "rate"
window = "2s"
by = ["process"]
where = {{ process = "culprit*" }}
fire_above = 5
for = "3s"
keep_firing_for = "3s"
"""


class Kernel:
    """In place of the collector: `connects` connections of one process begin and end in each tick."""

    def __init__(self, clock):
        self.connects = CALM
        self.comm = b"culprit"
        self.pid, self.start_ns = 2**22 + 1, 0  # beyond what a pid can be
        self.closed = False
        self._clock = clock
        self._last_cookie = 0

    def read(self):
        rows = np.zeros(self.connects, CONNECTION)
        rows["cookie"] = self._last_cookie + 1 + np.arange(self.connects)
        self._last_cookie += self.connects
        rows["born_ns"] = rows["ended_ns"] = self._clock.boottime_ns()
        rows["flags"], rows["direction"], rows["family"] = FLAG_CONNECT, DIRECTIONS.index("out"), 2
        rows["remote"][:, 10:] = 255, 255, 192, 0, 2, 7
        rows["owner"]["tgid"], rows["owner"]["comm"] = self.pid, self.comm
        rows["owner"]["start_ns"] = self.start_ns
        return Reading(
            at_ns=self._clock.boottime_ns(),
            live=np.empty(0, CONNECTION),
            closed=rows,
            sums=Totals(np.empty(0, SUMS_KEY), np.empty(0, SUMS)),
            responses=np.empty(0, RESPONSE),
            datagrams=Totals(np.empty(0, DATAGRAMS_KEY), np.empty(0, DATAGRAMS)),
            quality=Quality(),
        )

    def enable_message_probes(self):
        return True

    def disable_message_probes(self):
        pass

    def close(self):
        self.closed = True


class Listener:
    """A receiver that keeps what it is told, and waits with its answer while `answering` is cleared."""

    refresh_interval_seconds = None

    def __init__(self, name="oncall"):
        self.name = name
        self.error = None
        self.rate_limit = None
        self.notifications = []
        self.answering = threading.Event()
        self.answering.set()
        self.refusing = False
        self._came = threading.Condition()

    def send(self, notification, deadline_seconds):
        if self.error is not None:
            raise self.error
        with self._came:
            self.notifications.append(notification)
            self._came.notify_all()
        self.answering.wait(PATIENCE)
        if self.refusing:
            raise DeliveryError(DeliveryErrorReason.CLIENT_ERROR, "HTTP 404", retryable=False)

    def wait_for(self, count):
        with self._came:
            assert self._came.wait_for(lambda: len(self.notifications) >= count, PATIENCE), (
                f"{len(self.notifications)} of {count}"
            )

    def told(self):
        return [
            (notification.status, notification.reason_text, [alert.rule for alert in notification.alerts])
            for notification in self.notifications
        ]

    def close(self):
        pass


class Night:
    """A guard on a host, second by second."""

    def __init__(self, folder, clock):
        self.folder, self.clock, self.kernel, self.listener = folder, clock, Kernel(clock), Listener()
        self.rules = folder / "rules.toml"
        self.others, self.escalations = {}, {}
        self.pause = threading.Event()
        self.guard = None
        self.begin("storm")

    def setup(self, *rules):
        self.rules.write_text("".join(RULE.format(id=rule) for rule in rules))
        self.rules.chmod(0o644)
        loaded = load_rules([self.rules], receivers=["oncall"])
        routing = RoutingSettings(("oncall",), 0, 2 * SECOND_NS, 6 * SECOND_NS, receiver_down_after_ns=20 * SECOND_NS)
        config = Settings(BUILT_IN_SETTINGS, SamplingSettings(), routing, (), escalations=self.escalations)
        receivers = {self.listener.name: self.listener, **self.others}
        return Configuration(config, SECOND_NS, receivers, loaded.rules, "here", loaded.notes)

    def begin(self, *rules):
        self.store = Store(self.folder / "state", self.clock, "this boot")
        self.guard = Pipeline(self.kernel, self.store, self.setup(*rules), "web-1", self.clock)
        self.guard.start()

    def tick(self, connects):
        """Let a second pass in which so many connections were opened; return once all that is told has been told."""
        self.clock.advance(1)
        self.kernel.connects = connects
        now_ns = self.clock.boottime_ns()
        self.guard.run_tick(ScheduledTick(now_ns, now_ns, 0.0, 0))
        self.settle()

    def settle(self):
        """Return once all that is to be told has been told; a tick that fails leaves this to the test."""
        if self.others:
            return  # some don't answer
        with self.store.database.transaction() as connection:
            made = connection.execute(
                "SELECT count(*) FROM notifications WHERE receiver = 'oncall' AND state != 'merged'"
            ).fetchone()[0]
        self.listener.wait_for(made)


@pytest.fixture
def night(tmp_path, clock):
    night = Night(tmp_path, clock)
    yield night
    night.listener.answering.set()
    night.guard.stop()


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


def history(night, caplog, at=None, then=lambda _: None):
    """Live through it; return for each second what the log said and how many notices had been told."""
    seen = []
    for second, connects in enumerate(SECONDS):
        if second == at:
            then(night)
        caplog.clear()
        night.tick(connects)
        seen.append(([record.getMessage() for record in caplog.records], night.listener.told()))
    return seen


def test_the_life_of_an_alert_second_by_second(night, caplog):
    caplog.set_level(logging.INFO)
    seen = history(night, caplog)
    said = {second: messages for second, (messages, _) in enumerate(seen) if messages}

    assert said == {
        7: ["firing: storm process=culprit: value above 5/s for 3s"],
        18: ["resolved: storm process=culprit: nothing to measure for 3s"],
    }
    assert seen[-1][1] == [
        ("firing", "first notification", ["storm"]),
        ("firing", "repeat", ["storm"]),
        ("resolved", "resolved", ["storm"]),
    ]


@pytest.mark.parametrize("seconds", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("at", PHASES.values(), ids=PHASES)
def test_a_step_of_the_wall_clock_changes_nothing(tmp_path, clock, night, caplog, at, seconds):
    caplog.set_level(logging.INFO)
    undisturbed = history(night, caplog)
    (tmp_path / "other").mkdir()
    other = Night(tmp_path / "other", clock)
    stepped = history(other, caplog, at, lambda night: night.clock.step(seconds))
    other.guard.stop()

    assert stepped == undisturbed


@pytest.mark.parametrize("seconds", [-HOUR, 0, HOUR], ids=["an hour back", "no step", "an hour forward"])
@pytest.mark.parametrize("at", PHASES.values(), ids=PHASES)
def test_a_restart_loses_nothing_and_announces_nothing_as_new(night, caplog, at, seconds):
    caplog.set_level(logging.INFO)

    def restart(night):
        night.guard.stop()
        night.clock.step(seconds)
        night.begin("storm")

    told = history(night, caplog, at, restart)[-1][1]

    assert [entry for entry in told if entry[1] != "repeat"] == [
        ("firing", "first notification", ["storm"]),
        ("resolved", "resolved", ["storm"]),
    ]
    assert told[-1][0] == "resolved"


# ------------------------------------------------------------------------------------------------------------ evidence


def process_of_ours(night):
    """Let the culprit be a real process: this one."""
    night.kernel.pid = os.getpid()
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    night.kernel.start_ns = int(fields[19]) * SECOND_NS // os.sysconf("SC_CLK_TCK") + 1


def test_an_alert_tells_what_its_process_was_though_it_died_before_the_alert_fired(night, monkeypatch):
    process_of_ours(night)
    for second in range(8):
        if second == 3:  # pending since 1, fires at 4
            monkeypatch.setattr(night.guard._evidence, "_read", lambda *_: None)
        night.tick(STORM)
    night.settle()
    [alert] = night.listener.notifications[0].alerts
    culprit = alert.evidence.top_process

    assert (culprit.pid, culprit.has_exited) == (os.getpid(), True)
    age = (night.clock.boottime_ns() - night.kernel.start_ns) / SECOND_NS  # of two clocks of which one is made up
    assert culprit.started == pytest.approx(night.clock.wall() - age)
    assert culprit.command.startswith(Path("/proc/self/cmdline").read_text().split("\0")[0])
    assert culprit.parents[0][0] == os.getppid()
    assert alert.evidence.history[-3:] == (STORM, STORM, STORM)
    assert [(peer.amount, peer.connections) for peer in alert.evidence.peers] == [(STORM, STORM)]


def test_evidence_outlives_a_restart_and_is_in_the_notice_of_the_end(night):
    process_of_ours(night)
    fire(night)
    evidence = night.listener.notifications[0].alerts[0].evidence
    night.guard.stop()
    night.begin("storm")
    for _ in range(8):
        night.tick(CALM)
    last = night.listener.notifications[-1]

    assert last.status == "resolved"
    assert last.alerts[0].evidence == evidence
    assert last.alerts[0].value == CALM
    assert last.alerts[0].peak == STORM


def test_command_lines_can_be_kept_out_of_alerts(night):
    process_of_ours(night)
    setup = night.setup("storm")
    night.guard.reload(replace(setup, settings=replace(setup.settings, evidence=EvidenceSettings(command_line=False))))
    fire(night)

    assert night.listener.notifications[0].alerts[0].evidence.top_process.command is None


def test_evidence_that_cannot_be_taken_costs_no_alert(night, monkeypatch):
    monkeypatch.setattr(Engine, "find_contributors", fail)
    for _ in range(8):
        with contextlib.suppress(RuleErrors):
            night.tick(STORM)
    night.settle()

    assert night.listener.told()[0] == ("firing", "first notification", ["storm"])
    assert night.listener.notifications[0].alerts[0].evidence is None


# -------------------------------------------------------------------------------------------- receivers that are silent


DOWN = DeliveryError(DeliveryErrorReason.TIMEOUT, "no answer", retryable=True)


@pytest.fixture
def second(night, monkeypatch, tmp_path):
    """Let a second receiver stand by for the first."""
    monkeypatch.setattr(alarm_module, "SYSLOG_SOCKET", str(tmp_path / "dev-log"))
    night.others["second"] = Listener("second")
    night.escalations["oncall"] = EscalationSettings("second", 3 * SECOND_NS)
    night.guard.reload(night.setup("storm"))
    return night.others["second"]


def until(night, connects, condition, most=200):
    """Tick until `condition()` holds; each waits a little, for receivers have threads of their own."""
    for _ in range(most):
        night.tick(connects)
        night.pause.wait(0.01)
        if condition():
            return
    raise AssertionError("it never came")


def test_the_second_receiver_is_told_what_the_first_could_not_be_and_its_end_after_a_restart(night, second):
    night.listener.error = DOWN
    until(night, STORM, lambda: second.notifications)
    night.guard.stop()
    night.begin("storm")
    until(night, CALM, lambda: second.notifications[-1].status == "resolved")
    about_storm = [entry for entry in second.told() if entry[2] == ["storm"] and entry[1] != "repeat"]

    assert [(status, reason.partition(" since")[0]) for status, reason, _ in about_storm] == [
        ("firing", "escalated: oncall does not answer"),
        ("resolved", "escalated: oncall does not answer"),
    ]


def test_all_others_and_the_hosts_log_are_told_that_nothing_reaches_a_receiver_until_it_does(night, second, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dev_log:
        dev_log.bind(str(tmp_path / "dev-log"))
        dev_log.settimeout(PATIENCE)
        night.listener.error = DOWN
        until(night, STORM, lambda: any(rules == [RECEIVER_DOWN_RULE] for _, _, rules in second.told()))
        assert b"receiver down: receiver=oncall since=" in dev_log.recv(65_536)
        night.guard.stop()
        night.begin("storm")
        night.listener.error = None
        until(night, STORM, lambda: ("resolved", "resolved", [RECEIVER_DOWN_RULE]) in second.told())
        assert dev_log.recv(65_536).endswith(b"receiver works again: receiver=oncall")
    assert night.listener.told()[0][2] == ["storm"]
    assert [reason for _, reason, rules in second.told() if rules == [RECEIVER_DOWN_RULE] and reason != "repeat"] == [
        "first notification",
        "resolved",
    ]


class Forgetful(Listener):
    """A receiver that wants to be told again."""

    refresh_interval_seconds = 0.01

    def __init__(self, name):
        super().__init__(name)
        self.again = []

    def refresh(self, alerts, host, deadline_seconds):
        self.again.append([alert.rule for alert in alerts])


def test_what_fires_is_told_again_from_time_to_time_after_a_restart_and_a_reload_too(night):
    night.listener = Forgetful("oncall")
    night.guard.reload(night.setup("storm"))
    fire(night)
    until(night, STORM, lambda: night.listener.again)
    assert night.listener.again[0] == ["storm"]
    for renew in (
        lambda: night.guard.reload(night.setup("storm")),
        lambda: (night.guard.stop(), night.begin("storm")),
    ):
        renew()
        night.listener.again.clear()
        until(night, STORM, lambda: night.listener.again)
    until(night, CALM, lambda: night.listener.notifications[-1].status == "resolved")
    night.listener.again.clear()
    for _ in range(5):
        night.tick(CALM)
    assert night.listener.again == []


# ------------------------------------------------------------------------------------------------- reloads, a full disk


def fire(night):
    for _ in range(6):
        night.tick(STORM)
    assert night.listener.told()[0] == ("firing", "first notification", ["storm"])


def test_a_reload_keeps_what_fires_and_tells_the_end_of_a_rule_that_is_gone(night):
    fire(night)
    before = len(night.listener.notifications)
    night.guard.reload(night.setup("storm", "second"))
    night.tick(STORM)
    assert night.listener.told()[before:] == []
    night.guard.reload(night.setup("second"))
    for _ in range(2):
        night.tick(STORM)
    last = night.listener.notifications[-1]

    assert [(alert.rule, alert.state, alert.reason) for alert in last.alerts] == [("storm", "resolved", "rule removed")]


def test_ticks_go_on_while_a_reload_waits_for_a_receiver_that_hangs(night, monkeypatch):
    stop = Delivery.stop
    ended = []

    def stop_slowly(delivery, deadline_seconds):
        # Ticks come from a thread of their own.
        ticking = threading.Thread(target=night.tick, args=(STORM,))
        ticking.start()
        ticking.join(PATIENCE)
        ended.append(not ticking.is_alive())
        stop(delivery, deadline_seconds)

    monkeypatch.setattr(Delivery, "stop", stop_slowly)
    night.guard.reload(night.setup("storm"))
    monkeypatch.undo()

    assert ended == [True]


def fail(*_, **__):
    raise StoreError("cannot write: disk full")


@contextlib.contextmanager
def full_disk():
    raise StoreError("cannot write: disk full")
    yield


def test_a_tick_that_could_not_be_written_is_told_with_the_next_one(night, monkeypatch):
    for _ in range(3):
        night.tick(STORM)
    monkeypatch.setattr(night.store.database, "transaction", full_disk)
    with pytest.raises(StoreError):
        night.tick(STORM)  # the one that fires
    assert night.listener.notifications == []
    monkeypatch.undo()
    night.tick(STORM)

    assert night.listener.told() == [("firing", "first notification", ["storm"])]


def test_a_reload_on_a_full_disk_delivers_as_soon_as_there_is_room(night, monkeypatch, caplog):
    monkeypatch.setattr(Outbox, "fail_unconfigured", fail)
    night.guard.reload(night.setup("storm"))
    assert caplog.messages == ["outbox unavailable, deliveries paused: error=cannot write: disk full"]
    monkeypatch.undo()
    fire(night)


def test_stopping_closes_the_kernel_half_and_lets_the_next_daemon_have_the_folder(night):
    night.guard.stop()

    assert night.kernel.closed
    night.begin("storm")


def test_a_tick_that_hangs_does_not_hold_up_the_end(night):
    with night.guard._between_ticks:
        night.guard.stop()

    assert not night.kernel.closed


# ---------------------------------------------------------------------------------------------------- ticks that failed


# All that a tick calls. What grouping has returned is the guard's own: between the two nothing can break.
STAGES = [
    *((owner, name, when) for owner, name in (
        (Kernel, "read"), (Meter, "advance"), (Engine, "evaluate"), (Lifecycle, "advance"), (Lifecycle,
        "firing_alerts"),
        (Grouping, "take_changes"), (Store, "commit"),
    ) for when in ("before", "after")),
    (Grouping, "advance", "before"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("owner", "name", "when"), STAGES, ids=[f"{when} {owner.__name__}.{name}" for owner, name, when in STAGES]
)
@pytest.mark.parametrize("second", [7, 18], ids=["firing", "resolved"])
def test_wherever_a_tick_breaks_off_the_next_one_tells_what_happened(night, monkeypatch, owner, name, when, second):
    original = getattr(owner, name)

    def break_off(*arguments, **options):
        if when == "after":
            original(*arguments, **options)
        raise RuntimeError("broken off")

    for number, connects in enumerate(SECONDS):
        if number == second:
            monkeypatch.setattr(owner, name, break_off)
            with pytest.raises(RuntimeError, match="broken off"):
                night.tick(connects)
            monkeypatch.setattr(owner, name, original)
        else:
            night.tick(connects)
    history = [entry for entry in night.listener.told() if entry[1] != "repeat"]

    assert history == [("firing", "first notification", ["storm"]), ("resolved", "resolved", ["storm"])]


def test_a_failed_tick_is_counted_and_what_it_lost_leaves_rules_in_the_dark(night, monkeypatch):
    seen = []
    evaluate = Engine.evaluate
    monkeypatch.setattr(
        Engine, "evaluate", lambda engine, snapshot, *rest: seen.append(snapshot) or evaluate(engine, snapshot, *rest)
    )
    monkeypatch.setattr(night.kernel, "read", fail)
    for _ in range(3):
        with pytest.raises(StoreError):
            night.tick(CALM)
    monkeypatch.delattr(night.kernel, "read")
    monkeypatch.setattr(night.store, "commit", fail)
    with pytest.raises(StoreError):
        night.tick(CALM)  # it judged, and could not write
    monkeypatch.delattr(night.store, "commit")
    for _ in range(2):
        night.tick(CALM)

    assert [int(snapshot.metrics["failed_ticks"].sum()) for snapshot in seen] == [3, 1, 0]
    assert [snapshot.quality.lost_samples for snapshot in seen] == [3, 0, 0]
    assert [snapshot.quality.is_incomplete for snapshot in seen] == [True, False, False]


def test_a_rule_that_cannot_be_judged_takes_no_other_with_it(night, monkeypatch):
    night.guard.reload(night.setup("broken", "storm"))
    verdicts = Judge.verdicts

    def fail_for_broken(judge, *rest):
        if judge.rule.id == "broken":
            raise RuntimeError("no verdict")
        return verdicts(judge, *rest)

    monkeypatch.setattr(Judge, "verdicts", fail_for_broken)
    for _ in range(8):
        with pytest.raises(RuleErrors) as caught:
            night.tick(STORM)
    night.settle()

    assert night.listener.told()[0] == ("firing", "first notification", ["storm"])
    assert [(str(one), one.__notes__) for one in caught.value.exceptions] == [("no verdict", ["in rule broken"])]


def test_names_in_the_log_are_harmless(night, caplog):
    caplog.set_level(logging.INFO)
    night.kernel.comm = b"culprit\x1b[2J\n"
    fire(night)

    assert r"firing: storm process=culprit\x1b[2J\x0a: value above 5/s for 3s" in caplog.messages


def test_saved_state_that_cannot_be_read_is_left_out_and_its_end_told_and_the_alert_announced_anew(night, caplog):
    fire(night)
    with night.store.database.transaction() as connection:
        connection.execute("UPDATE alerts SET document = '{}'")
        connection.execute("UPDATE groups SET document = '{'")
    night.guard.stop()
    night.begin("storm")
    assert caplog.messages == [
        "unreadable entries skipped, their alerts will be sent again as new: file=state.sqlite3 entries=2"
    ]
    before = len(night.listener.notifications)
    for _ in range(6):
        night.tick(STORM)

    assert night.listener.told()[before:] == [
        ("resolved", "resolved", ["storm"]),
        ("firing", "first notification", ["storm"]),
    ]
    assert night.listener.notifications[before].alerts[0].reason == "no longer active"


def test_who_was_told_of_an_alert_is_told_its_end_although_its_notice_was_refused(night):
    fire(night)
    night.listener.refusing = True
    while len(night.listener.notifications) < 2 or night.listener.notifications[-1].status == "firing":
        night.tick(CALM)
    night.listener.refusing = False
    night.guard.stop()
    night.begin("storm")
    before = len(night.listener.notifications)
    for _ in range(6):
        night.tick(CALM)
    night.guard.stop()
    night.begin("storm")
    night.tick(CALM)

    assert night.listener.told()[before:] == [("resolved", "resolved", ["storm"])]


def test_a_file_that_turns_out_damaged_is_begun_anew_with_all_that_fires(night, caplog):
    fire(night)
    with night.store.database._lock:  # as in the middle of a transaction
        night.store.database._recreate("malformed")
    with night.store.database.transaction() as connection:
        connection.execute("DELETE FROM alerts")
        connection.execute("DELETE FROM groups")
    before = len(night.listener.notifications)
    night.tick(STORM)
    night.guard.stop()
    night.begin("storm")
    night.tick(STORM)

    assert night.guard.restored_alert_count == 1
    assert {reason for _, reason, _ in night.listener.told()[before:]} <= {"repeat"}
