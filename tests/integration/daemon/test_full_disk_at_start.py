"""A start whose state folder has no space: any user can fill a disk, so another start may succeed."""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest


@pytest.fixture(params=["size=64k", "nr_inodes=2"])
def full_disk(watchdog, request):
    """Mount a small file system at the state folder, and leave no space or no inode in it."""
    watchdog.state.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"{request.param},mode=755", "x", watchdog.state], check=True)
    folder = watchdog.state / "state"
    folder.mkdir()
    if request.param.startswith("size"):
        with (watchdog.state / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(4096))
    yield folder
    subprocess.run(["umount", watchdog.state], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_the_exit_code_says_that_another_start_can_succeed(watchdog, server, storm, full_disk):
    watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.crowd_rule()})
    command = [watchdog.command, "run", "--config", watchdog.config, "--rules", watchdog.rules]
    done = subprocess.run([*command, "--state-dir", full_disk], capture_output=True, text=True, check=False, cwd="/")

    assert done.returncode == os.EX_TEMPFAIL
    assert f"cannot open {full_disk}/state.sqlite3: " in done.stderr
