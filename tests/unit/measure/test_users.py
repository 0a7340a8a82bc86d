"""User names: local ones at once, others without waiting."""

from __future__ import annotations

import threading
import time

import pytest

from watchdog.measure import users as users_module
from watchdog.measure.users import UserNames

SECOND = 1_000_000_000


@pytest.fixture
def passwd(tmp_path):
    path = tmp_path / "passwd"
    path.write_text("root:x:0:0::/root:/bin/sh\nweb:x:33:33::/:/bin/sh\nalias:x:33:33::/:/bin/sh\n+::::::\n\nx:y:z\n")
    return path


class Directory:
    """A directory server that responds to lookups, from any thread, after `open` is set."""

    def __init__(self):
        self.open, self.closed = threading.Event(), threading.Event()
        self.lookups = []
        self.names = {1000: "alice"}

    def name(self, uid):
        self.lookups.append(uid)
        self.open.wait(60)
        return self.names.get(uid)

    def close(self):
        """Called by the thread when it has been idle for a while."""
        self.closed.set()


@pytest.fixture
def directory():
    server = Directory()
    yield server
    server.open.set()


def wait_for_results(users, count):
    deadline = time.monotonic() + 60
    while users._results.qsize() < count and time.monotonic() < deadline:
        threading.Event().wait(0.001)
    assert users._results.qsize() == count


def test_local_users_are_known_at_once_without_a_lookup(passwd, directory):
    users = UserNames(passwd, directory)
    users.update([0, 33], SECOND)
    assert (users.name(0), users.name(33), users.name(4)) == ("root", "web", "4")
    assert directory.lookups == []


def test_a_user_of_a_directory_is_a_number_until_the_lookup_ends(passwd, directory):
    users = UserNames(passwd, directory)
    users.update([1000], SECOND)
    users.update([1000], 2 * SECOND)
    assert users.name(1000) == "1000"
    directory.open.set()
    wait_for_results(users, 1)
    users.update([1000], 3 * SECOND)
    assert users.name(1000) == "alice"


def test_a_user_is_looked_up_again_after_some_time_and_not_before(passwd, directory):
    directory.open.set()
    users = UserNames(passwd, directory)
    users.update([1000], SECOND)
    wait_for_results(users, 1)
    directory.names[1000] = "bob"
    users.update([1000], 600 * SECOND)
    assert directory.lookups == [1000]
    users.update([1000], 601 * SECOND)
    wait_for_results(users, 1)
    assert users.name(1000) == "alice"
    users.update([1000], 602 * SECOND)
    assert users.name(1000) == "bob"


def test_an_unknown_user_keeps_the_number(passwd, directory):
    directory.open.set()
    users = UserNames(passwd, directory)
    users.update([7777], SECOND)
    wait_for_results(users, 1)
    users.update([7777], 2 * SECOND)
    assert users.name(7777) == "7777"


def test_a_hanging_directory_gets_one_request_per_user(passwd, directory):
    users = UserNames(passwd, directory)
    for hour in range(1, 50):
        users.update([1000, 1001], hour * 3600 * SECOND)
    assert users._requests.qsize() <= 2
    assert users.name(1000) == "1000"


def test_the_lookup_ends_its_process_when_idle_and_starts_again(passwd, directory, monkeypatch):
    monkeypatch.setattr(users_module, "_IDLE_SECONDS", 0.01)
    directory.open.set()
    users = UserNames(passwd, directory)
    users.update([1000], SECOND)
    assert directory.closed.wait(60)
    users.update([1000, 1001], 2 * SECOND)
    wait_for_results(users, 1)
    assert users.name(1000) == "alice"


def test_users_out_of_use_are_forgotten(passwd, directory):
    directory.open.set()
    users = UserNames(passwd, directory)
    users.update([1000], SECOND)
    wait_for_results(users, 1)
    users.update([1000], 2 * SECOND)
    users.update([], 3 * SECOND)
    assert users.name(1000) == "1000"
    assert users._requested_ns == {}


def test_a_changed_file_is_read_again(passwd):
    users = UserNames(passwd)
    assert users.name(55) == "55"
    passwd.write_text("new:x:55:55::/:/bin/sh\nmore:x:56:\n")
    users.update([], SECOND)
    assert users.name(55) == "new"


def test_without_the_file_users_are_numbers(tmp_path):
    assert UserNames(tmp_path / "none").name(0) == "0"
