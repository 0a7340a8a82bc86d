"""Differences of totals are those of a small reference model, also for entries that go and come again."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from watchdog.kernel.totals_map import Totals
from watchdog.measure.totals_deltas import TotalsDeltas

KEY = np.dtype([("number", "<u4"), ("pad", "<u4")])
VALUE = np.dtype([("sent", "<u8"), ("received", "<u8"), ("name", "S4")])
COUNTS = st.tuples(st.integers(0, 9), st.sampled_from([0, 1, 2**63, 2**64 - 1]))


def make_totals(entries):
    keys, values = np.zeros(len(entries), KEY), np.zeros(len(entries), VALUE)
    for at, (number, (sent, received)) in enumerate(entries.items()):
        keys[at], values[at] = (number, 0), (sent, received, b"name")
    return Totals(keys, values)


def expected_changes(before, now):
    changes = {}
    for number, counts in now.items():
        base = before.get(number, (0, 0))
        if any(count < old for count, old in zip(counts, base, strict=True)):
            base = (0, 0)
        change = tuple(count - old for count, old in zip(counts, base, strict=True))
        if any(change):
            changes[number] = change
    return changes


@given(st.lists(st.dictionaries(st.integers(0, 2**32 - 1) | st.integers(250, 260), COUNTS, max_size=8), max_size=6))
def test_differences_are_those_of_the_reference_model(ticks):
    deltas, before = TotalsDeltas(["sent", "received"]), {}
    for now in ticks:
        changed = deltas.advance(make_totals(now))
        found = {
            int(key["number"]): (int(value["sent"]), int(value["received"]))
            for key, value in zip(changed.keys, changed.values, strict=True)
        }
        assert found == expected_changes(before, now)
        assert set(changed.values["name"].tolist()) <= {b"name"}
        before = now
