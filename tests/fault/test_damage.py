"""A state file damaged anywhere: the daemon starts, logs it once, and sends no altered notification."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3

import pytest

import factories
from watchdog.errors import StoreError
from watchdog.state.outbox import AttemptOutcome, Outbox
from watchdog.state.store import Store
from watchdog.storage.damage import MAX_QUARANTINED_FILES, quarantined_files
from watchdog.storage.database import Database
from watchdog.storage.folder import STATE_FILE_NAME
from watchdog.storage.schema import SCHEMA_STEPS

SEEDS = 100
FLIPPED_BYTES = 64
ALERTS, DELIVERED, PENDING = 40, 10, 40


def make_notification(number):
    alert = factories.make_alert(
        rule=f"rule{number}",
        labels=(("process", f"culprit{number}"),),
        fingerprint=f"{number:016x}",
        summary=f"storm {number} " + "x" * 500,
    )
    return factories.make_notification(alert, id=f"n{number}")


def alert_state(number):
    return {"n": number, "text": "y" * 300}


NOTIFICATIONS = {f"n{number}": make_notification(number) for number in range(DELIVERED + PENDING)}
STATES = [alert_state(number) for number in range(ALERTS)]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Return the folder of a killed daemon: part of its state is in the WAL."""
    clock = factories.FakeClock()
    folder = tmp_path_factory.mktemp("original")
    live, store = folder / "live", Store(folder / "live", clock, "boot1")
    for number in range(ALERTS):
        store.commit(alerts=[(f"f{number}", alert_state(number))], groups=[], notifications=[])
    for notification in NOTIFICATIONS.values():
        store.commit(alerts=[], groups=[], notifications=[notification])
    outbox = Outbox(store.database, clock)
    for _ in range(DELIVERED):
        outbox.finish_attempt(AttemptOutcome(outbox.begin_attempt("oncall"), "delivered", "ok"))
    shutil.copytree(live, folder / "killed")
    store.close()
    return folder / "killed"


@pytest.fixture
def state(tmp_path, original):
    return shutil.copytree(original, tmp_path / "state")


def flip(path, randomness):
    """Change 64 bytes at random places."""
    content = bytearray(path.read_bytes())
    for _ in range(FLIPPED_BYTES):
        content[randomness.randrange(len(content))] ^= randomness.randrange(1, 256)
    path.write_bytes(content)


def flip_file(folder, randomness):
    database = Database(folder / STATE_FILE_NAME)
    database.checkpoint()
    database.close()
    (folder / f"{STATE_FILE_NAME}-wal").unlink()  # or its pages would replace the damaged ones
    flip(folder / STATE_FILE_NAME, randomness)


def flip_wal(folder, randomness):
    flip(folder / f"{STATE_FILE_NAME}-wal", randomness)


def cut_wal(folder, randomness):
    path = folder / f"{STATE_FILE_NAME}-wal"
    os.truncate(path, randomness.randrange(path.stat().st_size))


def start(folder):
    """Start, take all pending notifications, and stop; return alerts, notifications, quarantined files and losses."""
    clock = factories.FakeClock()
    store = Store(folder, clock, "boot1")
    try:
        alerts = [state for state in store.load().alerts if state]
        with store.database.transaction() as connection:
            connection.execute("UPDATE notifications SET due_ns = 0")
            pending = connection.execute("SELECT count(*) FROM notifications WHERE state = 'pending'").fetchone()[0]
        outbox, taken = Outbox(store.database, clock), {}
        for _ in range(pending):
            attempt = outbox.begin_attempt("oncall")
            if attempt is None:
                break
            taken[attempt.notification.id] = attempt.notification
            outbox.finish_attempt(AttemptOutcome(attempt, "pending", "timeout: no answer", clock.boottime_ns() + 10**9))
        return alerts, taken, store.quarantined, sum(outbox.losses().values())
    finally:
        store.close()


@pytest.mark.parametrize(("harm", "seeds"), [(flip_file, SEEDS), (flip_wal, SEEDS // 2), (cut_wal, SEEDS // 2)])
def test_with_any_damaged_byte_the_daemon_starts_and_sends_only_unaltered_notifications(
    tmp_path, original, caplog, harm, seeds
):
    damaged = salvaged = damaged_wals = 0
    for seed in range(seeds):
        folder = shutil.copytree(original, tmp_path / f"{seed}")
        harm(folder, random.Random(seed))
        caplog.clear()
        alerts, taken, quarantined, lost = start(folder)

        assert [notification for id_, notification in taken.items() if notification != NOTIFICATIONS[id_]] == []
        assert [alert for alert in alerts if alert not in STATES] == []
        assert len(quarantined) <= 1
        assert quarantined_files(folder / STATE_FILE_NAME) == [found.path for found in quarantined]
        assert len([record for record in caplog.records if "moved aside and recreated" in record.message]) == len(
            quarantined
        )
        if quarantined:
            damaged += 1
            salvaged += len(taken)
        wal_records = [record for record in caplog.records if "WAL damaged" in record.message]
        damaged_wals += len(wal_records)
        assert len(wal_records) <= 1
        if not quarantined and harm is flip_file:
            assert len(taken) + lost >= PENDING

        caplog.clear()
        again = start(folder)  # no loop: the file is intact now
        assert again[2] == ()
        assert again[1] == taken
        assert not [record for record in caplog.records if "WAL damaged" in record.message]
        shutil.rmtree(folder)
    print(
        f"{harm.__name__}: {damaged} of {seeds} moved aside, {salvaged} of {damaged * PENDING} notifications salvaged"
    )
    print(f"{damaged_wals} damaged WALs logged")
    # SQLite reads a damaged WAL up to the damage, as if nothing had been written behind it.
    assert (damaged > seeds // 2) == (harm is flip_file)
    assert (damaged_wals > seeds * 3 // 4) == (harm is flip_wal)


def test_a_damaged_file_keeps_its_content_and_its_readable_rows_are_salvaged(state, caplog):
    path = state / STATE_FILE_NAME
    database = Database(path)
    database.checkpoint()
    database.close()
    (state / f"{STATE_FILE_NAME}-wal").unlink()  # or its pages would replace the damaged one
    content = bytearray(path.read_bytes())
    page = content.index(b'"id":"n30"') // 4096
    content[page * 4096 : (page + 1) * 4096] = b"\xa5" * 4096
    path.write_bytes(content)
    alerts, taken, (found,), _ = start(state)

    assert found.path.name == "state.sqlite3.damaged-20250615T150640Z"
    assert bytes(content) == found.path.read_bytes()
    assert sorted(alerts, key=str) == sorted(STATES, key=str)
    assert "n30" not in taken
    assert found.salvaged == len(taken) >= PENDING - 8
    start_of_line = f"state file damaged, moved aside and recreated: file={path} moved_to={found.path} reason="
    assert caplog.records[0].message.startswith(start_of_line)
    assert f" alerts=40 pending={len(taken)} lost={found.lost}" in caplog.records[0].message


def test_a_file_that_is_no_database_is_moved_aside(state):
    (state / STATE_FILE_NAME).write_bytes(b"garbage" * 1000)
    (state / f"{STATE_FILE_NAME}-wal").unlink()
    _, taken, (found,), _ = start(state)

    assert (taken, found.salvaged, found.reason) == ({}, 0, "file is not a database")
    assert found.path.read_bytes() == b"garbage" * 1000


@pytest.mark.parametrize("pragma", ["application_id = 7", "user_version = 2000000000", "user_version = 1"])
def test_a_header_that_does_not_match_the_tables_is_damage(state, pragma):
    connection = sqlite3.connect(state / STATE_FILE_NAME)
    connection.execute(f"PRAGMA {pragma}")
    connection.close()
    _, taken, quarantined, lost = start(state)

    assert (len(taken), len(quarantined), lost) == (PENDING, 1, 0)


def test_damage_found_while_the_daemon_runs_fails_one_transaction(state, caplog):
    clock = factories.FakeClock()
    store = Store(state, clock, "boot1")
    with store.database.transaction() as connection:
        connection.execute("PRAGMA cache_size = 0")
        root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'receiver_state'").fetchone()[0]
    store.database.checkpoint()
    with (state / STATE_FILE_NAME).open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xa5" * 4096)
    store.database._connection.execute("PRAGMA shrink_memory")
    with pytest.raises(StoreError, match="malformed"), store.database.transaction() as connection:
        connection.execute("SELECT * FROM receiver_state").fetchall()
    with store.database.transaction() as connection:
        connection.execute("SELECT * FROM receiver_state").fetchall()
    assert store.take_recreated()
    assert not store.take_recreated()
    store.close()

    alerts, taken, quarantined, _ = start(state)
    assert (len(alerts), len(taken), quarantined) == (ALERTS, PENDING, ())


def test_only_a_few_damaged_files_are_kept(tmp_path):
    path = tmp_path / STATE_FILE_NAME
    for number in range(MAX_QUARANTINED_FILES + 2):
        path.write_bytes(b"garbage %d" % number)
        Database(path).close()
    kept = sorted(file.read_bytes() for file in quarantined_files(path))
    assert kept == [b"garbage %d" % number for number in range(2, MAX_QUARANTINED_FILES + 2)]


@pytest.mark.parametrize("step", ["salvaged", "moved aside"])
def test_a_crash_while_a_file_is_recreated_loses_nothing(state, monkeypatch, step):
    connection = sqlite3.connect(state / STATE_FILE_NAME)
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    target = "quarantine_file" if step == "salvaged" else "delete_oldest_quarantined"

    def die(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"watchdog.storage.database.{target}", die)
    with pytest.raises(KeyboardInterrupt):
        Database(state / STATE_FILE_NAME)
    monkeypatch.undo()

    assert len(start(state)[1]) == PENDING


def test_a_file_of_a_newer_version_is_refused_and_not_changed(state):
    Database(state / STATE_FILE_NAME).close()
    connection = sqlite3.connect(state / STATE_FILE_NAME)
    connection.execute(f"PRAGMA user_version = {len(SCHEMA_STEPS) + 1}")
    connection.close()
    before = (state / STATE_FILE_NAME).read_bytes()
    for _ in range(2):
        with pytest.raises(StoreError, match="was written by a newer bpf-watchdog"):
            Database(state / STATE_FILE_NAME)
    assert (state / STATE_FILE_NAME).read_bytes() == before
