"""Slots of groups: one for each group, the same in each tick, reused after silence."""

from __future__ import annotations

import numpy as np
import pytest

from watchdog.measure.catalogue import ABSENT_CODE, OTHER_CODE
from watchdog.rules.engine.engine import Engine
from watchdog.rules.engine.groups import HOST_SLOT, NO_GROUP_SLOT, OTHER_SLOT, UNGROUPED_SLOT, GroupSlots
from watchdog.rules.language.rule import Novelty, Severity

SECOND_NS = 1_000_000_000


def numbered(host, *pids, seconds=1):
    return host.tick(*({"pid": pid} for pid in pids), seconds=seconds)


def test_rows_of_one_group_share_a_slot_in_every_tick(host):
    groups = GroupSlots(["pid"])
    first = groups.assign(numbered(host, 7, 8, 7), SECOND_NS).tolist()
    assert first[0] == first[2] != first[1]
    assert groups.assign(numbered(host, 8, 7), SECOND_NS).tolist() == [first[1], first[0]]


def test_each_of_many_groups_in_one_tick_gets_its_own_slot(host):
    groups = GroupSlots(["pid"])
    slots = groups.assign(numbered(host, *range(5_000), *range(5_000)), SECOND_NS)
    assert np.array_equal(slots[:5_000], slots[5_000:])
    assert len(set(slots.tolist())) == 5_000


def test_no_group_gets_the_slot_that_means_no_group(host):
    groups = GroupSlots(["pid"])
    slots = [groups.assign(numbered(host, *range(tick * 300, tick * 300 + 300)), SECOND_NS) for tick in range(9)]
    assert NO_GROUP_SLOT not in np.concatenate(slots)


def test_slots_of_silent_groups_are_reused(host):
    groups = GroupSlots(["pid"])
    for tick in range(100):
        groups.assign(numbered(host, *range(tick * 100, tick * 100 + 100)), 3 * SECOND_NS)
    assert groups.capacity <= 1024


def test_a_group_with_rows_within_the_retention_keeps_its_slot(host):
    groups = GroupSlots(["pid"])
    slot = groups.assign(numbered(host, 1), 3 * SECOND_NS)[0]
    for tick in range(1, 50):
        pids = [*range(tick * 1000, tick * 1000 + 200), *([1] if tick % 2 == 0 else [])]
        slots = groups.assign(numbered(host, *pids), 3 * SECOND_NS)
        if tick % 2 == 0:
            assert slots[-1] == slot


def test_labels_and_slots_lead_to_each_other(host):
    groups = GroupSlots(["process", "direction", "remote", "remote_port"])
    row = {"process": "curl", "direction": "out", "remote": "192.0.2.1", "remote_port": 443}
    snapshot = host.tick({"process": "wget"}, row)
    slot = groups.assign(snapshot, SECOND_NS)[1]
    labels = tuple((name, str(value)) for name, value in row.items())
    assert groups.labels(slot, snapshot) == labels
    assert groups.slot(labels, snapshot) == slot
    assert GroupSlots(["pid"]).slot(labels, snapshot) == NO_GROUP_SLOT


@pytest.mark.parametrize(
    "label", [("process", "gone"), ("pid", "12"), ("pid", "x"), ("direction", "up"), ("remote", "::9"), ("remote", "x")]
)
def test_labels_of_a_missing_group_have_no_slot(host, label):
    groups = GroupSlots([label[0]])
    snapshot = host.tick({"process": "curl", "pid": 1, "direction": "out", "remote": "::1"})
    groups.assign(snapshot, SECOND_NS)
    assert groups.slot((label,), snapshot) == NO_GROUP_SLOT


def test_labels_restored_before_the_first_row_of_their_group_find_its_slot_later(host):
    groups = GroupSlots(["process", "remote"])
    labels = (("process", "curl"), ("remote", "192.0.2.1"))
    snapshot = host.tick()
    groups.assign(snapshot, SECOND_NS)
    assert groups.slot(labels, snapshot) == NO_GROUP_SLOT
    snapshot = host.tick({"process": "curl", "remote": "192.0.2.1"})
    assert groups.slot(labels, snapshot) == NO_GROUP_SLOT
    slot = groups.assign(snapshot, SECOND_NS)[0]
    assert groups.slot(labels, snapshot) == slot


def test_without_dimensions_the_only_group_is_the_host(host):
    groups = GroupSlots([])
    snapshot = host.tick({"pid": 1}, {"pid": 2})
    assert groups.assign(snapshot, SECOND_NS).tolist() == [HOST_SLOT, HOST_SLOT]
    assert groups.labels(HOST_SLOT, snapshot) == ()
    assert groups.slot((), snapshot) == HOST_SLOT


def test_rows_with_a_lost_dimension_are_in_no_group(host):
    groups = GroupSlots(["process", "remote"])
    snapshot = host.tick({"process": "a", "remote": "::1"}, {"process": "a", "remote": None})
    slots = groups.assign(snapshot, SECOND_NS)
    assert slots[1] == UNGROUPED_SLOT != slots[0]
    assert groups.lost_rows.tolist() == [1]
    assert not groups.seen_since(slots, 0)[1]


def test_rows_without_the_value_are_in_no_group_and_nothing_is_lost(host):
    groups = GroupSlots(["remote"])
    snapshot = host.tick({"remote": "::1"}, {"remote": "::2"})
    snapshot.dimensions["remote"][1] = ABSENT_CODE
    assert groups.assign(snapshot, SECOND_NS)[1] == UNGROUPED_SLOT
    assert not len(groups.lost_rows)


def test_groups_beyond_the_maximum_are_one_group_and_nothing_is_lost(host):
    groups = GroupSlots(["pid"], max_groups=256)
    snapshot = numbered(host, *range(1000))
    slots = groups.assign(snapshot, SECOND_NS)
    assert (slots == OTHER_SLOT).sum() == 1000 - (256 - OTHER_SLOT - 1)
    assert not len(groups.lost_rows)
    assert groups.capacity == 256
    assert groups.labels(OTHER_SLOT, snapshot) == (("pid", "(other)"),)
    assert groups.slot((("pid", "(other)"),), snapshot) == OTHER_SLOT
    assert groups.seen_since(slots, 0).all()
    assert np.array_equal(groups.find(snapshot, np.arange(1000)), slots)


def test_the_group_of_other_groups_is_gone_when_there_is_room(host):
    groups = GroupSlots(["pid"], max_groups=256)
    groups.assign(numbered(host, *range(1000)), SECOND_NS)
    snapshot = numbered(host, 5, seconds=6)
    assert groups.assign(snapshot, SECOND_NS)[0] != OTHER_SLOT
    assert groups.slot((("pid", "(other)"),), snapshot) == NO_GROUP_SLOT


def test_rows_whose_names_have_no_room_are_in_the_group_of_other_groups(host):
    groups = GroupSlots(["process", "unit"])
    snapshot = host.tick({"process": "a", "unit": "x"}, {"process": "b", "unit": "y"}, {"process": "c", "unit": "x"})
    snapshot.dimensions["process"][1:] = snapshot.dimensions["unit"][1] = OTHER_CODE
    slots = groups.assign(snapshot, SECOND_NS)
    assert (slots[1], len(set(slots.tolist()))) == (OTHER_SLOT, 3)
    assert groups.labels(slots[2], snapshot) == (("process", "(other)"), ("unit", "x"))


def test_a_reused_code_has_the_labels_of_its_new_text(host):
    groups = GroupSlots(["process"])
    snapshot = host.tick({"process": "old"})
    (slot,) = groups.assign(snapshot, 10 * SECOND_NS)
    assert groups.labels(slot, snapshot) == (("process", "old"),)
    host._codes["process"] = {"new": host._codes["process"]["old"]}
    snapshot = host.tick({"process": "new"}, seconds=11)
    (slot,) = groups.assign(snapshot, 10 * SECOND_NS)
    assert groups.labels(slot, snapshot) == (("process", "new"),)
    assert groups.slot((("process", "old"),), snapshot) == NO_GROUP_SLOT
    assert groups.slot((("process", "new"),), snapshot) == slot


def test_labels_lead_to_the_new_slot_of_a_returned_group(host):
    groups = GroupSlots(["process"])
    labels = (("process", "a"),)
    snapshot = host.tick({"process": "a"})
    groups.assign(snapshot, 3 * SECOND_NS)
    assert groups.slot(labels, snapshot) != NO_GROUP_SLOT
    for tick in range(9):
        snapshot = host.tick(*({"process": f"{tick}-{number}"} for number in range(200)))
        groups.assign(snapshot, 3 * SECOND_NS)
        for slot in range(UNGROUPED_SLOT + 1, UNGROUPED_SLOT + 20):
            groups.labels(slot, snapshot)
    assert groups.slot(labels, snapshot) == NO_GROUP_SLOT
    snapshot = host.tick({"process": "a"})
    (slot,) = groups.assign(snapshot, 3 * SECOND_NS)
    assert groups.slot(labels, snapshot) == slot


def test_expired_slots_stay_expired_when_a_reload_lengthens_windows(host):
    groups = GroupSlots(["process"])
    (slot,) = groups.assign(host.tick({"process": "a"}), SECOND_NS)
    groups.assign(host.tick({"process": "b"}, seconds=5), SECOND_NS)
    groups.assign(host.tick({"process": "b"}), 3600 * SECOND_NS)
    assert not groups.seen_since(np.array([slot]), 0)[0]


def test_only_few_labels_are_cached_as_text(host):
    groups = GroupSlots(["pid"])
    snapshot = numbered(host, *range(9_000))
    for slot, pid in zip(groups.assign(snapshot, SECOND_NS).tolist(), range(9_000), strict=True):
        assert groups.labels(slot, snapshot) == (("pid", str(pid)),)
    assert len(groups._labels) <= 4096


def test_only_rows_in_scope_make_groups(host, make_rule):
    listens = {"process": "nginx", "local_port": 80, "state": "LISTEN", "direction": "in", "listeners": 1}
    clients = [{"process": "app", "local_port": port, "state": "ESTABLISHED", "open": 1} for port in range(500)]
    novelty = Novelty(0, SECOND_NS * 86_400, Severity.WARNING)
    rules = [
        make_rule("gone", metric="listeners", stat="last", by=["process", "local_port"], above=None, below=1),
        make_rule("new", metric="listeners", stat="last", by=["process", "local_port"], novelty=novelty),
    ]
    engine = Engine(rules)
    engine.evaluate(host.baseline(), [])
    verdicts = engine.evaluate(host.tick(listens, *clients), [])
    assert [(one.rule.id, one.labels) for one in verdicts] == [("new", (("process", "nginx"), ("local_port", "80")))]
    groups = list(engine._plan.parts_of_type(GroupSlots))
    assert len(groups) == 2
    assert {one.size for one in groups} == {OTHER_SLOT + 2}


def test_a_lost_row_outside_the_scope_is_lost_to_no_group(host, make_rule):
    listens = {"process": "nginx", "local_port": 80, "state": "LISTEN", "direction": "in", "listeners": 1}
    rule = make_rule("gone", metric="listeners", stat="last", by=["process", "local_port"], above=None, below=1)
    engine = Engine([rule])
    engine.evaluate(host.baseline(), [])
    engine.evaluate(host.tick(listens, {"process": "app", "local_port": None, "state": None, "closes": 9}), [])
    assert next(engine._plan.parts_of_type(GroupSlots)).lost_rows.tolist() == []
