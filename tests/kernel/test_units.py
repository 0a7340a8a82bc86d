"""Connections of real control groups have the unit, container and user of their path, and none that a user forged."""

import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOTS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
ID, OTHER = "3f5a" * 16, "9c1e" * 16
C, D = ID[:12], OTHER[:12]
UID = 33
HOST_USER = next((user.pw_name for user in pwd.getpwall() if user.pw_uid == UID), str(UID))
# The process joins the group, changes its user, and makes three connections to itself; both ends are its own.
CLIENT = f"""
import os, socket, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as processes:
    processes.write("0")
os.setuid({UID})
with socket.create_server(("127.0.0.1", 0)) as server:
    for _ in range(3):
        with socket.create_connection(server.getsockname()), server.accept()[0]:
            pass
    print(server.getsockname()[1], flush=True)
sys.stdin.readline()
"""


USER_MANAGER = "user.slice/user-1000.slice/user@1000.service"


@pytest.fixture
def make_group() -> Iterator[Callable[[str], Path]]:
    """Return a function that makes a group of cgroup v2; the groups it made are removed after the test."""
    root = next(folder for folder in ROOTS if (folder / "cgroup.procs").exists())
    made = []

    def make(path: str) -> Path:
        folder = root / path
        new = [one for one in reversed([folder, *folder.parents]) if not one.exists()]
        folder.mkdir(parents=True)
        made.extend(new)
        return folder

    yield make
    for folder in reversed(made):
        folder.rmdir()


def places(reader, group: Path) -> set[tuple[str, str, str]]:
    """Return unit, container and user of the connections of a client in this group."""
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT, group], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as client:
        rows = reader.until_closed(6, int(client.stdout.readline()))
        assert rows.values("pid") == {client.pid}
    return {(row["unit"], row["container"], row["user"]) for row in rows}


def test_a_connection_has_the_unit_container_and_user_of_its_control_group(reader, make_group):
    expected = {
        "system.slice/watchdog-trial.service": ("watchdog-trial.service", "", HOST_USER),
        f"{USER_MANAGER}/app.slice/watchdog-trial.service": ("user@1000/watchdog-trial.service", "", HOST_USER),
        f"system.slice/docker-{ID}.scope": (f"docker-{ID}.scope", C, str(UID)),
        f"system.slice/docker-{OTHER}.scope/system.slice/ssh.service": (f"{D}/ssh.service", D, str(UID)),
        f"{USER_MANAGER}/user.slice/libpod-{ID}.scope/container": (
            f"user@1000/libpod-{ID}.scope", f"user@1000/{C}", str(UID)
        ),
        "lxc.payload.trial/system.slice/ssh.service": ("trial/ssh.service", "trial", str(UID)),
    }  # fmt: skip
    assert {path: places(reader, make_group(path)) for path in expected} == {
        path: {place} for path, place in expected.items()
    }


def test_a_service_that_is_delegated_to_a_user_has_no_container_of_the_host(reader, make_group):
    group = make_group(f"system.slice/watchdog-trial.service/docker-{ID}.scope")
    os.chown(group.parent, UID, UID)

    assert places(reader, group) == {("watchdog-trial.service", f"watchdog-trial.service/{C}", HOST_USER)}
