"""Readings that leave out idle connections give the same sums as readings with all of them, in any order of events."""

from dataclasses import replace

import numpy as np
import pytest

from watchdog.kernel.collector import Reading
from watchdog.kernel.layout import (
    CONNECTION,
    DATAGRAMS,
    DATAGRAMS_KEY,
    FLAG_ACCEPTED,
    FLAG_CONNECT,
    FLAG_SOCKMAP,
    RESPONSE,
    SUMS,
    SUMS_KEY,
)
from watchdog.kernel.live_sockets import Coverage
from watchdog.kernel.quality import Quality
from watchdog.kernel.totals_map import Totals
from watchdog.measure.catalogue import METRICS, TCP_STATES
from watchdog.measure.meter import Meter

SECOND = 1_000_000_000
BY = ("pid", "process", "user", "netns", "direction", "family", "local_port", "remote_port", "state", "failure")
ESTABLISHED, LISTEN, CLOSE_WAIT = (TCP_STATES.index(name) for name in ("ESTABLISHED", "LISTEN", "CLOSE_WAIT"))


class Host:
    """Random connections. `reading` gives all live ones, or those that changed since the reading before."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.live = {}
        self.reported = {}
        self.closed = []
        self.cookie = 0
        self.at_ns = 1000 * SECOND

    def act(self):
        for _ in range(self.random.integers(0, 12)):
            chosen = self.random.choice(list(self.live)) if self.live else None
            match self.random.integers(0, 8):
                case 0 | 1 | 2:
                    self.open()
                case 3 if chosen:
                    self.close(chosen)
                case 4 if chosen:
                    self.live[chosen]["owner"]["tgid"] = self.random.integers(1, 4)
                case 5 if chosen:
                    self.live[chosen]["receive_queue"] = self.random.integers(0, 50)
                case 6 if chosen:
                    self.live[chosen]["state"] = self.random.choice([ESTABLISHED, CLOSE_WAIT])
                case 7 if chosen:
                    self.transfer(chosen)

    def open(self):
        row = np.zeros(1, CONNECTION)
        self.cookie += 1
        listens = self.random.random() < 0.1
        row["cookie"], row["family"], row["netns"] = self.cookie, 2, self.random.integers(1, 3)
        row["born_ns"] = self.at_ns if self.random.random() < 0.9 else 0
        row["direction"] = 0 if not row["born_ns"][0] or listens else self.random.integers(1, 3)
        row["state"] = LISTEN if listens else ESTABLISHED
        row["local_port"], row["remote_port"] = self.random.integers(1, 5), 0 if listens else self.random.integers(1, 5)
        row["flags"] = 0 if listens else self.random.choice([FLAG_CONNECT, FLAG_ACCEPTED, FLAG_CONNECT | FLAG_SOCKMAP])
        row["established_ns"] = 0 if listens else self.at_ns
        row["send_queue"] = 9 if listens else 0
        row["owner"]["tgid"] = self.random.integers(1, 4)
        row["owner"]["comm"] = b"p%d" % row["owner"]["tgid"][0]
        row["remote"][0, 10:] = [255, 255, 10, 0, 0, self.random.integers(0, 3)]
        self.live[self.cookie] = row

    def transfer(self, cookie):
        row = self.live[cookie]
        if row["state"][0] == LISTEN:
            row["drops"] += 1
            return
        for name in ("bytes_sent", "bytes_received", "packets_sent", "packets_received"):
            row[name] += int(self.random.integers(1, 1000))
        row["srtt_us"] = 500

    def close(self, cookie):
        self.transfer(cookie)
        row = self.live.pop(cookie)
        row["ended_ns"] = self.at_ns
        if row["state"][0] != LISTEN:
            row["state"] = TCP_STATES.index("CLOSE")
        self.closed.append(row)
        self.reported.pop(cookie, None)

    def readings(self, coverage):
        """Return the complete reading of this tick, and the one with `coverage`."""
        self.at_ns += SECOND
        answers = [cookie for cookie in self.live if self.random.random() < 0.1]
        responses = np.array([(cookie, 2_000_000) for cookie in answers], RESPONSE)
        changed = [
            row
            for cookie, row in self.live.items()
            if coverage is Coverage.ALL or self.reported.get(cookie) != row.tobytes()
        ]
        self.reported = {cookie: row.tobytes() for cookie, row in self.live.items()}
        nothing = np.empty(0, CONNECTION)
        complete = Reading(
            at_ns=self.at_ns,
            live=np.concatenate([nothing, *self.live.values()]),
            closed=np.concatenate([nothing, *self.closed]),
            sums=Totals(np.empty(0, SUMS_KEY), np.empty(0, SUMS)),
            responses=responses,
            datagrams=Totals(np.empty(0, DATAGRAMS_KEY), np.empty(0, DATAGRAMS)),
            quality=Quality(),
        )
        self.closed = []
        return complete, replace(complete, live=np.concatenate([nothing, *changed]), coverage=coverage)


def rows_of(snapshot):
    """Return the rows of a snapshot as sorted texts: dimensions, addresses, metrics."""
    columns = [[snapshot.names.text(name, int(code)) for code in snapshot.dimensions[name]] for name in BY]
    columns.append([snapshot.names.text("remote", int(code)) for code in snapshot.dimensions["remote"]])
    columns.append([tuple(halves) for halves in snapshot.addresses["remote"].tolist()])
    columns += [np.round(snapshot.metrics[name], 9).tolist() for name in METRICS]
    marked = np.zeros(len(snapshot))
    for number, one in enumerate(snapshot.undercounted):
        marked[one.rows] += number + 1
    columns.append(marked.tolist())
    return sorted(map(str, zip(*columns, strict=True)))


@pytest.mark.parametrize("seed", range(6))
def test_snapshots_are_the_same_with_and_without_idle_rows_in_the_reading(seed):
    host, complete, incremental = Host(seed), Meter(), Meter()
    for tick in range(60):
        host.act()
        is_complete = tick == 0 or host.random.random() < 0.05
        everything, changed = host.readings(Coverage.ALL if is_complete else Coverage.CHANGED)
        expected = complete.advance(everything, 0)
        found = incremental.advance(changed, 0)
        assert rows_of(found) == rows_of(expected), tick
        assert found.quality == expected.quality


def test_a_connection_whose_end_was_lost_leaves_with_the_next_complete_reading_and_counts_once_if_it_returns():
    host, meter = Host(1), Meter()
    for _ in range(3):
        host.open()
    for row in host.live.values():
        row["state"], row["flags"], row["bytes_sent"] = ESTABLISHED, FLAG_CONNECT, 100
    meter.advance(host.readings(Coverage.ALL)[1], 0)
    missed = host.live.pop(2)
    assert meter.advance(host.readings(Coverage.CHANGED)[1], 0).metrics["open"].sum() == 3
    assert meter.advance(host.readings(Coverage.ALL)[1], 0).metrics["open"].sum() == 2
    host.live[2] = missed
    missed["bytes_sent"] = 107
    snapshot = meter.advance(host.readings(Coverage.CHANGED)[1], 0)

    assert (snapshot.metrics["open"].sum(), snapshot.metrics["bytes_sent"].sum()) == (3, 7)


def test_an_idle_connection_is_not_late_when_it_speaks_again():
    host, meter = Host(1), Meter()
    host.open()
    (row,) = host.live.values()
    row["state"], row["flags"], row["born_ns"] = ESTABLISHED, FLAG_CONNECT, host.at_ns
    meter.advance(host.readings(Coverage.ALL)[1], 0)
    for _ in range(100):
        meter.advance(host.readings(Coverage.CHANGED)[1], 0)
    row["bytes_sent"] = 9
    snapshot = meter.advance(host.readings(Coverage.CHANGED)[1], 0)

    assert snapshot.metrics["bytes_sent"].sum() == 9
    assert snapshot.quality.late_bytes == 0
    assert not len(snapshot.late.rows)


def test_where_a_pass_was_not_finished_the_others_stay_open():
    host, meter = Host(1), Meter()
    for _ in range(3):
        host.open()
    for row in host.live.values():
        row["state"], row["flags"] = ESTABLISHED, FLAG_CONNECT
    meter.advance(host.readings(Coverage.ALL)[1], 0)
    complete, _ = host.readings(Coverage.ALL)
    snapshot = meter.advance(replace(complete, live=complete.live[:1], coverage=Coverage.PART), 0)

    assert snapshot.metrics["open"].sum() == 3
