"""The state of a receiver survives a restart and is visible to that receiver alone."""

import pytest

from watchdog.clock import SystemClock
from watchdog.errors import StoreError
from watchdog.receivers.base import VolatileReceiverState
from watchdog.state.receiver_state import ReceiverStates, StoredReceiverState
from watchdog.storage.database import Database


@pytest.fixture(params=["stored", "attached", "volatile"])
def memory(request, tmp_path):
    if request.param == "volatile":
        yield VolatileReceiverState()
        return
    database = Database(tmp_path / "state.sqlite3")
    states = ReceiverStates(SystemClock())
    attached = states.open("oncall")
    states.attach(database)
    yield attached if request.param == "attached" else StoredReceiverState(database, "oncall", SystemClock())
    database.close()


def test_the_state_fails_while_no_state_file_is_open():
    state = ReceiverStates(SystemClock()).open("oncall")
    with pytest.raises(StoreError, match="the state file is not open: receiver=oncall"):
        state.get("message")
    with pytest.raises(StoreError, match="the state file is not open: receiver=oncall"):
        state.put("message", "one")


def test_the_newest_value_of_a_key_is_known(memory):
    memory.put("message", "one")
    memory.put("message", "two")
    assert memory.get("message") == "two"


def test_a_missing_or_deleted_key_is_none(memory):
    memory.put("message", "one")
    memory.put("message", None)
    memory.put("never", None)
    assert memory.get("message") is None
    assert memory.get("never") is None


def test_a_restart_keeps_the_state_and_receivers_do_not_share_it(tmp_path):
    database = Database(tmp_path / "state.sqlite3")
    StoredReceiverState(database, "oncall", SystemClock()).put("message", "one")
    database.close()

    database = Database(tmp_path / "state.sqlite3")
    assert StoredReceiverState(database, "oncall", SystemClock()).get("message") == "one"
    assert StoredReceiverState(database, "other", SystemClock()).get("message") is None
    database.close()
