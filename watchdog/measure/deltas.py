"""Changes of each connection since the previous tick: totals of the kernel minus the last known totals.

The kernel's counters only grow, so differences lose nothing between two readings. A connection that is older than the
programs is a baseline at its first reading: its earlier traffic is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from socket import AF_INET6
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from watchdog.clock import SECOND_NS
from watchdog.kernel.collector import Reading
from watchdog.kernel.host_sockets import HostSockets
from watchdog.kernel.layout import (
    CONNECTION,
    DATAGRAMS_COUNTERS,
    FLAG_APART,
    SUMS_COUNTERS,
)
from watchdog.kernel.live_sockets import Coverage
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
from watchdog.measure.connection_table import ConnectionTable, Positions
from watchdog.measure.snapshot import Numbers
from watchdog.measure.struct_rows import concatenate_rows, extract_fields, select_rows
from watchdog.measure.totals_deltas import TotalsDeltas

# Counters since the start of the connection; the others count since the socket is tracked.
_SINCE_BIRTH = (*WIDE_COUNTERS, "packets_sent", "packets_received", "retransmits", "drops")
_READ = (
    *(
        "cookie",
        "netns",
        "local_port",
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
_COOKIE_BITS = np.uint64(2**48 - 1)  # of an id, see connection_ids()
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

KNOWN: dict[str, DTypeLike] = {
    "seen_ns": "<u8",
    **dict.fromkeys(WIDE_COUNTERS, "<u8"),
    **dict.fromkeys(WRAPPING_COUNTERS, "<u4"),
    "flags": "u1",
    "direction": "u1",
    "established": "?",
    "netns": "<u4",
    "local_port": "<u4",
}
"""The values of a connection that are kept between two ticks: columns of the table of live connections."""

_UNSEEN = np.dtype([("id", "<u8"), *KNOWN.items()])


@dataclass(frozen=True, slots=True)
class Responses:
    """Responses to requests. `rows`: (r,), index of the connection; `seconds`: (r,), latency.

    `live`, `live_seconds`: the same for connections without a row, by their position in the table of live connections.
    `unassigned`: number of other responses.
    """

    rows: NDArray[np.intp]
    seconds: Numbers
    live: Positions
    live_seconds: Numbers
    unassigned: int


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of one tick, one row per connection of the reading; rows of sums and of UDP follow.

    `rows`: (n,) of `CONNECTION`, listeners (`is_listener`) included; rows with cookie 0 are not a single connection.
    `live`: (n,), position of each row in the table of live connections, -1 for all that are not one.
    `failure`: (n,) index into `FAILURES`. `metrics`: by name, (n,) float64: changes of counters, `open`, and
    distributions in seconds with NaN for none. `unseen_ns`: (n,) int64, time since the connection was last seen, where
    the traffic is of more than this tick because the connection was not in the passes before; else 0.
    `refused`: indices of the rows with a change that no connection can make. `in_sockmap`: indices of the rows of
    connections that are or were in a sockmap.
    """

    rows: ConnectionRows
    live: Positions
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
    """Keeps the last totals of every live connection, and computes differences.

    It decides which connections are in the table: those that a reading has, until it has their end, or until a complete
    reading is without them.
    """

    def __init__(self, table: ConnectionTable) -> None:
        """Start empty: the first reading is the baseline. `table`: empty, with the columns `KNOWN`."""
        self._table = table
        self._unseen = np.empty(0, _UNSEEN)  # of connections that are not in the table, sorted by id
        self._listeners = np.empty(0, CONNECTION)
        self._previous_ns: int | None = None
        self._sums = TotalsDeltas(SUMS_COUNTERS)
        self._datagrams = TotalsDeltas(DATAGRAMS_COUNTERS)
        self._reset_peers = TotalsDeltas(["resets_sent"])

    def advance(self, reading: Reading) -> Changes:
        """Return the changes since the previous reading, and update the table."""
        rows = _current(reading)
        fields = extract_fields(rows, _READ)
        ids = connection_ids(fields)
        is_final = (fields["ended_ns"] != 0) & ~is_correction(fields)
        at = self._table.find(ids)
        before, known = self._before(fields, ids, at)
        self._listeners = _present_listeners(self._listeners, rows, ids, is_final, reading)
        self._set_direction(rows, fields, before, known)
        refused = refuse_impossible_changes(fields, before, known)
        metrics = connection_metrics(fields, before, known)
        unseen_ns = self._unseen_ns(fields, before, reading.at_ns)
        traffic = metrics["bytes_sent"] + metrics["bytes_received"]
        metrics["late_bytes"] = np.where(unseen_ns, traffic, 0)
        live = self._remember(fields, ids, at, is_final, reading)
        responses = self._responses(fields["cookie"], reading)
        metrics |= {name: np.zeros(len(rows)) for name in (*_UDP.values(), *HOST_METRICS, "lost_connections")}
        in_sockmap = find_in_sockmap(fields)
        changes = Changes(rows, live, failure_codes(fields), metrics, responses, unseen_ns, refused, in_sockmap)
        for totals, names, make_rows in (
            (self._sums.advance(reading.sums), {name: name for name in SUMS_COUNTERS}, _rows_of_sums),
            (self._datagrams.advance(reading.datagrams), _UDP, _rows_of_datagrams),
            (self._reset_peers.advance(reading.reset_peers), {"resets_sent": "resets_sent"}, _rows_of_reset_peers),
        ):
            if len(totals.keys):
                changes = _with_totals(changes, make_rows(totals, reading.at_ns), totals, names)
        return changes if reading.host is None else _with_host_row(changes, reading.host, self._table)

    def _before(
        self, rows: ConnectionFields, ids: ConnectionIds, at: Positions
    ) -> tuple[dict[str, Any], NDArray[np.bool_]]:
        """Return the kept values by name, (n,) each, 0 for unknown connections, and which ones are known, (n,).

        `at`: the positions of the rows in the table.
        """
        known = (at >= 0) & ~is_correction(rows)
        all_known = bool(known.all())
        before: dict[str, Any] = {}
        for name in KNOWN:
            column = self._table.column(name)
            before[name] = column[at] if all_known else np.zeros(len(ids), column.dtype)
            if not all_known:
                before[name][known] = column[at[known]]
        if len(self._unseen) and not known.all():
            self._add_unseen(before, known, ids, ~known & ~is_correction(rows))
        baseline = ~known & (rows["born_ns"] == 0)
        for name in _SINCE_BIRTH:
            before[name][baseline] = rows[name][baseline]
        return before, known

    def _add_unseen(
        self, before: dict[str, Any], known: NDArray[np.bool_], ids: ConnectionIds, wanted: NDArray[np.bool_]
    ) -> None:
        at = np.minimum(np.searchsorted(self._unseen["id"], ids), len(self._unseen) - 1)
        found = wanted & (self._unseen["id"][at] == ids)
        for name in KNOWN:
            before[name][found] = self._unseen[name][at[found]]
        known |= found

    def _set_direction(
        self, rows: ConnectionRows, fields: dict[str, Any], before: ConnectionFields, known: NDArray[np.bool_]
    ) -> None:
        # Older than the programs: inbound if a listener has the address. The answer stays while the connection lives.
        unknown = np.flatnonzero(fields["direction"] == 0)
        if not len(unknown):
            return
        direction = np.where(known[unknown], before["direction"][unknown], 0)
        new = direction == 0
        if new.any():
            direction[new] = np.where(_has_listener(rows[unknown[new]], self._listeners), _IN, _OUT)
        rows["direction"][unknown] = fields["direction"][unknown] = direction

    def _remember(
        self, rows: ConnectionFields, ids: ConnectionIds, at: Positions, is_final: NDArray[np.bool_], reading: Reading
    ) -> Positions:
        """Return the position of each row in the table, (n,), -1 for rows that are not in it. `at`: those before."""
        table = self._table
        alive = rows["ended_ns"] == 0
        ended, new = at[is_final & (at >= 0)], ids[alive & (at < 0)]
        table.remove(ended)
        table.add(new)
        live = np.where(alive, table.find(ids) if len(ended) or len(new) else at, -1)
        positions = live[alive]
        for name in (*WIDE_COUNTERS, *WRAPPING_COUNTERS, "flags", "direction", "netns", "local_port"):
            table.column(name)[positions] = rows[name][alive]
        table.column("established")[positions] = rows["established_ns"][alive] != 0
        if reading.coverage is Coverage.CHANGED:
            table.column("seen_ns")[~self._is_apart()] = reading.at_ns
        table.column("seen_ns")[positions] = reading.at_ns
        kept = self._unseen["seen_ns"] + np.uint64(_KEEP_NS) > reading.at_ns
        if len(self._unseen):
            kept &= ~np.isin(self._unseen["id"], ids[alive | is_final])
            self._unseen = self._unseen[kept]
        if reading.coverage is Coverage.ALL and len(positions) < len(table):
            absent = np.ones(len(table), np.bool_)
            absent[positions] = False
            absent &= ~self._is_apart() | (table.column("seen_ns") + np.uint64(_KEEP_NS) < reading.at_ns)
            self._set_aside(absent)
            live = np.where(alive, table.find(ids), -1)
        return live

    def _is_apart(self) -> NDArray[np.bool_]:
        """Return, (n,), the connections that a pass does not visit: a walk over files reports them, now and then."""
        apart: NDArray[np.bool_] = (self._table.column("flags") & FLAG_APART) != 0
        return apart

    def _set_aside(self, absent: NDArray[np.bool_]) -> None:
        """Remove the connections of the mask `absent`, (n,), from the table, and keep their values."""
        values = np.zeros(int(absent.sum()), _UNSEEN)
        values["id"] = self._table.ids()[absent]
        for name in KNOWN:
            values[name] = self._table.column(name)[absent]
        self._table.remove(np.flatnonzero(absent))
        both = np.concatenate([self._unseen, values])
        self._unseen = both[np.argsort(both["id"])]

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
        wanted, seconds = reading.responses["cookie"], reading.responses["latency_ns"] / SECOND_NS
        rows = _newest_of(cookies, wanted)
        idle = np.full(len(wanted), -1, np.intp)
        if (rows < 0).any():  # it did not change since the pass before, or the answer came after the pass
            idle[rows < 0] = _newest_of(self._table.ids() & _COOKIE_BITS, wanted[rows < 0])
        found, found_idle = rows >= 0, idle >= 0
        unassigned = len(wanted) - int(found.sum()) - int(found_idle.sum())
        return Responses(rows[found], seconds[found], idle[found_idle], seconds[found_idle], unassigned)


def _newest_of(cookies: ConnectionIds, wanted: ConnectionIds) -> NDArray[np.intp]:
    """Return the last index in `cookies` of each of `wanted`, -1 for none."""
    if not len(wanted) or not len(cookies):
        return np.full(len(wanted), -1, np.intp)
    order = np.argsort(cookies, kind="stable")
    ordered = cookies[order]
    at = np.searchsorted(ordered, wanted, side="right") - 1
    return np.where((at >= 0) & (ordered[at] == wanted), order[at], -1)


def _current(reading: Reading) -> ConnectionRows:
    # One row per connection: its final row if it ended during the reading.
    if not len(reading.closed):
        return reading.live
    live = select_rows(reading.live, ~np.isin(connection_ids(reading.live), connection_ids(reading.closed)))
    return concatenate_rows([live, reading.closed])


def _present_listeners(
    listeners: ConnectionRows,
    rows: ConnectionRows,
    ids: ConnectionIds,
    is_final: NDArray[np.bool_],
    reading: Reading,
) -> ConnectionRows:
    new = rows[is_listener(rows) & ~is_final]
    if reading.coverage is Coverage.ALL:
        return new
    if not len(new) and not is_listener(reading.closed).any():
        return listeners
    return concatenate_rows([listeners[~np.isin(connection_ids(listeners), ids)], new])


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


def _with_host_row(changes: Changes, host: HostSockets, table: ConnectionTable) -> Changes:
    in_use = np.zeros(len(host.is_ephemeral), np.bool_)
    in_use[table.column("local_port")[table.column("netns") == host.netns]] = True
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
    return replace(
        changes,
        rows=concatenate_rows([changes.rows, rows]),
        live=np.concatenate([changes.live, np.full(len(rows), -1)]),
        failure=np.concatenate([changes.failure, np.zeros(len(rows), np.uint8)]),
        metrics=metrics,
        unseen_ns=np.concatenate([changes.unseen_ns, np.zeros(len(rows), np.int64)]),
    )
