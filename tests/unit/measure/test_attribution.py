"""Owners' names: right, bounded, and remembered for as long as they come."""

from __future__ import annotations

import numpy as np
import pytest

from watchdog.kernel.layout import CONNECTION, OWNER
from watchdog.measure import attribution as module
from watchdog.measure import interning as names_module
from watchdog.measure.attribution import Attribution
from watchdog.measure.catalogue import UNKNOWN_CODE
from watchdog.measure.interning import InternedNames

SECOND = 1_000_000_000


class Cgroups:
    """Control groups by number: `/<number>.service`, known only where `known` says so."""

    def __init__(self):
        self.asked = []
        self.known = True

    def find_path(self, pid, start_ns, inode, at_ns):
        self.asked.append(pid)
        return f"/{inode}.service" if self.known else None


class Users:
    """Users by number."""

    def __init__(self):
        self.names = {0: "root"}
        self.told = {}

    def name(self, uid):
        return self.names.get(uid, str(uid))

    def update(self, uids, at_ns):
        self.names |= self.told


class Who:
    """An identity, tick by tick."""

    def __init__(self):
        self.names, self.cgroups, self.users = InternedNames(), Cgroups(), Users()
        self.identity = Attribution(self.names, self.cgroups, self.users)
        self.at_ns = 1000 * SECOND

    def tick(self, owners, seconds=1):
        self.at_ns += seconds * SECOND
        self.codes = self.identity.codes(owners, self.at_ns)
        return self.codes

    def texts(self, dimension):
        return [self.names.text(dimension, code) for code in self.codes[dimension].tolist()]


@pytest.fixture
def who():
    return Who()


def owners(*pids, **values):
    rows = np.zeros(len(pids), OWNER)
    rows["tgid"], rows["start_ns"], rows["comm"], rows["exe"], rows["cgroup_id"] = pids, 5, b"curl", b"curl", 9
    for name, value in values.items():
        rows[name] = value
    return rows


def test_an_owner_has_its_names(who):
    rows = np.zeros(2, CONNECTION)
    rows["owner"] = owners(7, 8, comm=[b"a", b"b\xff"], uid=[0, 1000])
    codes = who.tick(rows["owner"])
    assert codes["pid"].tolist() == [7, 8]
    assert who.texts("process") == ["a", "b\udcff"]
    assert who.texts("user") == ["root", "1000"]
    assert who.texts("unit") == ["9.service", "9.service"]


def test_what_has_no_owner_says_so(who):
    who.tick(np.zeros(1, OWNER))
    assert [who.texts(name) for name in ("process", "exe", "user", "unit", "container")] == [
        ["(unattributed)"], [""], [""], [""], [""],
    ]  # fmt: skip


def test_a_tick_without_connections_has_no_codes(who):
    assert {len(column) for column in who.tick(np.zeros(0, CONNECTION)["owner"]).values()} == {0}


def test_an_owner_that_stays_is_looked_up_once(who):
    for _ in range(100):
        who.tick(owners(7, 7, 7))
    assert who.cgroups.asked == [7]


def test_nobody_passes_for_another_whatever_its_bytes(who):
    random = np.random.default_rng(1)
    rows = random.integers(0, 2, (5_000, OWNER.itemsize // 8), dtype=np.uint64).astype("<u8").view(OWNER).reshape(-1)
    rows["tgid"] = 1
    rows["comm"] = [f"c{number % 700}".encode() for number in range(5_000)]
    who.tick(rows)
    assert who.texts("process") == [comm.decode() for comm in rows["comm"].tolist()]


def test_two_identities_hash_by_other_numbers():
    assert Who().identity._owners._multipliers != Who().identity._owners._multipliers


def test_short_lived_processes_are_not_remembered(who):
    for tick in range(300):
        who.tick(owners(*range(tick * 100, tick * 100 + 100), comm=b"sh"))
    assert who.identity._owners.capacity <= 2048


def test_owners_beyond_the_bound_have_no_names_rather_than_anothers(monkeypatch):
    monkeypatch.setattr(module, "_MAX_OWNERS", 256)
    who = Who()
    codes = who.tick(owners(*range(1, 301)))
    assert (codes["process"] == UNKNOWN_CODE).sum() == 45
    assert codes["pid"].tolist() == list(range(1, 301))


def test_an_owner_that_found_no_room_for_its_name_gets_one_when_there_is(who, monkeypatch):
    monkeypatch.setattr(names_module, "_MAX_NAMES", 3)
    who.names.set_retention(10 * SECOND)
    codes = who.tick(owners(1, 2, 3, comm=[b"a", b"b", b"c"]))
    (left_out,) = np.flatnonzero(codes["process"] == UNKNOWN_CODE)  # which of the three is for the hash to say
    for _ in range(90):
        who.tick(owners(left_out + 1, comm=[b"abc"[left_out : left_out + 1]]))
    assert who.texts("process") == ["abc"[left_out]]


def test_names_in_use_are_never_forgotten(who):
    who.names.set_retention(SECOND)
    codes = who.tick(owners(1))["process"].tolist()
    for _ in range(200):
        who.tick(owners(1))
    assert who.tick(owners(1))["process"].tolist() == codes
    assert who.texts("process") == ["curl"]


def test_a_group_that_is_not_known_yet_is_asked_for_again(who):
    who.cgroups.known = False
    who.tick(owners(7))
    assert who.texts("unit") == [""]
    who.cgroups.known = True
    who.tick(owners(7))
    who.tick(owners(7))
    assert who.texts("unit") == ["9.service"]
    assert who.cgroups.asked == [7, 7]


def test_few_owners_are_asked_for_again_in_one_tick(who):
    who.cgroups.known = False
    rows = owners(*range(1, 2001))
    who.tick(rows)
    before = len(who.cgroups.asked)
    who.tick(rows)
    assert len(who.cgroups.asked) - before == 256


def test_a_user_that_becomes_known_is_shown_by_name_from_then_on(who):
    rows = owners(7, 8, 0, uid=[1000, 0, 0])
    rows[2] = np.zeros(1, OWNER)[0]
    who.tick(rows)
    who.users.told = {1000: "alice", 0: "admin"}
    who.tick(rows, seconds=15)
    assert who.texts("user") == ["alice", "admin", ""]
