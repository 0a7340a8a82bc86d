"""The deliveries of an alert to its receivers, and their queues, by a real state file."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from factories import make_alert, make_notification
from watchdog.control.alert_handlers import AlertReceiver
from watchdog.daemon.alert_receivers import AlertReceivers
from watchdog.rules.language.rule import Severity
from watchdog.state.outbox import AttemptOutcome
from watchdog.state.store import Store
from watchdog.storage.opening import APPLICATION_ID
from watchdog.storage.reader import StateReader
from watchdog.storage.schema import SCHEMA_STEPS, apply_step

WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL
ALERT = make_alert(severity=WARNING)


@pytest.fixture
def receiver(tmp_path):
    """Return a function that returns the only receiver of an alert; `known`: the newest severity made for it."""
    receivers = AlertReceivers(StateReader(tmp_path / "state.sqlite3"))

    def receiver(known, alert=ALERT):
        [one] = receivers.read([(alert, {"oncall": known})])[alert.fingerprint]
        return one

    return receiver


def put(store, alert, **changes):
    store.commit(alerts=(), groups=(), notifications=[make_notification(alert, **changes)])


def finish(outbox, state):
    outbox.finish_attempt(AttemptOutcome(outbox.begin_attempt("oncall"), state, "ok"))


def test_a_receiver_waits_then_has_a_notification_in_its_queue_then_has_taken_it(store, outbox, receiver, clock):
    assert receiver(None) == AlertReceiver("oncall", None, None, None)
    put(store, ALERT, id="n1")
    assert receiver(WARNING) == AlertReceiver("oncall", None, None, "warning")
    clock.advance(60)
    finish(outbox, "delivered")
    assert receiver(WARNING) == AlertReceiver("oncall", "warning", clock.wall(), None)


def test_a_raised_severity_is_queued_beside_the_one_that_was_delivered(store, outbox, receiver, clock):
    put(store, ALERT, id="n1")
    finish(outbox, "delivered")
    at = clock.wall()
    clock.advance(60)
    critical = replace(ALERT, severity=CRITICAL)
    put(store, critical, id="n2", created=clock.wall())
    assert receiver(CRITICAL, critical) == AlertReceiver("oncall", "warning", at, "critical")
    finish(outbox, "delivered")
    assert receiver(CRITICAL, critical) == AlertReceiver("oncall", "critical", at + 60, None)


def test_a_notification_that_failed_for_good_is_neither_queued_nor_delivered(store, outbox, receiver):
    put(store, ALERT, id="n1")
    finish(outbox, "failed")
    assert receiver(WARNING) == AlertReceiver("oncall", None, None, None)


def test_a_delivery_of_an_earlier_firing_does_not_count(store, outbox, receiver):
    put(store, ALERT, id="n1")
    finish(outbox, "delivered")
    assert receiver(None, replace(ALERT, fired=ALERT.fired + 3_600)) == AlertReceiver("oncall", None, None, None)


def test_rows_that_cannot_be_read_and_a_missing_file_leave_it_open(store, outbox, receiver, tmp_path):
    put(store, ALERT, id="n1")
    finish(outbox, "delivered")
    put(store, make_alert(rule="other"), id="n2")
    with store.database.transaction() as connection:
        connection.execute("UPDATE notified SET alert = '{'")
        connection.execute("UPDATE notifications SET body = '[' WHERE state = 'pending'")
    assert receiver(WARNING) == AlertReceiver("oncall", None, None, None)
    missing = AlertReceivers(StateReader(tmp_path / "missing"))
    assert missing.read([(ALERT, {"oncall": WARNING})]) == {ALERT.fingerprint: (AlertReceiver("oncall", None),)}


def test_a_delivery_by_an_older_version_has_no_time(tmp_path, clock, receiver):
    connection = sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)
    for step in SCHEMA_STEPS[:10]:
        apply_step(connection, step)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 10")
    document = f'{{"severity": {ALERT.to_json()["severity"]}, "fired": {ALERT.fired}}}'
    connection.execute(
        "INSERT INTO notified (receiver, rule, fingerprint, alert) VALUES ('oncall', ?, ?, ?)",
        (ALERT.rule, ALERT.fingerprint, document),
    )
    connection.close()
    Store(tmp_path, clock, "boot1").close()
    assert receiver(WARNING) == AlertReceiver("oncall", "warning", None, None)
