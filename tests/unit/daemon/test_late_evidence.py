"""Command lines that come after the commit: real processes, a real child that reads them, a real state file."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import factories
from watchdog.alerts.command_request import CommandRequest
from watchdog.clock import SECOND_NS
from watchdog.daemon.late_evidence import HOLD_NS, LateEvidence
from watchdog.errors import StoreError
from watchdog.measure.process_reader import ProcessReader
from watchdog.measure.procfs import UnreadReason
from watchdog.state.outbox import Outbox
from watchdog.state.store import Store

PATIENCE = 60.0
PROGRAM = "import os, time; os.write(1, b'0\\n'); time.sleep(60)"
NEVER_ANSWERS = (os.path.realpath(sys.executable), "-I", "-S", "-c", PROGRAM)


class Scene:
    """The state file, and the thread with a reader."""

    def __init__(self, folder, clock, command=None):
        self.clock = clock
        self.store = Store(folder / "state", clock, "this boot")
        self.outbox = Outbox(self.store.database, clock)
        self.woken = 0
        reader = ProcessReader(read_seconds=PATIENCE) if command is None else ProcessReader(command)
        log = logging.getLogger("test.evidence")
        self.late = LateEvidence(reader, self.outbox, self.wake, clock, log, round(PATIENCE * SECOND_NS))

    def wake(self):
        self.woken += 1

    def commit(self, notification):
        """Write a notification that waits for its command line; return the mapping of held ones."""
        held = {notification.id: self.clock.boottime_ns() + HOLD_NS}
        self.store.commit(alerts=[], groups=[], notifications=[notification], held=held)
        return held

    def answers(self, count):
        end, answers = time.monotonic() + PATIENCE, []
        while len(answers) < count and time.monotonic() < end:
            answers += self.late.take_answers()
            time.sleep(0.005)
        return answers

    def close(self):
        self.late.stop()
        self.store.close()


@pytest.fixture
def scene(tmp_path, clock):
    scene = Scene(tmp_path, clock)
    yield scene
    scene.close()


@pytest.fixture
def hanging(tmp_path, clock):
    scene = Scene(tmp_path, clock, NEVER_ANSWERS)
    yield scene
    scene.close()


@pytest.fixture
def process():
    process = subprocess.Popen([sys.executable, "-c", "input()", "--token=hunter2"], stdin=subprocess.PIPE)
    while b"input" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():  # wait for the exec
        time.sleep(0.001)
    yield process
    process.communicate()


def firing(pid, rule="storm"):
    top_process = factories.make_top_process(pid=pid, command=None, unread=UnreadReason.LATE)
    return factories.make_alert(rule=rule, evidence=factories.make_evidence(top_process=top_process))


def request(alert):
    return CommandRequest(alert.rule, alert.labels, alert.fingerprint, alert.evidence.top_process.pid, None)


def sent(outbox):
    """Return (command, reason why not) of each alert of the notification that is due now; None without one."""
    attempt = outbox.begin_attempt("oncall")
    if attempt is None:
        return None
    tops = [alert.evidence.top_process for alert in attempt.notification.alerts]
    return [(top.command, top.unread) for top in tops]


def test_a_held_notification_gets_the_command_line_and_is_due_at_once(scene, process):
    alert = firing(process.pid)
    held = scene.commit(factories.make_notification(alert))
    assert sent(scene.outbox) is None
    scene.late.request([request(alert)], held)
    [(answered, found)] = scene.answers(1)
    assert (answered, found.arguments[3]) == (request(alert), "--token=hunter2")
    assert sent(scene.outbox) == [(f"{sys.executable} -c input() --token=***", None)]
    assert scene.woken == 1


def test_a_notification_is_held_for_a_limited_time_without_any_thread(scene, process, clock):
    scene.commit(factories.make_notification(firing(process.pid)))
    clock.advance(HOLD_NS / 1e9)
    assert sent(scene.outbox) == [(None, UnreadReason.LATE)]


def test_a_process_that_holds_its_command_line_delays_no_other(hanging, caplog):
    alerts = [firing(4711), firing(4712, "other")]
    found = UnreadReason.LATE
    for _ in range(50):  # a child without CPU time is late, and no process blamed
        hanging.late.request([request(alerts[0])], {})
        [(_, found)] = hanging.answers(1)
        if found is UnreadReason.HELD:
            break
    held = hanging.commit(factories.make_notification(*alerts))
    hanging.late.request([request(alert) for alert in alerts], held)
    assert len(hanging.answers(2)) == 2
    assert sent(hanging.outbox)[0] == (None, UnreadReason.HELD)
    assert "command line could not be read, the process holds it: pid=4711 rule=storm" in caplog.messages


def test_a_notification_that_was_attempted_or_deferred_meanwhile_stays_as_it_is(scene, process, clock):
    alert = firing(process.pid)
    held = scene.commit(factories.make_notification(alert))
    clock.advance(1)
    assert sent(scene.outbox) == [(None, UnreadReason.LATE)]
    scene.late.request([request(alert)], held)
    scene.answers(1)
    with scene.store.database.transaction() as connection:
        [(body,)] = connection.execute("SELECT body FROM notifications").fetchall()
    assert '"unread":"late"' in body


def test_a_state_file_that_cannot_be_written_ends_nothing(scene, process, monkeypatch, caplog):
    alert = firing(process.pid)
    held = scene.commit(factories.make_notification(alert))

    def fail(*_):
        raise StoreError("no space")

    monkeypatch.setattr(scene.outbox, "release", fail)
    scene.late.request([request(alert)], held)
    assert len(scene.answers(1)) == 1
    monkeypatch.undo()
    scene.late.request([request(alert)], held)
    assert len(scene.answers(1)) == 1
    assert "notifications go without command lines: error=no space" in caplog.messages


def test_without_requests_nothing_starts(scene):
    scene.late.request([], {})
    assert scene.late.take_answers() == []
