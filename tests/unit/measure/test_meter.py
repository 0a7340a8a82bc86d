"""Snapshots made from readings: rates and totals."""

from dataclasses import replace

import numpy as np
import pytest

from watchdog.kernel.collector import Reading
from watchdog.kernel.host_sockets import HostSockets
from watchdog.kernel.layout import (
    CONNECTION,
    DATAGRAMS,
    DATAGRAMS_KEY,
    FLAG_CONNECT,
    FLAG_SOCKMAP,
    RESET_PEER,
    RESPONSE,
    SUMS,
    SUMS_KEY,
)
from watchdog.kernel.quality import Quality
from watchdog.kernel.reset_peers import RESET_PEER_ID
from watchdog.kernel.totals_map import Totals
from watchdog.measure import meter as meter_module
from watchdog.measure.catalogue import ABSENT_CODE, DIRECTIONS, OTHER_CODE, TCP_STATES, UNATTRIBUTED, UNKNOWN_CODE
from watchdog.measure.interning import InternedNames
from watchdog.measure.meter import Meter
from watchdog.measure.sample_connections import ConnectionAggregate
from watchdog.measure.sample_groups import GroupAggregate

SECOND = 1_000_000_000


def connection(**values):
    row = np.zeros(1, CONNECTION)
    for name, value in ({"cookie": 1, "born_ns": SECOND, "direction": 1, "state": 1, "family": 2} | values).items():
        row[name] = value
    return row


def reading(at_s, live=(), closed=(), responses=()):
    nothing = np.empty(0, CONNECTION)
    return Reading(
        at_ns=at_s * SECOND,
        live=np.concatenate([nothing, *live]),
        closed=np.concatenate([nothing, *closed]),
        sums=Totals(np.empty(0, SUMS_KEY), np.empty(0, SUMS)),
        responses=np.array(list(responses), RESPONSE),
        datagrams=Totals(np.empty(0, DATAGRAMS_KEY), np.empty(0, DATAGRAMS)),
        quality=Quality(),
    )


def test_late_traffic_is_marked_with_the_time_in_which_it_can_have_happened():
    meter = Meter()
    for second in range(1, 30):
        meter.advance(reading(second), 0)
    ended = connection(bytes_sent=10**9, packets_sent=10**6, ended_ns=30 * SECOND)
    changes, snapshot = meter.advance_with_changes(reading(30, closed=[ended]), 0)

    assert changes.metrics["bytes_sent"].sum() == 10**9
    assert (snapshot.metrics["bytes_sent"].sum(), snapshot.metrics["packets_sent"].sum()) == (10**9, 10**6)
    assert snapshot.metrics["late_bytes"].tolist() == [10**9, 0]
    assert (snapshot.late.rows.tolist(), snapshot.late.unseen_ns.tolist()) == ([0], [29 * SECOND])
    assert snapshot.metrics["closes"].sum() == 1
    assert snapshot.quality.late_bytes == 10**9


def test_an_impossible_change_is_a_lost_connection_of_its_process():
    _, snapshot = Meter().advance_with_changes(reading(1, live=[connection(bytes_sent=2**60)]), 0)

    assert snapshot.metrics["bytes_sent"].tolist() == [0, 0]
    assert snapshot.metrics["lost_connections"].tolist() == [1, 0]
    assert snapshot.quality.impossible_changes == 1
    assert [one.rows.tolist() for one in snapshot.undercounted if "bytes_sent" in one.metrics] == [[], [0], []]


def test_connections_in_a_sockmap_are_known_by_their_rows_and_listeners_are_not_among_them():
    live = [
        connection(cookie=1, flags=FLAG_CONNECT),
        connection(cookie=2, flags=FLAG_SOCKMAP | FLAG_CONNECT),
        connection(cookie=3, flags=FLAG_SOCKMAP, state=TCP_STATES.index("LISTEN")),
    ]
    snapshot = Meter().advance(reading(1, live, [connection(cookie=4, flags=FLAG_SOCKMAP, ended_ns=SECOND)]), 0)

    assert [one.rows.tolist() for one in snapshot.undercounted] == [[1, 3], [], []]
    assert snapshot.quality.sockmap_connections == 2


def test_each_response_is_a_row_of_its_connection_with_no_other_value():
    row = connection(local_port=80, remote_port=4000, bytes_sent=5)
    row["remote"][0, 10:] = [255, 255, 10, 0, 0, 1]
    _, snapshot = Meter().advance_with_changes(reading(1, live=[row], responses=[(1, 2_000_000), (1, 3_000_000)]), 0)
    latencies = snapshot.metrics["response_latency"]
    answers = ~np.isnan(latencies)

    assert latencies[answers].tolist() == [0.002, 0.003]
    assert snapshot.dimensions["local_port"][answers].tolist() == [80, 80]
    codes = snapshot.dimensions["remote"][answers].tolist()
    assert [snapshot.names.text("remote", code) for code in codes] == ["10.0.0.1", "10.0.0.1"]
    assert snapshot.addresses["remote"][answers].tolist() == [[0, 0xFFFF_0A00_0001]] * 2
    assert (snapshot.metrics["bytes_sent"].sum(), snapshot.metrics["open"].sum()) == (5, 1)
    assert {len(column) for column in snapshot.metrics.values()} == {4}  # the connection, the watchdog, two responses


def sums_of(tgid):
    keys, values = np.zeros(1, SUMS_KEY), np.zeros(1, SUMS)
    keys["tgid"] = values["owner"]["tgid"] = tgid
    keys["direction"], keys["netns"], values["connects"] = 1, 7, 200
    return Totals(keys, values)


def test_rows_of_sums_lost_their_dimensions_and_the_watchdogs_own_row_has_none():
    lost = reading(1)
    lost = replace(lost, sums=sums_of(2**22 + 1), live=connection(remote_port=443))
    snapshot = Meter().advance(lost, 0)

    for name in ("local", "remote", "local_port", "remote_port", "family", "state", "failure"):
        assert snapshot.dimensions[name][1:].tolist() == [UNKNOWN_CODE, ABSENT_CODE], name
        assert snapshot.dimensions[name][0] < ABSENT_CODE
    assert (snapshot.addresses["remote"][1:] == 2**64 - 1).all()
    assert snapshot.metrics["connects"][1] == 200
    assert [int(snapshot.dimensions[name][1]) for name in ("pid", "direction", "netns")] == [2**22 + 1, 1, 7]
    assert snapshot.names.text("remote", UNKNOWN_CODE) == ""


def test_udp_has_a_family_and_no_peer():
    keys, values = np.zeros(1, DATAGRAMS_KEY), np.zeros(1, DATAGRAMS)
    keys["tgid"], keys["family"], values["bytes_sent"] = 9, 2, 5
    snapshot = Meter().advance(replace(reading(1), datagrams=Totals(keys, values)), 0)

    assert snapshot.metrics["udp_bytes_sent"][0] == 5
    assert snapshot.names.text("family", int(snapshot.dimensions["family"][0])) == "ipv4"
    assert {int(snapshot.dimensions[name][0]) for name in ("remote", "remote_port", "direction")} == {ABSENT_CODE}


def test_connections_without_space_for_their_names_are_counted(monkeypatch):
    monkeypatch.setattr(meter_module, "InternedNames", lambda *prefixes: InternedNames(*prefixes, max_names=5))
    rows = [connection(cookie=number + 1) for number in range(8)]
    for number, row in enumerate(rows):
        row["owner"]["tgid"], row["owner"]["comm"] = 2**22 + 1 + number, f"c{number}".encode()
    meter = Meter()
    meter.advance(reading(1), 0)  # interns the name of the watchdog's own row; "" always has a code
    snapshot = meter.advance(reading(2, live=rows), 0)

    assert snapshot.quality.names_full == 5
    assert snapshot.metrics["lost_connections"].sum() == 5
    assert len(snapshot.partial) == 5
    assert [snapshot.names.text("process", code) for code in snapshot.dimensions["process"][-6:-1].tolist()] == [
        "(other)"
    ] * 5
    assert (snapshot.dimensions["process"] == OTHER_CODE).sum() == 5


def test_resets_of_a_peer_have_the_peer_and_no_other_end():
    ids, counts = np.zeros(2, RESET_PEER_ID), np.zeros(2, RESET_PEER)
    ids["remote"][0, 10:], ids["remote"][1, :2] = (255, 255, 192, 0, 2, 7), (0xFD, 0)
    ids["netns"], ids["direction"] = 4_026_531_840, (DIRECTIONS.index("in"), 0)
    meter = Meter()
    meter.advance(replace(reading(1), reset_peers=Totals(ids, counts)), 0)
    counts["resets_sent"] = 300, 7
    snapshot = meter.advance(replace(reading(2), reset_peers=Totals(ids, counts)), 0)

    def texts(name):
        return [snapshot.names.text(name, int(code)) for code in snapshot.dimensions[name][:2]]

    assert snapshot.metrics["resets_sent"].tolist() == [300, 7, 0]
    assert [texts(name) for name in ("remote", "family", "direction", "netns")] == [
        ["192.0.2.7", "fd00::"], ["ipv4", "ipv6"], ["in", ""], ["4026531840"] * 2
    ]  # fmt: skip
    assert [texts(name) for name in ("process", "local", "local_port", "state")] == [
        [UNATTRIBUTED] * 2, [""] * 2, ["0"] * 2, [""] * 2
    ]  # fmt: skip
    assert not snapshot.quality.unattributed_bytes


def test_lost_connections_stand_in_the_row_of_their_process():
    process, sums = 2**22 + 1, sums_of(2**22 + 1)
    sums.values["closes"], sums.values["connects"], sums.values["lost_connections"] = 5, 8, 3
    meter = Meter()
    meter.advance(reading(1), 0)
    snapshot = meter.advance(replace(reading(2), sums=sums, quality=Quality(sums_full=2, ledger_full=5)), 0)

    assert snapshot.dimensions["pid"][0] == process
    assert snapshot.metrics["lost_connections"].tolist() == [5 + 3, 2]
    assert snapshot.quality.not_followed == 3
    assert [one.rows.tolist() for one in snapshot.undercounted if "open" in one.metrics] == [[0]]
    assert snapshot.partial.tolist() == [0]


@pytest.fixture
def host_sockets():
    """Return the counts of a namespace with the local ports 40,000 to 40,009, of which TIME_WAIT holds two."""
    is_ephemeral = np.zeros(65_536, np.bool_)
    is_ephemeral[40_000:40_010] = True
    ports = np.array([40_001, 40_002], np.uint16)
    return HostSockets(netns=7, time_wait=5, orphans=3, is_ephemeral=is_ephemeral, time_wait_ports=ports)


def test_sockets_without_a_process_count_in_one_row_of_their_namespace(host_sockets):
    ports = (40_002, 40_003, 40_003, 443, 40_005)
    live = [connection(cookie=number + 1, local_port=port) for number, port in enumerate(ports)]
    for row, netns in zip(live, (7, 7, 7, 7, 8), strict=True):
        row["netns"] = netns
    meter = Meter()
    meter.advance(reading(1), 0)
    read = replace(reading(2, live=live), host=host_sockets)
    changes, snapshot = meter.advance_with_changes(read, 0)
    row = len(snapshot) - 2

    counts = {name: values[row] for name, values in snapshot.metrics.items() if values[row] > 0}
    assert counts == {"time_wait": 5, "orphans": 3, "ports_in_use": 3, "ports": 10}
    assert int(snapshot.dimensions["netns"][row]) == 7
    absent = (
        "process",
        "pid",
        "user",
        "unit",
        "direction",
        "family",
        "state",
        "local_port",
        "remote_port",
        "failure",
        "local",
        "remote",
    )
    assert {int(snapshot.dimensions[name][row]) for name in absent} == {ABSENT_CODE}
    assert not len(snapshot.partial)
    by_netns, by_process = GroupAggregate(["netns"]), GroupAggregate(["process"])
    by_connection = ConnectionAggregate()
    for aggregate in (by_netns, by_process, by_connection):
        aggregate.add(changes, snapshot)
    assert sorted((found["netns"], found["time_wait"]) for found in by_netns.rows()) == [(7, 5), (8, 0)]
    assert {found["time_wait"] for found in by_process.rows()} == {0}
    assert by_connection.row_count() == 5


def test_ports_of_time_wait_that_are_not_known_yet_are_not_counted(host_sockets):
    meter = Meter()
    snapshot = meter.advance(replace(reading(1), host=replace(host_sockets, time_wait_ports=None)), 0)
    assert (snapshot.metrics["ports_in_use"].sum(), snapshot.metrics["ports"].sum()) == (0, 10)
