"""Temporary folders of killed processes are removed by the next start; nothing else is."""

import os
import select
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from watchdog.kernel import privileges
from watchdog.kernel.temporary_folder import remove_abandoned_folders, temporary_folder

PREFIX = "bpf-watchdog-tmp-"
OWNER = """
import subprocess, sys
from watchdog.kernel.temporary_folder import temporary_folder
with temporary_folder(sys.argv[1]) as folder:
    folder.path.joinpath("kernel").mkdir()
    folder.path.joinpath("kernel/header").write_text("x")
    if len(sys.argv) > 2:
        child = subprocess.Popen(["sleep", "60"], pass_fds=[folder.lock_fd], stdout=subprocess.DEVNULL)
        print(child.pid, flush=True)
    print(folder.path, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def owner(tmp_path):
    """Return a function that starts a process with a folder in `tmp_path`; it ends with the test."""
    started = []

    def start(*arguments):
        command = [sys.executable, "-c", OWNER, str(tmp_path), *arguments]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def made(place, name="of-a-killed-process"):
    folder = place / f"{PREFIX}{name}"
    folder.mkdir(0o700)
    return folder


def end(pid):
    """Kill a process that is no child of this one, and wait for its end."""
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([pidfd], [], [], 60)
    os.close(pidfd)


def line(process):
    return process.stdout.readline().strip()


def test_a_folder_goes_with_its_use(tmp_path):
    with temporary_folder(str(tmp_path)) as folder:
        (folder.path / "file").write_text("x")
        assert folder.path.stat().st_mode & 0o777 == 0o700
        remove_abandoned_folders([str(tmp_path)])
        assert (folder.path / "file").exists()

    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(tmp_path, owner):
    killed, living = owner(), owner()
    abandoned, used = Path(line(killed)), Path(line(living))
    killed.kill()
    killed.wait()
    assert (abandoned / "kernel/header").exists()
    remove_abandoned_folders(["/nonexistent", str(tmp_path)])

    assert list(tmp_path.iterdir()) == [used]
    assert (used / "kernel/header").exists()


def test_a_folder_stays_until_a_child_of_the_killed_process_has_ended_too(tmp_path, owner):
    killed = owner("with a child")
    child, folder = int(line(killed)), Path(line(killed))
    killed.kill()
    killed.wait()
    try:
        remove_abandoned_folders([str(tmp_path)])
        assert (folder / "kernel/header").exists()
    finally:
        end(child)
    remove_abandoned_folders([str(tmp_path)])

    assert not folder.exists()


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_may_write_stays(tmp_path, mode):
    folder = made(tmp_path)
    folder.chmod(mode)
    remove_abandoned_folders([str(tmp_path)])

    assert folder.exists()


def test_root_removes_those_of_the_service_account_and_of_no_other(tmp_path):
    own, stranger = made(tmp_path, "own"), made(tmp_path, "stranger")
    os.chown(own, privileges.service_account().pw_uid, -1)
    os.chown(stranger, 65534, -1)
    remove_abandoned_folders([str(tmp_path)])

    assert list(tmp_path.iterdir()) == [stranger]


def test_links_are_not_followed_and_other_files_stay(tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (target / "file").write_text("x")
    (tmp_path / f"{PREFIX}link").symlink_to(target)
    (tmp_path / f"{PREFIX}file").write_text("x")
    os.mkfifo(tmp_path / f"{PREFIX}fifo")
    (tmp_path / "bpf-watchdog-other").mkdir()
    (made(tmp_path) / "link").symlink_to(target)
    remove_abandoned_folders([str(tmp_path)])

    kept = {"target", f"{PREFIX}link", f"{PREFIX}file", f"{PREFIX}fifo", "bpf-watchdog-other"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert (target / "file").read_text() == "x"


def test_starts_at_the_same_time_remove_no_folder_in_use(tmp_path):
    def begin(_):
        remove_abandoned_folders([str(tmp_path)])
        with temporary_folder(str(tmp_path)) as folder:
            (folder.path / "file").write_text("x")
            remove_abandoned_folders([str(tmp_path)])
            return (folder.path / "file").exists()

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(begin, range(400)))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_removed_before_it_is_locked_is_made_anew(tmp_path, monkeypatch):
    make, removed = tempfile.mkdtemp, []

    def make_and_lose(**options):
        path = make(**options)
        if not removed:
            remove_abandoned_folders([str(tmp_path)])  # by another start, at this moment
            removed.append(Path(path))
        return path

    monkeypatch.setattr(tempfile, "mkdtemp", make_and_lose)
    with temporary_folder(str(tmp_path)) as folder:
        assert not removed[0].exists()
        assert list(tmp_path.iterdir()) == [folder.path]
