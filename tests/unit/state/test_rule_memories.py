"""Memories of rules, in the state file: over restarts, from older files, in damaged ones."""

from __future__ import annotations

import sqlite3

import pytest

from watchdog.errors import StoreError
from watchdog.state.store import Store
from watchdog.storage.folder import STATE_FILE_NAME
from watchdog.storage.salvage import salvage
from watchdog.storage.schema import APPLICATION_ID, SCHEMA_STEPS, apply_step

PEERS, PORTS = ("new-peer", "novelty"), ("new-port", "novelty:3")


@pytest.fixture
def open_store(tmp_path, clock):
    stores = []

    def open_it():
        if stores:
            stores[-1].close()
        stores.append(Store(tmp_path, clock, "boot1"))
        return stores[-1]

    yield open_it
    stores[-1].close()


def commit(store, *changes):
    store.commit(alerts=(), groups=(), notifications=(), rule_memories=changes)


def test_the_newest_content_of_each_part_is_loaded_after_a_restart(open_store):
    store = open_store()
    assert store.load().rule_memories == {}
    commit(store, (PEERS, b"one"), (PORTS, b"\x00\xff" * 5_000))
    commit(store, (PEERS, b"two"), (("new-peer", "novelty:1"), b"more"))
    commit(store, (("new-peer", "novelty:1"), None))
    assert open_store().load().rule_memories == {
        "new-peer": {"novelty": b"two"},
        "new-port": {"novelty:3": b"\x00\xff" * 5_000},
    }


def test_a_part_that_does_not_match_its_checksum_is_not_loaded(open_store):
    store = open_store()
    commit(store, (PEERS, b"one"), (PORTS, b"two"))
    with store.database.transaction() as connection:
        connection.execute("UPDATE rule_memories SET content = x'00' WHERE rule = 'new-peer'")
    assert open_store().load().rule_memories == {"new-port": {"novelty:3": b"two"}}


def test_a_failed_commit_writes_the_parts_with_the_next_one(open_store, tmp_path):
    store = open_store()
    other = sqlite3.connect(tmp_path / STATE_FILE_NAME, isolation_level=None)
    other.execute("CREATE TRIGGER full BEFORE INSERT ON rule_memories BEGIN SELECT RAISE(ABORT, 'no room'); END")
    with pytest.raises(StoreError, match="no room"):
        commit(store, (PEERS, b"one"))
    other.execute("DROP TRIGGER full")
    other.close()
    commit(store, (PORTS, b"two"))
    assert open_store().load().rule_memories == {"new-peer": {"novelty": b"one"}, "new-port": {"novelty:3": b"two"}}


def test_a_file_of_version_7_has_no_memories_and_takes_them(open_store, tmp_path):
    connection = sqlite3.connect(tmp_path / STATE_FILE_NAME, isolation_level=None)
    for step in SCHEMA_STEPS[:7]:
        apply_step(connection, step)
    connection.execute("INSERT INTO alerts (fingerprint, kind, document) VALUES ('f1', 'rule', '{\"n\": 1}')")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    store = open_store()
    assert (store.load().alerts, store.load().rule_memories) == (({"n": 1},), {})
    commit(store, (PEERS, b"one"))
    assert open_store().load().rule_memories == {"new-peer": {"novelty": b"one"}}


def test_intact_parts_of_a_damaged_file_are_salvaged(open_store, tmp_path):
    store = open_store()
    commit(store, (PEERS, b"one"), (PORTS, b"two"))
    with store.database.transaction() as connection:
        connection.execute("UPDATE rule_memories SET content = x'00' WHERE rule = 'new-peer'")
    store.close()
    salvage(tmp_path / STATE_FILE_NAME, tmp_path / "fresh")
    connection = sqlite3.connect(tmp_path / "fresh")
    assert connection.execute("SELECT rule, part, content FROM rule_memories").fetchall() == [(*PORTS, b"two")]
    connection.close()
