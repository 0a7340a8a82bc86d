"""Windows: coverage, running sums, samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.rules.engine.window import SampleWindow, TickSamples, WindowCoverage, WindowSum, pack_tick_values

SECOND_NS = 1_000_000_000


def pushed(window, *ticks):
    span, at_ns = WindowCoverage(window * SECOND_NS), 1_000 * SECOND_NS
    for seconds in ticks:
        at_ns += round(seconds * SECOND_NS)
        span.push(at_ns, round(seconds * SECOND_NS))
    return span


def test_a_window_that_is_not_filled_counts_its_whole_length():
    assert pushed(10, 1, 1).rate_seconds == 10


def test_a_filled_window_counts_the_measured_time():
    assert pushed(10, *[1] * 20).rate_seconds == 10
    assert pushed(10, *[4] * 20).rate_seconds == 12
    assert pushed(10, *[1] * 20, 7).rate_seconds == 10
    assert pushed(10, 5, 5, 12).rate_seconds == 12


def test_a_tick_as_old_as_the_window_has_left_it():
    assert pushed(3, *[1] * 9).tick_count == 3


def test_a_baseline_is_not_a_tick():
    assert pushed(3, 0, 1).tick_count == 1


def test_weights_of_uneven_ticks_add_up_to_the_divisor_of_means():
    elapsed = [0.99951, 1.00049, 1.0004, 0.9996, 1.0]
    assert pushed(4, *elapsed).mean_weight == 4000


@pytest.mark.parametrize("top", [1, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**52])
def test_sums_of_whole_numbers_of_any_size_are_exact(top):
    window, slots = WindowSum(2), np.arange(3, dtype=np.int32)
    for at_ns in range(1, 20):
        window.push(pack_tick_values(at_ns, slots, np.array([top, 0.0, 1.0]) * (at_ns < 10)), 3)
        if at_ns == 5:
            assert window.sums.tolist() == [2 * top, 0, 2]
    assert window.sums.tolist() == [0, 0, 0]


_TICKS = st.lists(
    st.dictionaries(st.integers(0, 30), st.sampled_from([-3, -1, 0, 1, 7, 300, 2**40]), max_size=31), max_size=20
)


@given(ticks=_TICKS, window_ns=st.integers(1, 6))
def test_running_sums_are_the_sums_of_the_ticks_in_the_window(ticks, window_ns):
    window = WindowSum(window_ns)
    for at_ns, tick in enumerate(ticks):
        slots = np.array(sorted(tick), dtype=np.int32)
        window.push(pack_tick_values(at_ns, slots, np.array([float(tick[slot]) for slot in sorted(tick)])), 31)
        inside = ticks[max(at_ns - window_ns + 1, 0) : at_ns + 1]
        assert window.sums.tolist() == [sum(one.get(slot, 0) for one in inside) for slot in range(31)]


@given(
    ticks=st.lists(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 9)), max_size=9), min_size=1, max_size=8),
    asked=st.lists(st.integers(0, 6), max_size=6),
)
def test_samples_of_a_slot_are_those_of_all_ticks_in_ascending_order(ticks, asked):
    window = SampleWindow(3)
    for at_ns, tick in enumerate(ticks):
        rows = sorted(tick, key=lambda row: row[0])
        slots = np.array([slot for slot, _ in rows], dtype=np.int32)
        window.push(TickSamples(at_ns, slots, np.array([value for _, value in rows])))
    owner, values = window.values_of(np.array(asked, dtype=np.int32))
    inside = [row for tick in ticks[-3:] for row in tick]
    assert list(zip(owner.tolist(), values.tolist(), strict=True)) == [
        (index, value)
        for index, wanted in enumerate(asked)
        for value in sorted(value for slot, value in inside if slot == wanted)
    ]
