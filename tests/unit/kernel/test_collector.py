"""The collector on a failing kernel: ended connections are not lost."""

from __future__ import annotations

import collections
from types import SimpleNamespace

import numpy as np
import pytest

from watchdog.kernel import collector as module
from watchdog.kernel.collector import Collector
from watchdog.kernel.layout import CONNECTION, SUMS, SUMS_KEY
from watchdog.kernel.live_sockets import Coverage
from watchdog.kernel.programs import CONNECTION_PROBES
from watchdog.kernel.quality import Quality
from watchdog.kernel.totals_map import Totals


class Ledger:
    """A ledger: a read removes its records."""

    def __init__(self, rows):
        self.rows = rows

    def read(self):
        rows, self.rows = self.rows, self.rows[:0]
        return rows


class Live:
    """No sockets; notes which passes were complete."""

    is_walk_unfinished = False

    def __init__(self):
        self.complete = []

    def read(self, *, complete):
        self.complete.append(complete)
        return np.empty(0, CONNECTION), Coverage.ALL if complete else Coverage.CHANGED


@pytest.mark.parametrize(
    "failing", ["_count_misses", "_live_sockets.read", "_quality", "_sums.read", "_datagrams.empty_totals"]
)
def test_after_a_failed_reading_ended_connections_are_in_the_next_one(clock, monkeypatch, failing):
    nothing = SimpleNamespace(read=lambda: "sums", empty_totals=lambda: "datagrams")
    monkeypatch.setattr(module, "_open_ring_buffer", lambda _fd, record: Ledger(np.zeros(3, record)))
    monkeypatch.setattr(module, "TotalsMap", lambda *_: nothing)
    monkeypatch.setattr(module, "ResetPeersMap", lambda _: SimpleNamespace(read=lambda _: "peers"))
    live = Live()
    monkeypatch.setattr(module, "LiveSockets", lambda *_: live)
    monkeypatch.setattr(Collector, "_quality", lambda *_: Quality())
    monkeypatch.setattr(Collector, "_count_misses", lambda _: 0)
    monkeypatch.setattr(Collector, "_with_missed_resets", lambda _, sums: sums)
    collector = Collector(
        SimpleNamespace(
            connection_programs={}, connect_error_programs=(), task_iterator=None, maps=collections.Counter()
        ),
        clock,
    )

    def fail(*_, **__):
        raise OSError("no")

    with monkeypatch.context() as broken:
        owner, _, name = f"collector.{failing}".rpartition(".")
        owners = {"collector": collector, "collector._live_sockets": live}
        broken.setattr(owners.get(owner, nothing), name, fail)
        with pytest.raises(OSError, match="no"):
            collector.read()

    live.complete.clear()
    assert [len(collector.read().closed) for _ in range(2)] == [3, 0]
    collector._host_sockets.close()
    assert live.complete == [True, False]  # a failed reading can have taken rows of live sockets with it


@pytest.fixture
def counts(monkeypatch, clock):
    """Yield a collector, and the counts of its kernel: skipped runs by program, events of the fallback program."""
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
    live = Live()
    monkeypatch.setattr(module, "LiveSockets", lambda *_: live)
    kernel_counts.live = live
    maps = {
        name: name
        for name in ("sums", "reset_peers", "datagrams", "ledger", "losses", "fallback_events", "live", "cgroups")
    }
    programs = {probe.name: probe.name for probe in CONNECTION_PROBES}
    collector = Collector(
        SimpleNamespace(
            connection_programs=programs,
            connect_error_programs=("connects",),
            message_programs=("sends",),
            task_iterator=None,
            maps=maps,
        ),
        clock,
    )
    yield collector, kernel_counts
    collector._host_sockets.close()


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


def test_a_pass_is_complete_at_first_after_a_loss_on_request_and_every_five_minutes(counts, clock):
    collector, kernel_counts = counts
    collector.read()
    collector.read()
    kernel_counts["losses"] = 1
    collector.read()
    collector.read()
    collector.read()
    collector.request_complete_pass()
    collector.read()
    collector.read(complete=True)
    clock.advance(299)
    collector.read()
    clock.advance(2)
    collector.read()
    collector.read()

    assert kernel_counts.live.complete == [True, False, False, True, False, True, True, False, True, False]
