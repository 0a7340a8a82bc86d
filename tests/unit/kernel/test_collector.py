"""The collector on a kernel that fails: what has ended is told all the same."""

from __future__ import annotations

import collections
from types import SimpleNamespace

import numpy as np
import pytest

from watchdog.kernel import collector as module
from watchdog.kernel.collector import Collector
from watchdog.kernel.layout import CONNECTION


class Drained:
    """A ledger: what is read of it is no longer in it."""

    def __init__(self, rows):
        self.rows = rows

    def read(self):
        rows, self.rows = self.rows, self.rows[:0]
        return rows


@pytest.mark.parametrize("fails", ["_walk", "_quality", "_sums.read", "_datagrams.nothing"])
def test_a_reading_that_fails_leaves_what_has_ended_to_the_next_one(clock, monkeypatch, fails):
    nothing = SimpleNamespace(read=lambda: "sums", nothing=lambda: "datagrams")
    monkeypatch.setattr(module, "_ring", lambda _fd, record: Drained(np.zeros(3, record)))
    monkeypatch.setattr(module, "TotalsMap", lambda *_: nothing)
    monkeypatch.setattr(Collector, "_walk", lambda _: (np.empty(0, CONNECTION), 0))
    monkeypatch.setattr(Collector, "_quality", lambda *_: "quality")
    collector = Collector(SimpleNamespace(connections=[], maps=collections.Counter()), clock)

    def fail(*_):
        raise OSError("no")

    with monkeypatch.context() as broken:
        owner, _, name = f"collector.{fails}".rpartition(".")
        broken.setattr(nothing if owner != "collector" else collector, name, fail)
        with pytest.raises(OSError, match="no"):
            collector.read()

    assert [len(collector.read().closed) for _ in range(2)] == [3, 0]
