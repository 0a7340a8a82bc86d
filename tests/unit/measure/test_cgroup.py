"""The control group of a process: from /proc, from the inode number, from reports of new groups, from the cache."""

import os

import numpy as np
import pytest

from watchdog.kernel.layout import CGROUP
from watchdog.measure import cgroup
from watchdog.measure.cgroup import Cgroups

SECOND = 1_000_000_000
START = 5 * SECOND


def write_process(proc, pid, group, start_ns=0):
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "cgroup").write_bytes(group.encode())
    fields = ["S", *["0"] * 18, str(start_ns * os.sysconf("SC_CLK_TCK") // SECOND), "0"]
    (folder / "stat").write_text(f"{pid} (a) b) {' '.join(fields)}\n")


class Host:
    """A host with cgroup v2, one group, and one process, 42, in another group; a walk takes no time."""

    def __init__(self, folder):
        self.root = folder / "cgroup"
        self.group = self.root / "system.slice" / "web.service"
        self.group.mkdir(parents=True)
        write_process(folder / "proc", 42, "0::/system.slice/other.service\n", START)
        self.cgroups = Cgroups(folder / "proc", self.root)
        self.at_ns = SECOND

    def add(self, *groups):
        """Report groups as made: inode, parent's inode, name, maker. They do not exist any more."""
        rows = np.array([(inode, parent, user, 0, name.encode()) for inode, parent, name, user in groups], CGROUP)
        self.cgroups.add(rows, self.at_ns)

    def path(self, pid, inode, start_ns=START):
        return self.cgroups.find_path(pid, start_ns, inode, self.at_ns)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_the_group_recorded_by_the_kernel_is_preferred(host):
    assert host.path(42, host.group.stat().st_ino) == "/system.slice/web.service"


@pytest.mark.parametrize("line_end", ["\r", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_a_group_with_a_line_end_in_its_name_is_no_other_group(tmp_path, line_end):
    path = f"/user.slice/user-1000.slice/x{line_end}0::/system.slice/ssh.service"
    write_process(tmp_path, 42, f"0::{path}\n", START)
    found = Cgroups(tmp_path, tmp_path / "nowhere").find_path(42, START, 0, SECOND)
    assert found == path


def test_the_group_of_an_ended_process_is_found_by_its_inode(host):
    assert host.path(43, host.group.stat().st_ino) == "/system.slice/web.service"


def test_a_group_belongs_to_the_user_to_whom_it_is_delegated(host):
    os.chown(host.group, 998, 998)
    assert host.cgroups.user_of("/system.slice/web.service") == 998
    assert host.cgroups.user_of("/system.slice") == os.getuid()
    assert host.cgroups.user_of("/system.slice/gone.service") == 0


def test_a_deleted_group_is_still_known(host):
    inode = host.group.stat().st_ino
    host.path(43, inode)
    host.group.rmdir()

    assert host.path(43, inode) == "/system.slice/web.service"


@pytest.mark.parametrize("inode", [0, 1])
def test_without_a_recorded_group_the_group_of_the_process_counts(host, inode):
    assert host.path(42, inode) == "/system.slice/other.service"
    assert host.path(43, inode) == ""


@pytest.mark.parametrize("inode", [0, 1, 77_777_777_777])
def test_a_process_with_a_reused_pid_is_ignored(host, inode):
    assert host.path(42, inode, START - SECOND) == ""
    assert host.path(42, inode, START) == "/system.slice/other.service"


def test_the_group_of_a_live_process_needs_no_walk(host, monkeypatch):
    (host.root / "system.slice" / "other.service").mkdir()
    monkeypatch.setattr(cgroup, "_groups", lambda _root: pytest.fail("walked"))

    inode = (host.root / "system.slice" / "other.service").stat().st_ino
    assert host.path(42, inode) == "/system.slice/other.service"


def test_deleted_groups_cost_at_most_one_walk_per_tick(host, monkeypatch):
    walks = []
    groups = cgroup._groups
    monkeypatch.setattr(cgroup, "_groups", lambda root: walks.append(root) or groups(root))

    assert host.path(99, 10**12) == ""
    assert [host.path(99, 10**12 + number) for number in range(1, 200)] == [None] * 199
    assert len(walks) == 1
    host.at_ns += 3600 * SECOND
    assert host.path(99, 10**12 + 1) == ""
    assert len(walks) == 2


def test_walks_take_a_small_share_of_the_time(host, monkeypatch):
    seconds = iter([0, SECOND])
    monkeypatch.setattr(cgroup.time, "perf_counter_ns", lambda: next(seconds))

    assert host.path(99, 10**12) == ""
    host.at_ns += 19 * SECOND
    assert host.path(99, 10**12 + 1) is None
    monkeypatch.undo()
    host.at_ns += SECOND
    assert host.path(99, 10**12 + 1) == ""


def test_only_the_newest_paths_are_cached(host, monkeypatch):
    monkeypatch.setattr(cgroup, "_MAX_CACHED_PATHS", 3)
    inodes = []
    for number in range(9):
        group = host.root / f"{number}.service"
        group.mkdir()
        inodes.append(group.stat().st_ino)
        host.at_ns += 3600 * SECOND
        assert host.path(99, inodes[-1]) == f"/{number}.service"
        host.path(99, inodes[0])
    kept = [inodes[7], inodes[8], inodes[0]]
    assert list(host.cgroups._cached) == kept
    assert len(host.cgroups._walked) == len(list(host.root.rglob("*"))) + 1


def test_a_group_that_is_gone_has_the_path_that_was_reported_when_it_was_made(host):
    host.add((901, host.group.parent.stat().st_ino, "backup.service", 0))
    assert host.path(99, 901) == "/system.slice/backup.service"


def test_groups_made_in_each_other_and_gone_have_their_whole_path(host):
    host.add((901, 1, "new.slice", 0), (902, 901, "job.service", 0))
    host.add((903, 902, "payload", 0))
    assert [host.path(99, inode) for inode in (903, 902, 901)] == [
        "/new.slice/job.service/payload", "/new.slice/job.service", "/new.slice"
    ]  # fmt: skip


def test_a_group_that_existed_at_the_start_and_is_gone_is_known(host):
    inode, parent = host.group.stat().st_ino, host.group.parent.stat().st_ino
    host.add()
    host.group.rmdir()
    host.group.parent.rmdir()
    host.add((901, parent, "late.service", 0))
    host.at_ns += 3600 * SECOND
    assert host.path(99, 10**12) == ""  # walks again

    assert host.path(99, inode) == "/system.slice/web.service"
    assert host.path(99, 901) == "/system.slice/late.service"


def test_a_group_whose_parent_is_not_known_is_searched(host):
    host.add((host.group.stat().st_ino, 10**12, "web.service", 0))
    assert host.path(99, host.group.stat().st_ino) == "/system.slice/web.service"


def test_only_the_newest_groups_are_kept(host, monkeypatch):
    monkeypatch.setattr(cgroup, "_MAX_MADE_GROUPS", 3)
    host.add(*((900 + number, 1, f"{number}.service", 0) for number in range(5)))
    host.add((905, 1, "5.service", 0))
    assert sorted(host.cgroups._made) == [903, 904, 905]


def test_endless_nesting_is_not_followed(host):
    host.add(*((900 + number, 899 + number, "x", 0) for number in range(5000)), (899, 899, "circle", 0))
    host.at_ns += 3600 * SECOND
    assert host.path(99, 5899) == ""


def test_a_name_that_is_not_utf_8_is_kept(host):
    rows = np.zeros(1, CGROUP)
    rows["id"], rows["parent_id"], rows["name"] = 901, 1, b"caf\xe9.service"
    host.cgroups.add(rows, host.at_ns)
    assert host.path(99, 901) == "/caf\udce9.service"


def test_a_group_that_is_gone_belonged_to_the_maker_of_the_groups_in_it(host):
    host.add((901, 1, "app.service", 0), (902, 901, "docker", 33), (903, 901, "other", 0), (904, 1, "db.service", 0))
    for inode in (902, 903, 904):
        host.path(99, inode)
    assert [host.cgroups.user_of(path) for path in ("/app.service", "/app.service/docker", "/db.service")] == [33, 0, 0]


def test_on_hybrid_hosts_the_hierarchy_of_systemd_has_the_unit(tmp_path):
    write_process(tmp_path, 42, "4:memory:/x\n1:name=systemd:/system.slice/db.service\n0::/\n")

    assert Cgroups(tmp_path, tmp_path / "none").find_path(42, 0, 1, SECOND) == "/system.slice/db.service"
