"""Native histograms: buckets of values, and their form in the protocol."""

from __future__ import annotations

import numpy as np
import pytest

from watchdog.web.native_histograms import NativeBuckets, native_histogram
from watchdog.web.traffic_totals import BOUNDS, TrafficTotals


def counts_of(name, values):
    buckets = NativeBuckets(2)
    buckets.add(name, np.ones(len(values), np.intp), np.array(values, np.float64))
    [nobody, counts] = buckets.copy(2)[name]
    assert not nobody.any()
    return counts


def ranges(histogram):
    """Return (lower bound, upper bound, count) of each bucket."""
    index, count, found = 0, 0, []
    deltas = iter(histogram.deltas)
    for offset, length in histogram.spans:
        index += offset
        for _ in range(length):
            count += next(deltas)
            found.append((2 ** ((index - 1) / 8), 2 ** (index / 8), count))
            index += 1
    assert next(deltas, None) is None
    return found


@pytest.mark.parametrize("name", BOUNDS)
def test_each_value_is_in_the_bucket_of_its_size(name):
    values = np.geomspace(1e-4, 1, 999)
    histogram = native_histogram(name, counts_of(name, values))
    assert histogram.zero_count == np.count_nonzero(values <= histogram.zero_threshold)
    found = ranges(histogram)
    assert sum(count for _, _, count in found) + histogram.zero_count == 999
    for low, high, count in found:
        # Within a rounding of the bounds.
        inside = np.count_nonzero((values > low * 1.000_001) & (values <= high * 0.999_999))
        assert inside <= count <= np.count_nonzero((values > low * 0.999_999) & (values <= high * 1.000_001))


def test_powers_of_2_are_the_upper_bounds_of_their_buckets():
    histogram = native_histogram("rtt", counts_of("rtt", [0.5, 0.5, 1.0, 0.0]))
    assert ranges(histogram) == [(2 ** (-9 / 8), 0.5, 2), (2 ** (-1 / 8), 1.0, 1)]
    assert (histogram.zero_count, histogram.zero_threshold) == (1, 2.0**-17)
    assert histogram.spans == [(-8, 1), (7, 1)]
    assert histogram.deltas == [2, -1]


def test_values_beyond_the_greatest_bucket_are_in_it():
    histogram = native_histogram("rtt", counts_of("rtt", [1e6, 255.0]))
    assert [count for _, _, count in ranges(histogram)] == [2]


def test_without_values_there_are_no_buckets():
    histogram = native_histogram("rtt", counts_of("rtt", []))
    assert (histogram.spans, histogram.deltas, histogram.zero_count) == ([], [], 0)


def test_counts_of_the_time_before_are_kept_and_both_kinds_stay_equal():
    totals = TrafficTotals(10)
    places = np.zeros(500, np.intp)
    values = np.geomspace(1e-6, 5_000, 500)
    for name in BOUNDS:
        totals._add_values(name, values, places)
    assert totals.view().native == {}
    totals.count_native()
    for name in BOUNDS:
        totals._add_values(name, values, places)
    view = totals.view()
    for name in BOUNDS:
        assert view.native[name].sum(axis=1).tolist() == view.buckets[name].sum(axis=1).tolist() == [1_000]
        # A count of before is in a bucket between the bounds of its classic one.
        assert len(native_histogram(name, view.native[name][0]).spans) > 0
