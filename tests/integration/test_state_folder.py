"""The ownership that root gives to the account in a state folder, and files that it must not give."""

from __future__ import annotations

import os
import pwd

import pytest

from watchdog.errors import StoreError
from watchdog.storage.folder import prepare_folder

ACCOUNT = pwd.getpwnam("nobody")  # any that is not root


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def victim(tmp_path):
    """Return a file of root that the account must not get."""
    file = tmp_path / "victim"
    file.write_text("root's")
    return file


def owner(path):
    return path.lstat().st_uid


def test_a_folder_that_is_made_is_private_and_the_accounts(state):
    prepare_folder(state, ACCOUNT)

    assert owner(state) == ACCOUNT.pw_uid
    assert state.stat().st_mode & 0o777 == 0o700


def test_without_an_account_to_become_it_stays_ours(state):
    prepare_folder(state, None)

    assert owner(state) == os.geteuid()


def test_state_that_root_has_written_is_given_with_its_folder(state):
    state.mkdir()
    files = [state / name for name in ("state.sqlite3", "state.sqlite3-wal", "state.sqlite3-shm")]
    for file in files:
        file.write_text("")
    prepare_folder(state, ACCOUNT)

    assert {owner(path) for path in (state, *files)} == {ACCOUNT.pw_uid}


def test_a_folder_with_other_files_is_not_given_and_the_error_has_the_remedy(state):
    state.mkdir()
    (state / "state.sqlite3").write_text("")
    (state / "letters").write_text("")

    with pytest.raises(StoreError, match=f"contains more than state, such as letters: .* chown nobody: {state}$"):
        prepare_folder(state, ACCOUNT)
    assert (owner(state), owner(state / "state.sqlite3")) == (0, 0)


def test_a_folder_that_the_account_has_already_may_hold_anything(state):
    state.mkdir()
    os.chown(state, ACCOUNT.pw_uid, ACCOUNT.pw_gid)
    for name in ("letters", "state.sqlite3"):
        (state / name).write_text("")
    prepare_folder(state, ACCOUNT)

    assert (owner(state / "letters"), owner(state / "state.sqlite3")) == (0, ACCOUNT.pw_uid)


def test_no_link_leads_to_another_file(state, victim):
    state.mkdir()
    (state / "state.sqlite3").hardlink_to(victim)
    prepare_folder(state, ACCOUNT)
    assert owner(victim) == 0
    (state / "state.sqlite3").unlink()
    (state / "state.sqlite3").symlink_to(victim)

    with pytest.raises(StoreError, match="cannot use the state folder"):
        prepare_folder(state, ACCOUNT)
    assert owner(victim) == 0


def test_no_link_leads_to_another_folder(state, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    state.symlink_to(other)

    with pytest.raises(StoreError, match=f"is a symbolic link: .* --state-dir {other}$"):
        prepare_folder(state, ACCOUNT)
    assert owner(other) == 0


def test_a_file_is_no_folder(victim):
    with pytest.raises(StoreError, match=f"^{victim} is not a folder: use another folder: --state-dir DIR$"):
        prepare_folder(victim, ACCOUNT)


@pytest.mark.parametrize("is_own", [True, False], ids=["folder", "folder above"])
def test_a_folder_that_others_can_replace_is_refused(state, is_own):
    folder = state if is_own else state / "below"
    folder.mkdir(parents=True)
    os.chown(state, 5, 5)

    with pytest.raises(
        StoreError, match=f"^state folder: {state}: belongs to .*, who can change it: chown root {state}$"
    ):
        prepare_folder(folder, ACCOUNT)
    assert owner(folder) == (5 if is_own else 0)


def test_a_folder_to_which_others_can_add_files_is_refused(state):
    state.mkdir()
    state.chmod(0o1777)

    with pytest.raises(StoreError, match=f"^state folder: {state}: other users can add files to it: chmod go-w"):
        prepare_folder(state, ACCOUNT)
