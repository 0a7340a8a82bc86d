"""Changes of each connection since the previous tick: totals of the kernel minus the last known totals.

The kernel's counters only grow, so differences lose nothing between two readings. A connection that is older than the
programs is a baseline at its first reading: its earlier traffic is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from socket import AF_INET6

import numpy as np
from numpy.typing import NDArray

from watchdog.clock import SECOND_NS
from watchdog.kernel.collector import Reading
from watchdog.kernel.host_sockets import HostSockets
from watchdog.kernel.layout import (
    CONNECTION,
    DATAGRAMS_COUNTERS,
    SUMS_COUNTERS,
)
from watchdog.kernel.totals_map import Totals
from watchdog.measure.catalogue import DIRECTIONS, HOST_METRICS, METRICS, TCP_STATES, MetricKind
from watchdog.measure.connection_metrics import (
    WIDE_COUNTERS,
    WRAPPING_COUNTERS,
    ConnectionFields,
    ConnectionIds,
    ConnectionRows,
    connection_metrics,
    failure_codes,
    find_in_sockmap,
    is_correction,
    is_listener,
    refuse_impossible_changes,
)
from watchdog.measure.snapshot import Numbers
from watchdog.measure.struct_rows import assign_rows, concatenate_rows, extract_fields, select_rows
from watchdog.measure.totals_deltas import TotalsDeltas

# Counters since the start of the connection; the others count since the socket is tracked.
_SINCE_BIRTH = (*WIDE_COUNTERS, "packets_sent", "packets_received", "retransmits", "drops")
_READ = (
    *(
        "cookie",
        "incarnation",
        "born_ns",
        "established_ns",
        "ended_ns",
        "srtt_us",
        "send_queue",
        "receive_queue",
        "half_open",
    ),
    *("error", "state", "direction", "flags", *WIDE_COUNTERS, *WRAPPING_COUNTERS),
)
_OUT, _IN = DIRECTIONS.index("out"), DIRECTIONS.index("in")
_ADDRESS_BYTES = 16
_ANY_ADDRESS = np.frombuffer(bytes(16) + bytes(10) + b"\xff\xff" + bytes(4), f"V{_ADDRESS_BYTES}")  # :: and 0.0.0.0
_ENDPOINT = np.dtype([("netns", "u4"), ("local_port", "u2"), ("local", "u1", (_ADDRESS_BYTES,))])
# A connection can be missing in a pass: without a file where the pass goes over files, or for a moment. Its last
# values are kept for this time; tcp_orphan_retries and keepalive end such connections earlier.
_KEEP_NS = 15 * 60 * SECOND_NS
# Traffic of a connection that was unseen for longer than this, and than two ticks, does not belong to this tick.
_LATE_NS = 10 * SECOND_NS

# Counter of struct datagrams: metric.
_UDP = {name: f"udp_{name}" for name in DATAGRAMS_COUNTERS}

# The values of a connection that are kept between two ticks.
_KNOWN = np.dtype(
    [
        ("id", "<u8"),
        ("seen_ns", "<u8"),
        *((name, "<u8") for name in WIDE_COUNTERS),
        *((name, "<u4") for name in WRAPPING_COUNTERS),
        ("flags", "u1"),
        ("established", "?"),
    ]
)


@dataclass(frozen=True, slots=True)
class Responses:
    """Responses to requests. `rows`: (r,), index of the connection; `seconds`: (r,), latency.

    `unassigned`: number of responses without a row of their connection.
    """

    rows: NDArray[np.intp]
    seconds: Numbers
    unassigned: int


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of one tick, one row per connection; rows of sums and of UDP follow.

    `rows`: (n,) of `CONNECTION`, listeners (`is_listener`) included; rows with cookie 0 are not a single connection.
    `failure`: (n,) index into `FAILURES`. `metrics`: by name, (n,) float64: changes of counters, `open`, and
    distributions in seconds with NaN for none. `unseen_ns`: (n,) int64, time since the connection was last seen, where
    the traffic is of more than this tick because the connection was not in the passes before; else 0.
    `refused`: indices of the rows with a change that no connection can make. `in_sockmap`: indices of the rows of
    connections that are or were in a sockmap.
    """

    rows: ConnectionRows
    failure: NDArray[np.uint8]
    metrics: Mapping[str, Numbers]
    responses: Responses
    unseen_ns: NDArray[np.int64]
    refused: NDArray[np.intp]
    in_sockmap: NDArray[np.intp]


def connection_ids(rows: ConnectionRows | ConnectionFields) -> ConnectionIds:
    """Return the ids of the connections, (n,): the socket cookie and, in the upper bits, the socket's incarnation."""
    ids: ConnectionIds = rows["cookie"] ^ (rows["incarnation"].astype(np.uint64) << np.uint64(48))
    return ids


class Deltas:
    """Keeps the last totals of every live connection, and computes differences."""

    def __init__(self) -> None:
        """Start empty: the first reading is the baseline."""
        self._known = np.empty(0, _KNOWN)
        self._previous_ns: int | None = None
        self._sums = TotalsDeltas(SUMS_COUNTERS)
        self._datagrams = TotalsDeltas(DATAGRAMS_COUNTERS)
        self._reset_peers = TotalsDeltas(["resets_sent"])

    def advance(self, reading: Reading) -> Changes:
        """Return the changes since the previous reading."""
        rows = self._current(reading)
        fields = extract_fields(rows, _READ)
        ids = connection_ids(fields)
        at, known = self._join(ids)
        known &= ~is_correction(fields)
        before = self._before(fields, at, known)
        refused = refuse_impossible_changes(fields, before, known)
        metrics = connection_metrics(fields, before, known)
        failure = failure_codes(fields)
        unseen_ns = self._unseen_ns(fields, before, reading.at_ns)
        traffic = metrics["bytes_sent"] + metrics["bytes_received"]
        metrics["late_bytes"] = np.where(unseen_ns, traffic, 0)
        self._remember(fields, ids, at[known], reading.at_ns)
        responses = self._responses(fields["cookie"], reading)
        metrics |= {name: np.zeros(len(rows)) for name in (*_UDP.values(), *HOST_METRICS, "lost_connections")}
        changes = Changes(rows, failure, metrics, responses, unseen_ns, refused, find_in_sockmap(fields))
        for totals, names, make_rows in (
            (self._sums.advance(reading.sums), {name: name for name in SUMS_COUNTERS}, _rows_of_sums),
            (self._datagrams.advance(reading.datagrams), _UDP, _rows_of_datagrams),
            (self._reset_peers.advance(reading.reset_peers), {"resets_sent": "resets_sent"}, _rows_of_reset_peers),
        ):
            if len(totals.keys):
                changes = _with_totals(changes, make_rows(totals, reading.at_ns), totals, names)
        return changes if reading.host is None else _with_host_row(changes, reading.host, reading.live)

    def _current(self, reading: Reading) -> ConnectionRows:
        # One row per connection: its final row if it ended during the reading.
        live = reading.live
        if len(reading.closed):
            live = select_rows(live, ~np.isin(connection_ids(live), connection_ids(reading.closed)))
        rows = concatenate_rows([live, reading.closed])
        unknown = rows["direction"] == 0
        if unknown.any():  # older than the programs: inbound if a listener has the address
            inbound = _has_listener(rows[unknown], live[is_listener(live)])
            rows["direction"][unknown] = np.where(inbound, _IN, _OUT)
        return rows

    def _join(self, ids: ConnectionIds) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        if not len(self._known):
            return np.zeros(len(ids), np.intp), np.zeros(len(ids), np.bool_)
        at = np.minimum(np.searchsorted(self._known["id"], ids), len(self._known) - 1)
        return at, self._known["id"][at] == ids

    def _before(self, rows: ConnectionFields, at: NDArray[np.intp], known: NDArray[np.bool_]) -> ConnectionFields:
        kept = np.zeros(len(at), _KNOWN)
        assign_rows(kept, known, select_rows(self._known, at[known]))
        before = extract_fields(kept, _KNOWN.names or ())
        baseline = ~known & (rows["born_ns"] == 0)
        for name in _SINCE_BIRTH:
            before[name][baseline] = rows[name][baseline]
        return before

    def _remember(self, rows: ConnectionFields, ids: ConnectionIds, matched: NDArray[np.intp], at_ns: int) -> None:
        alive = rows["ended_ns"] == 0
        new = np.zeros(int(alive.sum()), _KNOWN)
        new["id"], new["seen_ns"] = ids[alive], at_ns
        for name in (*WIDE_COUNTERS, *WRAPPING_COUNTERS, "flags"):
            new[name] = rows[name][alive]
        new["established"] = rows["established_ns"][alive] != 0
        unseen = np.ones(len(self._known), np.bool_)
        unseen[matched] = False
        unseen &= self._known["seen_ns"] + np.uint64(_KEEP_NS) > at_ns
        both = concatenate_rows([new, select_rows(self._known, unseen)])
        self._known = select_rows(both, np.argsort(both["id"], kind="stable"))

    def _unseen_ns(self, rows: ConnectionFields, before: ConnectionFields, at_ns: int) -> NDArray[np.int64]:
        # Where the pass goes over files: sockets without one. Everywhere: sockets without memory for their entry.
        interval_ns = 0 if self._previous_ns is None else at_ns - self._previous_ns
        self._previous_ns = at_ns
        last_seen = np.maximum(before["seen_ns"], rows["born_ns"]).astype(np.int64)
        late = (last_seen > 0) & (last_seen < at_ns - max(_LATE_NS, 2 * interval_ns)) & ~is_listener(rows)
        return np.where(late, at_ns - last_seen, 0)

    def _responses(self, cookies: ConnectionIds, reading: Reading) -> Responses:
        # The row of a response is the newest incarnation of its socket. Without a row: sockets that the pass does not
        # see, connections that were added to sums, and MPTCP connections whose first subflow has ended (cookie 0).
        wanted = reading.responses["cookie"]
        if not len(wanted) or not len(cookies):
            return Responses(np.empty(0, np.intp), np.empty(0), len(wanted))
        order = np.argsort(cookies, kind="stable")
        ordered = cookies[order]
        at = np.searchsorted(ordered, wanted, side="right") - 1
        found = (at >= 0) & (ordered[at] == wanted)
        seconds = reading.responses["latency_ns"][found] / SECOND_NS
        return Responses(order[at[found]], seconds, len(wanted) - len(seconds))


def _has_listener(rows: ConnectionRows, listeners: ConnectionRows) -> NDArray[np.bool_]:
    """Return, (n,), whether one of `listeners` has the local address and port of a row, or its port at any address."""
    addresses = np.ascontiguousarray(listeners["local"]).view(_ANY_ADDRESS.dtype).ravel()
    everywhere = np.isin(addresses, _ANY_ADDRESS)
    at_port: NDArray[np.bool_] = np.isin(_ports(rows), _ports(listeners[everywhere]))
    return at_port | np.isin(_endpoints(rows), _endpoints(listeners[~everywhere]))


def _endpoints(rows: ConnectionRows) -> NDArray[np.void]:
    endpoints = np.empty(len(rows), _ENDPOINT)
    for name in _ENDPOINT.names or ():
        endpoints[name] = rows[name]
    return endpoints.view(f"V{_ENDPOINT.itemsize}")


def _ports(rows: ConnectionRows) -> ConnectionIds:
    ports: ConnectionIds = rows["netns"].astype(np.uint64) << np.uint64(16) | rows["local_port"].astype(np.uint64)
    return ports


def _rows_of_sums(totals: Totals, at_ns: int) -> ConnectionRows:
    rows = _rows_of_processes(totals, at_ns)
    rows["direction"] = totals.keys["direction"]
    return rows


def _rows_of_datagrams(totals: Totals, at_ns: int) -> ConnectionRows:
    rows = _rows_of_processes(totals, at_ns)
    rows["family"] = totals.keys["family"]
    return rows


def _rows_of_reset_peers(totals: Totals, at_ns: int) -> ConnectionRows:
    rows = np.zeros(len(totals.keys), CONNECTION)
    rows["ended_ns"], rows["family"] = at_ns, AF_INET6  # IPv4 has mapped addresses
    for name in ("remote", "netns", "direction"):
        rows[name] = totals.keys[name]
    return rows


def _rows_of_processes(totals: Totals, at_ns: int) -> ConnectionRows:
    rows = np.zeros(len(totals.keys), CONNECTION)
    rows["owner"], rows["netns"], rows["ended_ns"] = totals.values["owner"], totals.keys["netns"], at_ns
    return rows


def _with_host_row(changes: Changes, host: HostSockets, live: ConnectionRows) -> Changes:
    in_use = np.zeros(len(host.is_ephemeral), np.bool_)
    in_use[live["local_port"][live["netns"] == host.netns]] = True
    if host.time_wait_ports is not None:
        in_use[host.time_wait_ports] = True
    values = np.zeros(1, [(name, "<u8") for name in HOST_METRICS])
    values["time_wait"], values["orphans"] = host.time_wait, host.orphans
    values["ports_in_use"], values["ports"] = (in_use & host.is_ephemeral).sum(), host.is_ephemeral.sum()
    rows = np.zeros(1, CONNECTION)
    rows["netns"], rows["state"] = host.netns, TCP_STATES.index("TIME_WAIT")
    return _with_totals(changes, rows, Totals(rows, values), {name: name for name in HOST_METRICS})


def _with_totals(changes: Changes, rows: ConnectionRows, totals: Totals, names: Mapping[str, str]) -> Changes:
    # `names`: metric by counter of the totals. All other metrics of these rows are empty.
    metrics = {}
    for name, values in changes.metrics.items():
        empty = np.nan if METRICS[name].kind is MetricKind.DISTRIBUTION else 0.0
        metrics[name] = np.concatenate([values, np.full(len(rows), empty)])
    for counter, name in names.items():
        metrics[name][-len(rows) :] = totals.values[counter]
    failure = np.concatenate([changes.failure, np.zeros(len(rows), np.uint8)])
    unseen_ns = np.concatenate([changes.unseen_ns, np.zeros(len(rows), np.int64)])
    rows = concatenate_rows([changes.rows, rows])
    return Changes(rows, failure, metrics, changes.responses, unseen_ns, changes.refused, changes.in_sockmap)
