"""Sorted entries in a temporary file."""

import random
import resource
from operator import itemgetter

import pytest

from watchdog.errors import WatchdogError
from watchdog.measure.sorted_runs import SortedRuns


@pytest.mark.parametrize("count", [0, 1, 5_003])
@pytest.mark.parametrize("buffer_bytes", [1, 500, 2**21])  # the first: more runs than are read at a time
def test_entries_are_sorted_by_key_and_else_in_their_order(count, buffer_bytes):
    rng, runs = random.Random(count), SortedRuns(buffer_bytes)
    entries = [([rng.randrange(-50, 50), rng.choice(["", "a\n", "\udcff", "ä" * 3_000])], i) for i in range(count)]
    for key, value in entries:
        runs.add(key, value)

    assert list(runs) == sorted(entries, key=itemgetter(0))
    runs.add([99, ""], "the last")
    assert list(runs) == [*sorted(entries, key=itemgetter(0)), ([99, ""], "the last")]


def test_the_file_is_in_tmpdir_and_has_no_name(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    runs = SortedRuns(1)
    runs.add([1], "x")

    assert (list(runs), list(tmp_path.iterdir())) == ([([1], "x")], [])


def add_numbers(runs):
    for number in range(10_000):
        runs.add([number], "x")


def test_a_file_that_cannot_grow_is_an_error_with_its_remedy():
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    runs = SortedRuns(1_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(WatchdogError, match=r"temporary file: File too large: set TMPDIR to a folder"):
            add_numbers(runs)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
