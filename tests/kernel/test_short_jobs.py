"""Jobs have their unit, container and user although their control group is gone before the next reading."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

ROOTS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
ROOT = next(folder for folder in ROOTS if (folder / "cgroup.procs").exists())
ID = "3f5a" * 16
UID = 33
USER = next((user.pw_name for user in pwd.getpwall() if user.pw_uid == UID), str(UID))
# For each line "UID PATH": make the groups of the path that do not exist, let a child in the last one become the user
# and connect to itself once, remove these groups, and print a line.
JOBS = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
for line in sys.stdin:
    uid, root, path = line.split()
    made, folder = [], root
    for part in path.split("/"):
        folder += "/" + part
        if not os.path.isdir(folder):
            os.mkdir(folder)
            made.append(folder)
    pid = os.fork()
    if pid == 0:
        with open(folder + "/cgroup.procs", "w") as processes:
            processes.write("0")
        os.setuid(int(uid))
        with socket.create_connection(listener.getsockname()):
            listener.accept()[0].close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    for folder in reversed(made):
        os.rmdir(folder)
    print(pid, flush=True)
"""
# As the user, make and remove groups in the folder until the number is reached.
FLOOD = """
import os, sys
folder, count = sys.argv[1], int(sys.argv[2])
with open(folder + "/cgroup.procs", "w") as processes:
    processes.write("0")
os.setuid(33)
for number in range(count):
    os.mkdir(f"{folder}/{number}.service")
    os.rmdir(f"{folder}/{number}.service")
"""


class Jobs:
    """Runs jobs one after another; `pids`: of the jobs so far, by path."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", JOBS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.port = int(self.process.stdout.readline())
        self.pids: dict[int, str] = {}

    def run(self, path: str, uid: int = 0) -> None:
        self.process.stdin.write(f"{uid} {ROOT} {path}\n")
        self.process.stdin.flush()
        self.pids[int(self.process.stdout.readline())] = path

    def places(self, reader) -> dict[str, tuple[str, str, str]]:
        """Return unit, container and user of the jobs' connections, by path."""
        rows = reader.until_closed(2 * len(self.pids), self.port).where(direction="out")
        assert len(rows) == len(self.pids)
        return {self.pids[row["pid"]]: (row["unit"], row["container"], row["user"]) for row in rows}


@pytest.fixture
def jobs():
    """Return a runner of jobs."""
    runner = Jobs()
    yield runner
    runner.process.stdin.close()
    runner.process.stdout.close()
    assert runner.process.wait(60) == 0


@pytest.fixture
def delegated():
    """Return the folder of a group that belongs to a user; the groups that the test leaves are removed."""
    folder = ROOT / "system.slice/watchdog-delegated.service"
    folder.mkdir(parents=True)
    os.chown(folder, UID, UID)
    os.chown(folder / "cgroup.procs", UID, UID)
    yield folder
    folder.rmdir()


@pytest.mark.everywhere
def test_a_unit_and_a_container_that_are_gone_are_known(reader, jobs):
    expected = {}
    for number in range(25):
        path = f"watchdog-trial.slice/backup-{number}.service"
        jobs.run(path, UID)
        expected[path] = (f"backup-{number}.service", "", USER)
        path = f"watchdog-trial.slice/docker-{number:02d}{ID[2:]}.scope"
        jobs.run(path, UID)
        expected[path] = (path.split("/")[1], f"{number:02d}{ID[2:12]}", str(UID))
    user = "user.slice/user-1000.slice/user@1000.service/app.slice/job.service"
    jobs.run(user, UID)
    expected[user] = ("user@1000/job.service", "", USER)

    assert jobs.places(reader) == expected


def test_a_group_that_existed_at_the_start_and_is_gone_is_known(start_reader, jobs):
    folder = ROOT / "watchdog-old.service"
    folder.mkdir()
    reader = start_reader()
    jobs.run("watchdog-old.service/below")
    jobs.run("watchdog-old.service")
    folder.rmdir()

    assert set(jobs.places(reader).values()) == {("watchdog-old.service", "", "root")}


def test_many_groups_of_a_user_hide_no_unit_of_the_system(start_reader, jobs, delegated):
    reader = start_reader()
    subprocess.run([sys.executable, "-c", FLOOD, delegated, "4000"], check=True)
    for number in range(20):
        jobs.run(f"watchdog-trial.slice/backup-{number}.service")
    places = jobs.places(reader)

    assert [place[0] for place in places.values()] == [f"backup-{number}.service" for number in range(20)]


def test_a_service_of_a_user_that_is_gone_has_no_container_of_the_host(reader, jobs):
    script = f"""
import os, sys
os.mkdir("{ROOT}/watchdog-forger.service")
os.chown("{ROOT}/watchdog-forger.service", {UID}, {UID})
pid = os.fork()
if pid == 0:
    os.setuid({UID})
    os.mkdir("{ROOT}/watchdog-forger.service/docker-{ID}.scope")
    os._exit(0)
os.waitpid(pid, 0)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    path = f"watchdog-forger.service/docker-{ID}.scope"
    jobs.run(path)
    for folder in (ROOT / path, (ROOT / path).parent):
        folder.rmdir()

    assert jobs.places(reader)[path][:2] == ("watchdog-forger.service", f"watchdog-forger.service/{ID[:12]}")
