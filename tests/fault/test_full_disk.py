"""A full disk: with reserved space the state is saved; without, it is kept in memory. No loss, no duplicates."""

from __future__ import annotations

import contextlib
import logging
import os

import pytest

import factories
from watchdog.clock import SystemClock
from watchdog.delivery.worker import Worker
from watchdog.errors import StoreError
from watchdog.state.outbox import Outbox
from watchdog.state.store import Store

CYCLES = 2_000
CAPACITY = 4_000  # minimum number of notifications of 1 kB that fit into the file


class ListReceiver:
    name = "oncall"
    rate_limit = None
    timeout_seconds = 10.0
    joins_copies = False
    send_resolved = True
    source = None

    def __init__(self):
        self.ids = []

    def send(self, notification, deadline_seconds):
        self.ids.append(notification.id)


@pytest.fixture
def store(small_disk, clock):
    store = Store(small_disk, clock, "boot1")
    yield store
    store.close()


large_disk = pytest.mark.parametrize("small_disk", ["48m"], indirect=True)


def fill(folder):
    with (folder / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(b"x" * 4096)
    assert os.statvfs(folder).f_bavail == 0


def make_notification(number, text="x" * 400):
    alert = factories.make_alert(fingerprint=f"{number:016x}", summary=text)
    return factories.make_notification(alert, id=f"n{number}", group_key=f"rule{number}")


def worker_for(store, clock):
    receiver = ListReceiver()
    return receiver, Worker(receiver, Outbox(store.database, clock), clock, logging.getLogger("test"))


def test_changes_that_could_not_be_written_are_written_when_there_is_space_again(store, small_disk):
    receiver, worker = worker_for(store, SystemClock())
    fill(small_disk)
    for number in range(3):
        with pytest.raises(StoreError, match="full"):
            store.commit(
                alerts=[("f1", {"n": number})], groups=[], notifications=[make_notification(number, "x" * 50_000)]
            )
    assert store.load().alerts == ()
    (small_disk / "ballast").unlink()
    store.commit(alerts=[], groups=[], notifications=[])
    assert store.load().alerts == ({"n": 2},)
    assert worker.deliver_due() is None
    assert receiver.ids == ["n0", "n1", "n2"]


@large_disk
def test_in_its_reserved_space_the_state_is_saved_without_a_free_byte_on_the_disk(store, small_disk, clock, caplog):
    store.reserve_space()
    fill(small_disk)
    receiver, worker = worker_for(store, clock)
    for number in range(CYCLES):
        clock.advance(1)
        store.commit(
            alerts=[(f"f{number % 50}", {"n": number})],
            groups=[(("oncall", f"rule{number % 50}"), {"n": number})],
            notifications=[make_notification(number)],
        )
        assert worker.deliver_due() is None
    assert os.statvfs(small_disk).f_bavail == 0
    assert receiver.ids == [f"n{number}" for number in range(CYCLES)]
    full = [record for record in caplog.records if "disk full" in record.message]
    assert len(full) == pytest.approx(CYCLES / 60, abs=1)  # once a minute
    assert caplog.records == full


@large_disk
def test_on_a_full_disk_notifications_are_kept_up_to_capacity_and_survive_a_restart(store, small_disk, clock):
    store.reserve_space()
    fill(small_disk)
    for number in range(0, CAPACITY, 100):
        notifications = [make_notification(each) for each in range(number, number + 100)]
        store.commit(alerts=[], groups=[], notifications=notifications)
    store.close()
    again = Store(small_disk, clock, "boot1")
    try:
        receiver, worker = worker_for(again, clock)
        again.commit(alerts=[("f1", {})], groups=[], notifications=[])
        assert worker.deliver_due() is None
    finally:
        again.close()
    assert os.statvfs(small_disk).f_bavail == 0
    assert receiver.ids == [f"n{number}" for number in range(CAPACITY)]


@large_disk
def test_space_that_the_disk_did_not_have_is_reserved_as_soon_as_it_has(store, small_disk, clock, caplog):
    fill(small_disk)
    store.reserve_space()
    assert caplog.messages[0].startswith(
        "cannot reserve disk space, state cannot be saved while the disk is full: error="
    )
    (small_disk / "ballast").unlink()
    clock.advance(60)
    store.commit(alerts=[], groups=[], notifications=[])
    fill(small_disk)
    store.commit(alerts=[("f1", {"n": 1})], groups=[], notifications=[make_notification(1)])
    assert store.load().alerts == ({"n": 1},)


@large_disk
def test_a_damaged_file_is_recreated_on_a_full_disk_too(store, small_disk, clock):
    store.reserve_space()
    store.commit(alerts=[], groups=[], notifications=[make_notification(1)])
    store.database.checkpoint()
    store.close()
    path = small_disk / "state.sqlite3"
    with path.open("r+b") as file:
        file.seek(60)
        file.write(b"\xff\xff\xff\xff")
    fill(small_disk)
    for expected in (1, 0):
        again = Store(small_disk, clock, "boot1")
        assert len(again.quarantined) == expected
        again.commit(alerts=[("f1", {"n": 1})], groups=[], notifications=[make_notification(2)])
        again.close()
