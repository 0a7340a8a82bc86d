import contextlib
import os
import shutil
import sqlite3
import stat
import threading

import pytest

from factories import FakeClock
from watchdog.errors import StoreError
from watchdog.storage.database import Database
from watchdog.storage.schema import SCHEMA_STEPS


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "state.sqlite3"


def test_makes_folder_and_file_that_only_its_user_can_read(path):
    old = os.umask(0)
    try:
        database = Database(path)
        with database.transaction() as connection:
            connection.execute("INSERT INTO alerts (fingerprint, kind, document) VALUES ('a', 'rule', '{}')")
        modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(path.parent)}
        database.close()
    finally:
        os.umask(old)
    assert modes == {"state.sqlite3": 0o600, "state.sqlite3-wal": 0o600, "state.sqlite3-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_narrows_the_mode_of_a_file_that_others_could_read(path):
    Database(path).close()
    path.chmod(0o644)
    Database(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_every_commit_is_synced(path):
    database = Database(path)
    with database.transaction() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    database.close()


def test_second_daemon_on_the_same_folder_is_refused_until_the_first_has_closed(path):
    first = Database(path)
    with pytest.raises(StoreError, match=rf"another bpf-watchdog uses {path.parent}: .*--state-dir"):
        Database(path)
    first.close()
    Database(path).close()


def add_alerts(database, rows):
    with database.transaction() as connection:
        for row in rows:
            connection.execute("INSERT INTO alerts (fingerprint, kind, document) VALUES (?, 'rule', ?)", row)


def test_failed_block_leaves_nothing_behind(path):
    database = Database(path)
    with pytest.raises(StoreError, match="UNIQUE"):
        add_alerts(database, [("a", "{}"), ("a", "{}")])
    with pytest.raises(ZeroDivisionError):
        add_alerts(database, ((str(1 // number), "{}") for number in (1, 0)))
    with database.transaction() as connection:
        assert connection.execute("SELECT count(*) FROM alerts").fetchone() == (0,)
    database.close()


def test_full_file_is_a_store_error_and_the_next_transaction_works(path):
    database = Database(path)
    with database.transaction() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match=rf"cannot write {path}: database or disk is full"):
        add_alerts(database, [("a", "x" * 100_000)])
    add_alerts(database, [("a", "{}")])
    database.close()


def test_closed_database_says_so(path):
    database = Database(path)
    database.close()
    with pytest.raises(StoreError, match="closed"), database.transaction():
        pass


def test_threads_take_turns(path):
    database = Database(path)

    def add_many(name):
        for number in range(20):
            with database.transaction() as connection:
                row = (f"{name}{number}", "{}")
                connection.execute("INSERT INTO alerts (fingerprint, kind, document) VALUES (?, 'rule', ?)", row)

    threads = [threading.Thread(target=add_many, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.transaction() as connection:
        assert connection.execute("SELECT count(*) FROM alerts").fetchone() == (60,)
    database.close()


def test_database_of_another_program_is_refused_and_left_as_it_is(path):
    path.parent.mkdir()
    foreign = sqlite3.connect(path)
    foreign.execute("CREATE TABLE recipes (name TEXT)")
    foreign.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=rf"{path} belongs to another program: move it away"):
        Database(path)
    assert path.read_bytes() == before


def test_file_of_a_newer_version_is_refused(path):
    Database(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(SCHEMA_STEPS) + 1}")
    connection.close()
    with pytest.raises(StoreError, match=rf"{path} was written by a newer bpf-watchdog"):
        Database(path)


def test_link_in_place_of_the_file_is_refused(path, tmp_path):
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=f"cannot open {path}: Too many levels of symbolic links"):
        Database(path)
    assert not (tmp_path / "elsewhere").exists()


def test_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "state").write_text("")
    with pytest.raises(StoreError, match=f"cannot use the state folder {tmp_path}/state: "):
        Database(tmp_path / "state" / "state.sqlite3")


def test_pipe_in_place_of_the_file_is_refused_and_the_folder_let_go(path):
    path.parent.mkdir()
    os.mkfifo(path)
    for _ in range(2):
        with pytest.raises(StoreError, match=f"{path} is not a regular file"):
            Database(path)


def fingerprints(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT fingerprint FROM alerts ORDER BY fingerprint")]


def another_file(path):
    other = path.with_name("other")
    with contextlib.closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE t (x)")
    other.replace(path)


@pytest.mark.parametrize(
    ("harm", "aside"),
    [
        (lambda path: path.unlink(), 0),
        (lambda path: [file.unlink() for file in path.parent.iterdir()], 0),
        (lambda path: path.with_name("state.sqlite3-wal").unlink(), 0),
        (lambda path: path.with_name("state.sqlite3-shm").unlink(), 0),
        (lambda path: path.rename(path.with_name("elsewhere")), 0),
        (another_file, 1),
    ],
    ids=["file removed", "all removed", "WAL removed", "index removed", "file renamed", "file replaced"],
)
def test_a_file_that_somebody_removes_while_it_is_open_is_written_again(path, caplog, harm, aside):
    database = Database(path)
    add_alerts(database, [("a", "{}"), ("b", "{}")])
    harm(path)
    add_alerts(database, [("c", "{}")])
    add_alerts(database, [("d", "{}")])
    assert fingerprints(path) == ["a", "b", "c", "d"]
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "state file removed or replaced while in use, written again"
    ]
    database.close()
    database = Database(path)
    add_alerts(database, [("e", "{}")])
    database.close()

    assert fingerprints(path) == ["a", "b", "c", "d", "e"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(list(path.parent.glob("state.sqlite3.damaged-*Z"))) == aside


def test_without_its_folder_the_open_file_is_used_and_written_again_when_that_is_back(path, caplog):
    clock = FakeClock()
    database = Database(path, clock)
    add_alerts(database, [("a", "{}")])
    shutil.rmtree(path.parent)
    add_alerts(database, [("b", "{}")])
    add_alerts(database, [("c", "{}")])
    message = "state file removed or replaced while in use, cannot be written again"
    assert [record.message for record in caplog.records] == [f"{message}: file={path} reason=No such file or directory"]
    path.parent.mkdir()
    clock.advance(60)
    add_alerts(database, [("d", "{}")])
    database.close()

    assert fingerprints(path) == ["a", "b", "c", "d"]
