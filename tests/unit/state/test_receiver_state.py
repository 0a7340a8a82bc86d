"""What a receiver keeps is known again after a restart, by that receiver alone."""

import pytest

from watchdog.clock import SystemClock
from watchdog.receivers.base import VolatileReceiverState
from watchdog.state.receiver_state import StoredReceiverState
from watchdog.storage.database import Database


@pytest.fixture(params=["stored", "scratch"])
def memory(request, tmp_path):
    if request.param == "scratch":
        yield VolatileReceiverState()
        return
    database = Database(tmp_path / "state.sqlite3")
    yield StoredReceiverState(database, "oncall", SystemClock())
    database.close()


def test_the_newest_value_of_a_key_is_known(memory):
    memory.put("message", "one")
    memory.put("message", "two")
    assert memory.get("message") == "two"


def test_what_was_never_kept_or_is_forgotten_is_none(memory):
    memory.put("message", "one")
    memory.put("message", None)
    memory.put("never", None)
    assert memory.get("message") is None
    assert memory.get("never") is None


def test_a_restart_forgets_nothing_and_receivers_do_not_see_each_other(tmp_path):
    database = Database(tmp_path / "state.sqlite3")
    StoredReceiverState(database, "oncall", SystemClock()).put("message", "one")
    database.close()

    database = Database(tmp_path / "state.sqlite3")
    assert StoredReceiverState(database, "oncall", SystemClock()).get("message") == "one"
    assert StoredReceiverState(database, "other", SystemClock()).get("message") is None
    database.close()
