"""Names of owners: correct, bounded in number, and kept while the owner has connections."""

from __future__ import annotations

import time

import numpy as np
import pytest

from watchdog.kernel.layout import CONNECTION, OWNER
from watchdog.measure import attribution as module
from watchdog.measure.attribution import OWNER_DIMENSIONS, Attribution
from watchdog.measure.catalogue import OTHER_CODE
from watchdog.measure.interning import InternedNames

SECOND = 1_000_000_000


class Cgroups:
    """Control groups by number: `paths`, else `/<number>.service`; unknown while `known` is False.

    `users`: owners of the groups, by path.
    """

    def __init__(self):
        self.paths, self.users = {}, {}
        self.lookups = []
        self.known = True

    def find_path(self, pid, start_ns, inode, at_ns):
        self.lookups.append(pid)
        return self.paths.get(inode, f"/{inode}.service") if self.known else None

    def user_of(self, path):
        return self.users.get(path, 0)


class Users:
    """User names by uid."""

    def __init__(self):
        self.names = {0: "root"}
        self.new_names = {}
        self.requested = set()

    def name(self, uid):
        return self.names.get(uid, str(uid))

    def update(self, uids, at_ns):
        self.requested |= set(uids)
        self.names |= self.new_names


class Host:
    """An attribution with fake control groups and users, advanced tick by tick."""

    def __init__(self, **bounds):
        self.names, self.cgroups, self.users = InternedNames(**bounds), Cgroups(), Users()
        self.attribution = Attribution(self.names, self.cgroups, self.users)
        self.at_ns = 1000 * SECOND

    def tick(self, owners, seconds=1):
        self.at_ns += seconds * SECOND
        slots = self.attribution.assign(owners, np.empty(0, np.int32), self.at_ns)
        self.codes = {name: self.attribution.codes(name, slots) for name in OWNER_DIMENSIONS}
        return self.codes

    def texts(self, dimension):
        return [self.names.text(dimension, code) for code in self.codes[dimension].tolist()]


@pytest.fixture
def host():
    return Host()


def owners(*pids, **values):
    rows = np.zeros(len(pids), OWNER)
    rows["tgid"], rows["start_ns"], rows["comm"], rows["exe"], rows["cgroup_id"] = pids, 5, b"curl", b"curl", 9
    for name, value in values.items():
        rows[name] = value
    return rows


def test_an_owner_has_its_names(host):
    rows = np.zeros(2, CONNECTION)
    rows["owner"] = owners(7, 8, comm=[b"a", b"b\xff"], uid=[0, 1000])
    host.tick(rows["owner"])
    assert host.texts("process") == ["a", "b\udcff"]
    assert host.texts("user") == ["root", "1000"]
    assert host.texts("unit") == ["9.service", "9.service"]


def test_a_connection_without_owner_is_unattributed(host):
    host.tick(np.zeros(1, OWNER))
    assert [host.texts(name) for name in ("process", "exe", "user", "unit", "container")] == [
        ["(unattributed)"], [""], [""], [""], [""],
    ]  # fmt: skip


def test_a_tick_without_connections_has_no_codes(host):
    assert {len(column) for column in host.tick(np.zeros(0, CONNECTION)["owner"]).values()} == {0}


def test_an_owner_that_stays_is_looked_up_once(host):
    for _ in range(100):
        host.tick(owners(7, 7, 7))
    assert host.cgroups.lookups == [7]


def test_owners_that_differ_in_any_byte_are_distinct(host):
    random = np.random.default_rng(1)
    rows = random.integers(0, 2, (5_000, OWNER.itemsize // 8), dtype=np.uint64).astype("<u8").view(OWNER).reshape(-1)
    rows["tgid"] = 1
    rows["comm"] = [f"c{number % 700}".encode() for number in range(5_000)]
    host.tick(rows)
    assert host.texts("process") == [comm.decode() for comm in rows["comm"].tolist()]


def test_two_attributions_hash_with_different_multipliers():
    assert Host().attribution._owners._multipliers != Host().attribution._owners._multipliers


def test_short_lived_processes_are_not_remembered(host):
    for tick in range(300):
        host.tick(owners(*range(tick * 100, tick * 100 + 100), comm=b"sh"))
    assert host.attribution._owners.capacity <= 2048


def test_owners_beyond_the_bound_have_no_names(monkeypatch):
    monkeypatch.setattr(module, "_MAX_OWNERS", 256)
    host = Host()
    codes = host.tick(owners(*range(1, 301)))
    assert (codes["process"] == OTHER_CODE).sum() == 45


def test_owners_of_one_moment_make_room_for_others():
    host = Host()
    for tick in range(6):
        codes = host.tick(owners(*range(tick * 30_000, tick * 30_000 + 30_000), comm=b"sh"))
    assert (codes["process"] == OTHER_CODE).sum() == 0


def test_an_owner_without_a_name_for_lack_of_space_gets_one_later():
    host = Host(max_names=3)
    host.names.set_retention(10 * SECOND)
    codes = host.tick(owners(1, 2, 3, comm=[b"a", b"b", b"c"]))
    (unnamed,) = np.flatnonzero(codes["process"] == OTHER_CODE)  # the hash decides which of the three
    for _ in range(90):
        host.tick(owners(unnamed + 1, comm=[b"abc"[unnamed : unnamed + 1]]))
    assert host.texts("process") == ["abc"[unnamed]]


def test_names_in_use_are_never_forgotten(host):
    host.names.set_retention(SECOND)
    codes = host.tick(owners(1))["process"].tolist()
    for _ in range(200):
        host.tick(owners(1))
    assert host.tick(owners(1))["process"].tolist() == codes
    assert host.texts("process") == ["curl"]


def test_an_unknown_group_is_looked_up_again(host):
    host.cgroups.known = False
    host.tick(owners(7))
    assert host.texts("unit") == [""]
    host.cgroups.known = True
    host.tick(owners(7))
    host.tick(owners(7))
    assert host.texts("unit") == ["9.service"]
    assert host.cgroups.lookups == [7, 7]


def test_slow_lookups_of_groups_are_left_for_later_ticks(host, monkeypatch):
    find_path = host.cgroups.find_path

    def find_slowly(*arguments):
        time.sleep(0.05)
        return find_path(*arguments)

    monkeypatch.setattr(host.cgroups, "find_path", find_slowly)
    pids = range(1, 13)
    host.tick(owners(*pids))
    assert len(host.cgroups.lookups) <= 5  # 0.2 s
    assert set(host.texts("process")) == {"curl"}
    for _ in range(len(pids)):
        host.tick(owners(*pids))
    assert set(host.texts("unit")) == {"9.service"}
    assert sorted(host.cgroups.lookups) == list(pids)


def test_few_owners_are_looked_up_again_in_one_tick(host):
    host.cgroups.known = False
    rows = owners(*range(1, 2001))
    host.tick(rows)
    before = len(host.cgroups.lookups)
    host.tick(rows)
    assert len(host.cgroups.lookups) - before == 256


def test_a_user_is_shown_by_name_as_soon_as_the_name_is_known(host):
    rows = owners(7, 8, 0, uid=[1000, 0, 0])
    rows[2] = np.zeros(1, OWNER)[0]
    host.tick(rows)
    host.users.new_names = {1000: "alice", 0: "admin"}
    host.tick(rows, seconds=15)
    assert host.texts("user") == ["alice", "admin", ""]


def test_users_of_a_container_are_numbers_whatever_the_host_calls_them(host):
    host.cgroups.paths = {1: "/system.slice/docker-" + "ab" * 32 + ".scope", 2: "/system.slice/web.service"}
    host.users.names[999] = "bpf-watchdog"
    rows = owners(7, 8, 9, uid=[999, 999, 1000], cgroup_id=[1, 2, 1])
    host.tick(rows)
    assert host.texts("user") == ["999", "bpf-watchdog", "1000"]
    assert host.texts("unit") == ["docker-" + "ab" * 32 + ".scope", "web.service", "docker-" + "ab" * 32 + ".scope"]
    host.users.new_names = {999: "renamed", 1000: "alice"}
    host.tick(rows, seconds=15)
    assert host.texts("user") == ["999", "renamed", "1000"]
    assert host.users.requested == {999}


def test_the_root_of_a_users_own_container_is_that_user(host):
    slice_ = "/user.slice/user-1000.slice/user@1000.service/user.slice"
    host.cgroups.paths = {1: f"{slice_}/libpod-{'ab' * 32}.scope/container"}
    host.users.names[1000] = "alice"
    host.tick(owners(7, 8, uid=[1000, 100_032], cgroup_id=1))
    assert host.texts("user") == ["alice", "100032"]
    assert host.texts("container") == ["user@1000/abababababab"] * 2


def test_a_service_of_a_user_cannot_claim_a_container_of_the_host(host):
    host.cgroups.paths = {
        number: f"/system.slice/{name}.service/docker-{'ab' * 32}.scope" for number, name in enumerate(["ci", "web"], 5)
    }
    host.cgroups.users = {"/system.slice/ci.service": 998, "/system.slice/web.service": 0}
    host.users.names[998] = "ci"
    host.tick(owners(7, 8, uid=998, cgroup_id=[5, 6]))
    assert host.texts("unit") == ["ci.service", "web.service"]
    assert host.texts("container") == ["ci.service/abababababab", "abababababab"]
    assert host.texts("user") == ["ci", "998"]
