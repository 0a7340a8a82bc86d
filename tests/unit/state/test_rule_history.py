"""The firings of each rule by hour, in a real state file."""

from __future__ import annotations

import contextlib

import pytest

from watchdog.state.rule_history import FiringCount, RuleHistory
from watchdog.storage.database import Database
from watchdog.storage.folder import STATE_FILE_NAME
from watchdog.storage.schema import SCHEMA_STEPS

DAY = 86_400
NOW = 1_750_000_000.0


@pytest.fixture
def database(tmp_path, clock):
    database = Database(tmp_path / STATE_FILE_NAME, clock)
    yield database
    database.close()


def write(database, history, wall):
    with database.transaction() as connection:
        history.write(connection, wall)
    history.mark_written()


def test_firings_are_counted_by_rule_and_kept(database):
    history = RuleHistory(database)
    history.record_firings(["storm", "storm", "slow"], NOW - 2 * DAY)
    history.record_firings(["storm"], NOW)
    write(database, history, NOW)
    for found in (history, RuleHistory(database)):
        assert found.firings_of("storm", NOW) == FiringCount(NOW, 3)
        assert found.firings_of("slow", NOW) == FiringCount(NOW - 2 * DAY, 1)
        assert found.firings_of("never", NOW) == FiringCount(None, 0)


def test_counts_older_than_seven_days_go_but_the_newest_firing_stays(database):
    history = RuleHistory(database)
    for day in (20, 9, 3):
        history.record_firings(["storm"], NOW - day * DAY)
    history.record_firings(["slow"], NOW - 30 * DAY)
    write(database, history, NOW)
    for found in (history, RuleHistory(database)):
        assert found.firings_of("storm", NOW) == FiringCount(NOW - 3 * DAY, 1)
        assert found.firings_of("slow", NOW) == FiringCount(NOW - 30 * DAY, 0)
    with database.transaction() as connection:
        assert connection.execute("SELECT count(*) FROM rule_firings").fetchone()[0] == 2


def test_a_failed_transaction_is_written_with_the_next(database):
    history = RuleHistory(database)
    history.record_firings(["storm"], NOW)
    with contextlib.suppress(RuntimeError), database.transaction() as connection:
        history.write(connection, NOW)
        raise RuntimeError
    assert RuleHistory(database).firings_of("storm", NOW).count == 0
    write(database, history, NOW)
    assert RuleHistory(database).firings_of("storm", NOW).count == 1


def test_a_file_of_the_version_before_has_no_firings_and_takes_some(tmp_path, clock):
    database = Database(tmp_path / STATE_FILE_NAME, clock)
    with database.transaction() as connection:
        connection.execute("DROP TABLE rule_firings")
        connection.execute("PRAGMA user_version = 9")
    database.close()
    database = Database(tmp_path / STATE_FILE_NAME, clock)
    history = RuleHistory(database)
    history.record_firings(["storm"], NOW)
    write(database, history, NOW)
    with database.transaction() as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == len(SCHEMA_STEPS)
    database.close()
