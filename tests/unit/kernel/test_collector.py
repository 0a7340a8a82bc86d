"""The collector on a failing kernel: ended connections are not lost."""

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


class Ledger:
    """A ledger: a read removes its records."""

    def __init__(self, rows):
        self.rows = rows

    def read(self):
        rows, self.rows = self.rows, self.rows[:0]
        return rows


@pytest.mark.parametrize(
    "failing", ["_count_misses", "_live_sockets.read", "_quality", "_sums.read", "_datagrams.empty_totals"]
)
def test_after_a_failed_reading_ended_connections_are_in_the_next_one(clock, monkeypatch, failing):
    nothing = SimpleNamespace(read=lambda: "sums", empty_totals=lambda: "datagrams")
    monkeypatch.setattr(module, "_open_ring_buffer", lambda _fd, record: Ledger(np.zeros(3, record)))
    monkeypatch.setattr(module, "TotalsMap", lambda *_: nothing)
    monkeypatch.setattr(module, "ResetPeersMap", lambda _: SimpleNamespace(read=lambda _: "peers"))
    live = SimpleNamespace(read=lambda: (np.empty(0, CONNECTION), False))
    monkeypatch.setattr(module, "LiveSockets", lambda *_: live)
    monkeypatch.setattr(Collector, "_quality", lambda *_: "quality")
    monkeypatch.setattr(Collector, "_count_misses", lambda _: 0)
    monkeypatch.setattr(Collector, "_with_missed_resets", lambda _, sums: sums)
    collector = Collector(
        SimpleNamespace(connection_programs={}, connect_error_programs=(), maps=collections.Counter()), clock
    )

    def fail(*_):
        raise OSError("no")

    with monkeypatch.context() as broken:
        owner, _, name = f"collector.{failing}".rpartition(".")
        owners = {"collector": collector, "collector._live_sockets": live}
        broken.setattr(owners.get(owner, nothing), name, fail)
        with pytest.raises(OSError, match="no"):
            collector.read()

    assert [len(collector.read().closed) for _ in range(2)] == [3, 0]


@pytest.fixture
def counts(monkeypatch, clock):
    """Return a collector, and the counts of its kernel: skipped runs by program, events of the fallback program."""
    kernel_counts = collections.Counter()
    nothing = Totals(np.empty(0, SUMS_KEY), np.empty(0, SUMS))
    monkeypatch.setattr(module, "_open_ring_buffer", lambda _fd, record: Ledger(np.zeros(0, record)))
    monkeypatch.setattr(
        module, "TotalsMap", lambda *_: SimpleNamespace(read=lambda: nothing, empty_totals=lambda: nothing)
    )
    monkeypatch.setattr(module, "ResetPeersMap", lambda _: SimpleNamespace(read=lambda _: "peers"))
    monkeypatch.setattr(module.libbpf, "recursion_misses", lambda name: kernel_counts[name])
    monkeypatch.setattr(module.libbpf, "attach", lambda _: -1)
    monkeypatch.setattr(module, "_read_counter", lambda name, _index: kernel_counts[name])
    live = SimpleNamespace(read=lambda: (np.empty(0, CONNECTION), False))
    monkeypatch.setattr(module, "LiveSockets", lambda *_: live)
    maps = {
        name: name
        for name in ("sums", "reset_peers", "datagrams", "ledger", "losses", "fallback_events", "live", "cgroups")
    }
    programs = {probe.name: probe.name for probe in CONNECTION_PROBES}
    return Collector(
        SimpleNamespace(
            connection_programs=programs, connect_error_programs=("connects",), message_programs=("sends",), maps=maps
        ),
        clock,
    ), kernel_counts


def test_a_skipped_event_is_lost_unless_the_fallback_program_handled_it(counts):
    collector, kernel_counts = counts
    missed = []
    for skipped, fallback_events, sends in ((0, 0, 0), (7, 7, 0), (9, 8, 0), (9, 8, 0), (9, 9, 0), (12, 10, 1)):
        kernel_counts.update(
            {
                "inet_sock_set_state": skipped - kernel_counts["inet_sock_set_state"],
                "sends": sends - kernel_counts["sends"],
            }
        )
        kernel_counts["fallback_events"] = fallback_events
        missed.append(collector.read().quality.missed_events)

    assert missed == [0, 0, 1, 0, 0, 2]


def test_skipped_resets_have_no_owner(counts):
    collector, kernel_counts = counts
    kernel_counts["tcp_receive_reset"], kernel_counts["tcp_send_reset"] = 3, 1
    reading = collector.read()

    assert reading.sums.keys == np.zeros(1, SUMS_KEY)
    assert [int(reading.sums.values[name][0]) for name in ("resets_received", "resets_sent", "closes")] == [3, 1, 0]
    assert reading.quality.missed_events == 0
