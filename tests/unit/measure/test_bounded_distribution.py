"""Distributions in bounded memory."""

import numpy as np
import pytest

from watchdog.measure.bounded_distribution import MAX_EXACT_VALUES, BoundedDistribution


def filled(*parts):
    distribution = BoundedDistribution()
    for values in parts:
        distribution.add(np.array(values, np.float64))
    return distribution


def test_without_values_there_is_no_summary():
    assert filled([]).summary() is None


def test_up_to_the_limit_all_percentiles_are_exact():
    values = np.random.default_rng(1).lognormal(-7, 2, MAX_EXACT_VALUES)
    p50, p99 = np.percentile(values, [50, 99])

    assert filled(values[:400], values[400:]).summary() == {
        "count": 1_000, "min": values.min(), "p50": pytest.approx(p50), "p99": pytest.approx(p99), "max": values.max(),
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [0.01, 1, 5])
def test_beyond_the_limit_percentiles_are_within_one_percent(seed, spread):
    values = np.random.default_rng(seed).lognormal(-7, spread, 50_021)
    summary = filled(*np.array_split(values, 97)).summary()

    assert (summary["count"], summary["min"], summary["max"]) == (50_021, values.min(), values.max())
    for name, share in {"p50": 50, "p99": 99}.items():
        assert summary[name] == pytest.approx(np.percentile(values, share, method="inverted_cdf"), rel=0.01)


@pytest.mark.parametrize("value", [0.0, 1e-12, 1.0, 1e12])
def test_equal_values_are_their_own_percentiles(value):
    summary = filled([value] * 3_001).summary()

    assert (summary["p50"], summary["p99"]) == (value, value)


@pytest.mark.parametrize("sizes", [(0, 0), (3, 5), (600, 600), (3, 2_000), (2_000, 3), (2_000, 2_000)])
def test_two_parts_add_up_to_the_whole(sizes):
    values = [np.random.default_rng(size).exponential(1, size) for size in sizes]
    whole = BoundedDistribution()
    for part in values:
        whole.add_part(filled(part).as_part())

    assert whole.summary() == filled(*values).summary()


def test_memory_is_bounded():
    distribution = filled(*np.random.default_rng(1).lognormal(0, 30, (20, 100_000)))

    assert distribution.size < 300_000
