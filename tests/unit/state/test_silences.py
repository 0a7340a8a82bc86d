"""Silences in the state file: restarts, reboots, damage, a full disk."""

import sqlite3
from dataclasses import replace

import pytest

import factories
from watchdog.clock import SECOND_NS
from watchdog.errors import StoreError, UsageError
from watchdog.routing.silencing import AcknowledgedFiring, Silence
from watchdog.rules.language.rule import Condition
from watchdog.state import silences as silences_module
from watchdog.state.store import Store
from watchdog.storage.salvage import salvage
from watchdog.storage.schema import APPLICATION_ID, SCHEMA_STEPS, apply_step

HOUR = 3600


@pytest.fixture
def open_store(tmp_path, clock):
    stores = []

    def open_it(boot_id="boot1"):
        if stores:
            stores[-1].close()
        stores.append(Store(tmp_path, clock, boot_id))
        return stores[-1]

    yield open_it
    stores[-1].close()


def make_silence(clock, seconds=HOUR, **fields):
    where = (Condition("process", ("nginx\udcff*",), ("nginx-test",)),)
    ends_ns = clock.boottime_ns() + seconds * SECOND_NS
    return Silence(
        **{"id": "", "where": where, "author": "ada", "comment": "move", "created": 5.0, "ends_ns": ends_ns, **fields}
    )


def acknowledge(alert):
    return Silence("", (), "ada", "", 0.0, acknowledged=AcknowledgedFiring(alert.fingerprint, alert.fired))


def test_silences_are_in_force_after_a_restart(open_store, clock):
    silences = open_store().silences
    first, second = silences.add(make_silence(clock)), silences.add(acknowledge(factories.make_alert()))
    silences.add_withheld({first.suppression: 2})
    silences.add_withheld({first.suppression: 1, second.suppression: 1})
    again = open_store().silences.current
    assert [silence.id for silence in again] == [first.id, second.id]
    assert [silence.withheld for silence in again] == [3, 1]
    assert again[0].where == first.where
    assert again[1].acknowledged == second.acknowledged


def test_silence_ends_after_its_time_whatever_the_wall_clock_does(open_store, clock):
    silences = open_store().silences
    silences.add(make_silence(clock, seconds=60))
    clock.step(HOUR)
    assert silences.end_due({}, clock.boottime_ns()) == []
    clock.step(-2 * HOUR)
    clock.advance(60)
    assert [silence.comment for silence in silences.end_due({}, clock.boottime_ns())] == ["move"]
    assert open_store().silences.current == ()


def test_silence_counts_the_downtime_of_a_reboot(open_store, clock):
    store = open_store("boot1")
    clock.advance(10 * HOUR)
    store.silences.add(make_silence(clock, seconds=HOUR))
    clock.advance(600)
    clock._boottime_ns = 5 * SECOND_NS  # another boot, ten minutes later
    silences = open_store("boot2").silences
    clock.advance(2_999)
    assert silences.end_due({}, clock.boottime_ns()) == []
    clock.advance(1)
    assert len(silences.end_due({}, clock.boottime_ns())) == 1


def test_acknowledgement_ends_with_its_firing(open_store, clock):
    alert = factories.make_alert()
    silences = open_store().silences
    silences.add(acknowledge(alert))
    assert silences.end_due({alert.fingerprint: alert}, clock.boottime_ns()) == []
    later = replace(alert, fired=alert.fired + 1)
    assert len(silences.end_due({alert.fingerprint: later}, clock.boottime_ns())) == 1
    assert open_store().silences.current == ()


def test_expired_silence_is_gone_and_others_stay(open_store, clock):
    silences = open_store().silences
    first, second = silences.add(make_silence(clock)), silences.add(make_silence(clock))
    assert silences.expire(first.id) == first
    assert silences.expire(first.id) is None
    assert [silence.id for silence in open_store().silences.current] == [second.id]


def test_silence_is_not_in_force_when_the_file_cannot_be_written(open_store, clock):
    store = open_store()
    kept = store.silences.add(make_silence(clock))
    store.close()
    with pytest.raises(StoreError):
        store.silences.add(make_silence(clock))
    with pytest.raises(StoreError):
        store.silences.expire(kept.id)
    assert store.silences.current == (kept,)


def test_number_of_silences_is_limited(open_store, clock, monkeypatch):
    monkeypatch.setattr(silences_module, "MAX_SILENCES", 2)
    silences = open_store().silences
    silences.add(make_silence(clock))
    silences.add(make_silence(clock))
    with pytest.raises(UsageError, match="2 silences already"):
        silences.add(make_silence(clock))


def test_silences_are_salvaged_from_a_damaged_file(open_store, tmp_path, clock):
    store = open_store()
    kept = store.silences.add(make_silence(clock))
    damaged = store.silences.add(make_silence(clock))
    with store.database.transaction() as connection:
        connection.execute("UPDATE silences SET document = '{}' WHERE id = ?", (damaged.id,))
    store.close()
    salvage(tmp_path / "state.sqlite3", tmp_path / "fresh.sqlite3")
    connection = sqlite3.connect(tmp_path / "fresh.sqlite3")
    assert connection.execute("SELECT id FROM silences").fetchall() == [(kept.id,)]
    connection.close()


def test_state_file_of_version_6_is_continued(tmp_path, clock):
    connection = sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for step in SCHEMA_STEPS[:6]:
        apply_step(connection, step)
    connection.execute("PRAGMA user_version = 6")
    connection.execute("INSERT INTO alerts (fingerprint, kind, document) VALUES ('f1', 'rule', '{\"n\": 1}')")
    connection.close()
    (tmp_path / "state.sqlite3").chmod(0o600)
    store = Store(tmp_path, clock, "boot1")
    try:
        assert store.load().alerts == ({"n": 1},)
        assert store.silences.current == ()
        added = store.silences.add(make_silence(clock))
        assert store.silences.current == (added,)
    finally:
        store.close()
