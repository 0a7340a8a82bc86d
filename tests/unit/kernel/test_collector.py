"""The collector on a kernel that fails: what has ended is told all the same."""

from __future__ import annotations

import collections
from types import SimpleNamespace

import numpy as np
import pytest

from watchdog.kernel import collector as module
from watchdog.kernel.collector import Collector
from watchdog.kernel.layout import CONNECTION, SUMS, SUMS_KEY
from watchdog.kernel.programs import CONNECTION_PROBES
from watchdog.kernel.totals_map import Totals


class Drained:
    """A ledger: what is read of it is no longer in it."""

    def __init__(self, rows):
        self.rows = rows

    def read(self):
        rows, self.rows = self.rows, self.rows[:0]
        return rows


@pytest.mark.parametrize(
    "fails", ["_count_misses", "_read_live_sockets", "_quality", "_sums.read", "_datagrams.empty_totals"]
)
def test_a_reading_that_fails_leaves_what_has_ended_to_the_next_one(clock, monkeypatch, fails):
    nothing = SimpleNamespace(read=lambda: "sums", empty_totals=lambda: "datagrams")
    monkeypatch.setattr(module, "_open_ring_buffer", lambda _fd, record: Drained(np.zeros(3, record)))
    monkeypatch.setattr(module, "TotalsMap", lambda *_: nothing)
    monkeypatch.setattr(Collector, "_read_live_sockets", lambda _: (np.empty(0, CONNECTION), 0))
    monkeypatch.setattr(Collector, "_quality", lambda *_: "quality")
    monkeypatch.setattr(Collector, "_count_misses", lambda _: 0)
    monkeypatch.setattr(Collector, "_with_missed_resets", lambda _, sums: sums)
    collector = Collector(SimpleNamespace(connection_programs={}, maps=collections.Counter()), clock)

    def fail(*_):
        raise OSError("no")

    with monkeypatch.context() as broken:
        owner, _, name = f"collector.{fails}".rpartition(".")
        broken.setattr(nothing if owner != "collector" else collector, name, fail)
        with pytest.raises(OSError, match="no"):
            collector.read()

    assert [len(collector.read().closed) for _ in range(2)] == [3, 0]


@pytest.fixture
def counts(monkeypatch, clock):
    """Return a collector, and what its kernel counts: skipped runs by program, those that the stand-in took."""
    told = collections.Counter()
    nothing = Totals(np.empty(0, SUMS_KEY), np.empty(0, SUMS))
    monkeypatch.setattr(module, "_open_ring_buffer", lambda _fd, record: Drained(np.zeros(0, record)))
    monkeypatch.setattr(
        module, "TotalsMap", lambda *_: SimpleNamespace(read=lambda: nothing, empty_totals=lambda: nothing)
    )
    monkeypatch.setattr(module.libbpf, "recursion_misses", lambda name: told[name])
    monkeypatch.setattr(module.libbpf, "attach", lambda _: -1)
    monkeypatch.setattr(module, "_read_counter", lambda name, _index: told[name])
    monkeypatch.setattr(Collector, "_read_live_sockets", lambda _: (np.empty(0, CONNECTION), 0))
    maps = {name: name for name in ("sums", "datagrams", "ledger", "losses", "fallback_events")}
    programs = {probe.name: probe.name for probe in CONNECTION_PROBES}
    return Collector(SimpleNamespace(connection_programs=programs, message_programs=("sends",), maps=maps), clock), told


def test_a_skipped_event_is_lost_unless_the_stand_in_took_it(counts):
    collector, told = counts
    missed = []
    for skipped, fallback_events, sends in ((0, 0, 0), (7, 7, 0), (9, 8, 0), (9, 8, 0), (9, 9, 0), (12, 10, 1)):
        told.update({"inet_sock_set_state": skipped - told["inet_sock_set_state"], "sends": sends - told["sends"]})
        told["fallback_events"] = fallback_events
        missed.append(collector.read().quality.missed_events)

    assert missed == [0, 0, 1, 0, 0, 2]


def test_resets_that_were_skipped_are_nobody_s(counts):
    collector, told = counts
    told["tcp_receive_reset"], told["tcp_send_reset"] = 3, 1
    reading = collector.read()

    assert reading.sums.keys == np.zeros(1, SUMS_KEY)
    assert [int(reading.sums.values[name][0]) for name in ("resets_received", "resets_sent", "closes")] == [3, 1, 0]
    assert reading.quality.missed_events == 0
