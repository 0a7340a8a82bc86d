"""More notifications than the capacity: the least needed are dropped, losses are counted, memory does not grow."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import factories
from watchdog.routing.notification import NotificationReason
from watchdog.state.capacity import OutboxCapacity
from watchdog.state.store import STATE_FILE_NAME, Store
from watchdog.storage.opening import MAX_FILE_PAGES, PAGE_BYTES

LONG_OUTAGE = Path(__file__).with_name("long_outage.py")
LASTING, SHORT = 10_000, 5_000  # of long_outage.py
MAX_GROWTH_BYTES = 20_000_000


@pytest.fixture
def store_in(clock):
    with contextlib.ExitStack() as opened:

        def open_it(folder):
            store = Store(folder, clock, "boot1")
            opened.callback(store.close)
            return store

        yield open_it


@pytest.mark.parametrize("small_disk", ["64m"], indirect=True)
def test_an_outage_of_an_hour_costs_no_memory_and_drops_resolved_alerts_first(small_disk):
    finished = subprocess.run(
        [sys.executable, str(LONG_OUTAGE), str(small_disk)], capture_output=True, text=True, timeout=170, check=True
    )
    found = json.loads(finished.stdout)
    print(finished.stdout)

    pending = OutboxCapacity().max_receiver_notifications
    assert found["pending"] == pending
    assert found["delivered"] == {"lasting firing": LASTING, "short resolved": pending - LASTING}
    assert found["duplicates"] == 0
    assert found["lost"] == {"capacity": LASTING + SHORT - pending}
    assert found["growth"] < MAX_GROWTH_BYTES


@pytest.mark.parametrize("small_disk", ["64m"], indirect=True)
def test_a_file_that_cannot_grow_drops_pending_notifications_to_save_new_changes(small_disk, store_in, clock):
    store = store_in(small_disk)
    store.reserve_space()
    text = "x" * 200_000
    for number in range(200):  # 40 MB into a file of 32 MB, of which 16 MB are for pending notifications
        clock.advance(1)
        alert = factories.make_alert(summary=text)
        notification = factories.make_notification(
            alert,
            id=f"n{number}",
            receiver=f"r{number % 2}",
            group_key=f"g{number}",
            reason=NotificationReason.NEW_ALERT,
        )
        store.commit(alerts=[(f"f{number % 20}", {"n": number})], groups=(), notifications=[notification])
    store.commit(alerts=[(f"big{number}", {"text": text}) for number in range(80)], groups=(), notifications=())
    with store.database.transaction() as connection:
        kept = [
            id_
            for (id_,) in connection.execute("SELECT id FROM notifications WHERE state = 'pending' ORDER BY sequence")
        ]
        dropped = connection.execute("SELECT sum(count) FROM losses WHERE cause = 'capacity'").fetchone()[0]
    assert len(store.load().alerts) == 100
    assert kept == [f"n{number}" for number in range(dropped, 200)]
    assert 0 < dropped < 200
    assert (small_disk / STATE_FILE_NAME).stat().st_size <= MAX_FILE_PAGES * PAGE_BYTES
