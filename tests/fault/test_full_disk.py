"""A disk that is full for a while: nothing is half written, nothing is lost, nothing is sent twice."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess

import pytest

from watchdog.alerts.alert import Alert, State
from watchdog.alerts.notice import Notice
from watchdog.clock import SystemClock
from watchdog.errors import StoreError
from watchdog.notify.outbox import Outbox
from watchdog.notify.worker import Worker
from watchdog.rules.schema import Severity
from watchdog.store.store import Store


class ListReceiver:
    name = "oncall"

    def __init__(self):
        self.ids = []

    def send(self, notice, deadline_seconds):
        self.ids.append(notice.id)


@pytest.fixture
def small_disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.fixture
def store(small_disk):
    store = Store(small_disk, SystemClock(), "boot1")
    yield store
    store.close()


def fill(folder):
    with (folder / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(b"x" * 4096)


def make_notice(number):
    alert = Alert(
        rule="storm", labels=(), fingerprint="f" * 16, state=State.FIRING, severity=Severity.WARNING,
        summary="x" * 50_000, value=150.0, threshold=100.0, peak=151.0, started=1.0, fired=2.0, resolved=None,
        reason="above 100", receivers=None, runbook=None,
    )  # fmt: skip
    return Notice(f"n{number}", "oncall", f"rule{number}", "first notification", (alert,), created=3.0, host="db1")


def test_what_could_not_be_written_is_written_when_there_is_room_again(store, small_disk):
    clock = SystemClock()
    receiver = ListReceiver()
    worker = Worker(receiver, Outbox(store.database, clock), clock, logging.getLogger("test"))
    fill(small_disk)
    for number in range(3):
        with pytest.raises(StoreError, match="full"):
            store.commit(alerts=[("f1", {"n": number})], groups=[], notices=[make_notice(number)])
    assert store.load().alerts == ()
    (small_disk / "ballast").unlink()
    store.commit(alerts=[], groups=[], notices=[])
    assert store.load().alerts == ({"n": 2},)
    assert worker.run_due() is None
    assert receiver.ids == ["n0", "n1", "n2"]
