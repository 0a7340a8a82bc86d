"""Slots of keys: stable, distinct, reclaimed, and bounded in number."""

from __future__ import annotations

import numpy as np

from watchdog.measure.slot_table import NO_SLOT, SlotTable

SECOND = 1_000_000_000


def keys(*numbers):
    return [np.array(numbers, np.uint64)]


def table(max_slots=1 << 20, reserved=0):
    return SlotTable([np.uint64], reserved=reserved, max_slots=max_slots)


def test_a_key_has_the_same_slot_in_every_row_and_tick():
    slots = table()
    first = slots.assign(keys(7, 8, 7), SECOND, 0).tolist()
    assert first[0] == first[2] != first[1]
    assert slots.assign(keys(8, 7), 2 * SECOND, 0).tolist() == [first[1], first[0]]


def test_new_slots_are_those_of_new_keys():
    slots = table()
    first = slots.assign(keys(7, 8, 7), SECOND, 0)
    assert sorted(slots.new_slots) == sorted(set(first.tolist()))
    second = slots.assign(keys(9, 7), 2 * SECOND, 0)
    assert slots.new_slots.tolist() == [second[0]]


def test_keys_that_differ_in_any_column_have_their_own_slots():
    slots = SlotTable([np.uint64, np.uint32], reserved=0, max_slots=1 << 20)
    left = np.repeat(np.arange(100, dtype=np.uint64), 100)
    right = np.tile(np.arange(100, dtype=np.uint32), 100)
    assert len(set(slots.assign([left, right], SECOND, 0).tolist())) == 10_000


def test_no_key_gets_a_reserved_slot():
    slots = table(reserved=3)
    for tick in range(1, 9):
        given = slots.assign(keys(*range(tick * 300, tick * 300 + 300)), tick * SECOND, (tick - 1) * SECOND)
        assert given.min() >= 3


def test_a_new_key_reuses_the_slot_of_an_idle_key():
    slots = table()
    for tick in range(1, 101):
        slots.assign(keys(*range(tick * 100, tick * 100 + 100)), tick * SECOND, (tick - 3) * SECOND)
    assert slots.capacity <= 1024


def test_the_number_of_slots_is_bounded_and_keys_beyond_get_no_slot():
    slots = table(max_slots=512)
    given = slots.assign(keys(*range(1000), *range(1000)), SECOND, 0)
    assert slots.capacity == 512
    assert np.array_equal(given[:1000], given[1000:])
    assert (given[:1000] == NO_SLOT).sum() == 488
    held = given[:1000] != NO_SLOT
    assert len(set(given[:1000][held].tolist())) == 512
    again = slots.assign(keys(*range(1000)), 2 * SECOND, 0)
    assert np.array_equal(again, given[:1000])


def test_a_full_table_accepts_new_keys_after_others_became_idle():
    slots = table(max_slots=256)
    slots.assign(keys(*range(300)), SECOND, 0)
    assert slots.assign(keys(1_000), 2 * SECOND, 0)[0] == NO_SLOT
    assert slots.assign(keys(1_000), 10 * SECOND, 5 * SECOND)[0] != NO_SLOT


def test_a_full_table_is_not_searched_at_every_tick(monkeypatch):
    slots = table(max_slots=256)
    slots.assign(keys(*range(300)), SECOND, 0)
    rebuilt = []
    monkeypatch.setattr(slots, "_rebuild", lambda: rebuilt.append(1))
    for tenth in range(10, 30):
        slots.assign(keys(tenth * 1000), tenth * SECOND // 10, 0)
    assert rebuilt == []


def test_an_attacker_cannot_predict_collisions():
    numbers = np.arange(1, 200_000, dtype=np.uint64)
    cells = [set(np.flatnonzero(table()._hash([numbers]) == 0).tolist()) for _ in range(2)]
    assert cells[0] != cells[1]
