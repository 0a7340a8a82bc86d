"""Metrics of each connection in one tick, computed from its fields and their values in the previous tick.

All functions take fields of n rows of `CONNECTION` by name, (n,) each.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from watchdog.clock import SECOND_NS
from watchdog.kernel.layout import (
    FLAG_ACCEPTED,
    FLAG_CONNECT,
    FLAG_CORRECTION,
    FLAG_DENIED,
    FLAG_FAILED,
    FLAG_SOCKMAP,
    FLAG_UNSENT,
)
from watchdog.measure.catalogue import DIRECTIONS, FAILURES, TCP_STATES
from watchdog.measure.snapshot import Numbers

ConnectionRows = NDArray[np.void]
ConnectionIds = NDArray[np.uint64]
ConnectionFields = Mapping[str, Any]  # by name, (n,) each: fields of rows, contiguous

WIDE_COUNTERS = ("bytes_sent", "bytes_received")
"""Counters of 64 bits."""
WRAPPING_COUNTERS = ("packets_sent", "packets_received", "retransmits", "resets_sent", "resets_received", "drops")
"""Counters of 32 bits, which wrap."""

# More than any host moves in a tick, 9 PB and 2 thousand million segments; float64 is exact up to here.
_MAX_CHANGE = {**dict.fromkeys(WIDE_COUNTERS, 2**53), **dict.fromkeys(WRAPPING_COUNTERS, 2**31)}
# Steps back that the kernel itself makes. bytes_sent: __tcp_retransmit_skb adds to bytes_retrans first, and to
# bytes_sent when it transmits, so that a reading between the two is lower by one packet. bytes_received: the FIN is
# subtracted when its flag is set, which can be one reading after its byte.
_RETRANSMITTED_BYTES = 2**20
_FIN_BYTES = 1

_OUT = DIRECTIONS.index("out")
LISTEN = TCP_STATES.index("LISTEN")
"""The code of the state of a listener."""

_TIME_WAIT = TCP_STATES.index("TIME_WAIT")
_SYN_SENT = TCP_STATES.index("SYN_SENT")
_OPENING = [TCP_STATES.index(name) for name in ("SYN_SENT", "SYN_RECV")]
_FIN_QUEUED = [TCP_STATES.index(name) for name in ("FIN_WAIT1", "CLOSING", "LAST_ACK")]

_FAILURE_OF_ERRNO = np.full(256, FAILURES.index("other"), np.uint8)
for _number, _name in {
    0: "aborted",
    errno.ECONNREFUSED: "refused",
    errno.ETIMEDOUT: "timeout",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",  # tcp_reset() in CLOSE_WAIT
    errno.ECONNABORTED: "aborted",
    errno.EACCES: "denied",  # on the way: ICMPv6 "administratively prohibited"
    errno.EPERM: "denied",
    errno.EADDRINUSE: "no_port",
    errno.EADDRNOTAVAIL: "no_port",
}.items():
    _FAILURE_OF_ERRNO[_number] = FAILURES.index(_name)
# Errors of the search for a route, with FLAG_UNSENT: tcp_v4_connect, tcp_v6_connect. The other errors mean the same.
_NO_ROUTE_ERRORS = (
    errno.ENETUNREACH,  # no route, or `throw`
    errno.EHOSTUNREACH,  # `unreachable`
    errno.EINVAL,  # `blackhole`, or a link-local address without an interface
    errno.EADDRNOTAVAIL,  # a route, but no source address for it
    errno.ENETDOWN,
    errno.ENODEV,
)
_NO_ROUTE, _DENIED = FAILURES.index("no_route"), FAILURES.index("denied")


def is_correction(rows: ConnectionRows | ConnectionFields) -> NDArray[np.bool_]:
    """Return, (n,), whether a row only adds a reset to the final row of a connection."""
    corrections: NDArray[np.bool_] = (rows["flags"] & FLAG_CORRECTION) != 0
    return corrections


def is_listener(rows: ConnectionRows | ConnectionFields) -> NDArray[np.bool_]:
    """Return, (n,), whether a row is a listening socket."""
    listening: NDArray[np.bool_] = rows["state"] == LISTEN
    return listening


def is_of_namespace(rows: ConnectionRows) -> NDArray[np.bool_]:
    """Return, (n,), whether a row has the counts of sockets without a process in one network namespace."""
    namespaces: NDArray[np.bool_] = (rows["cookie"] == 0) & (rows["state"] == _TIME_WAIT)
    return namespaces


def refuse_impossible_changes(
    rows: ConnectionFields, before: ConnectionFields, known: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Set each counter with a change that no connection can make back to `before`; return the indices of such rows.

    A small step back of `bytes_sent` is set back too, and not counted: the next reading makes up for it.
    """
    refused = np.zeros(len(rows["cookie"]), np.bool_)
    for name, limit in _MAX_CHANGE.items():
        change = rows[name] - before[name]  # modulo 2^64 or 2^32: a negative one is very large
        wrong = change >= limit
        if name in WRAPPING_COUNTERS:
            wrong &= known  # all segments of a connection can be more
        if not wrong.any():
            continue
        signed = change.view(np.int64 if name in WIDE_COUNTERS else np.int32)
        if name == "bytes_received":
            wrong &= signed != -_FIN_BYTES
        rows[name][wrong] = before[name][wrong]
        if name == "bytes_sent":
            wrong &= (signed < -_RETRANSMITTED_BYTES) | (signed >= limit)
        refused |= wrong
    return np.flatnonzero(refused)


def find_in_sockmap(rows: ConnectionFields) -> NDArray[np.intp]:
    """Return, (m,), the indices of the connections that are or were in a sockmap; listeners carry no bytes."""
    marked = np.flatnonzero(rows["flags"] & FLAG_SOCKMAP)
    connections: NDArray[np.intp] = marked[rows["state"][marked] != LISTEN]
    return connections


def connection_metrics(
    rows: ConnectionFields, before: ConnectionFields, known: NDArray[np.bool_]
) -> dict[str, Numbers]:
    """Return the metrics of one tick by name, (n,) float64 each.

    `before`: fields at the previous tick, all 0 for unknown connections. `known`: (n,), rows with a value in `before`.
    """
    metrics = _counters(rows, before, known)
    _connect_failures(rows, metrics)
    _distributions(rows, metrics)
    _queues(rows, metrics)
    return metrics


def _counters(rows: ConnectionFields, before: ConnectionFields, known: NDArray[np.bool_]) -> dict[str, Numbers]:
    fresh = rows["flags"] & ~before["flags"]
    established = (rows["established_ns"] != 0) & ~(known & before["established"])
    metrics = {
        "connects": (fresh & FLAG_CONNECT) != 0,
        "established": established,
        "accepts": (fresh & FLAG_ACCEPTED) != 0,
        "closes": (rows["ended_ns"] != 0) & ~is_correction(rows) & ~is_listener(rows),
        "open": (rows["ended_ns"] == 0) & ~is_listener(rows),
    }
    # Signed: the FIN is subtracted from bytes_received when its flag is set, which can be one reading after the byte.
    metrics |= {name: (rows[name] - before[name]).view(np.int64) for name in WIDE_COUNTERS}
    metrics |= {name: rows[name] - before[name] for name in WRAPPING_COUNTERS}
    metrics["listen_drops"] = np.where(is_listener(rows), metrics.pop("drops"), 0)
    return {name: np.asarray(values, np.float64) for name, values in metrics.items()}


def failure_codes(rows: ConnectionFields) -> NDArray[np.uint8]:
    """Return, (n,), the index into `FAILURES` of each row; 0 without a failure."""
    broken = rows["error"] != 0
    failed = (rows["flags"] & FLAG_FAILED) != 0
    ended = (rows["ended_ns"] != 0) & (broken | failed)
    codes = np.where(ended, _FAILURE_OF_ERRNO[np.minimum(rows["error"], 255)], 0).astype(np.uint8)
    unsent = np.flatnonzero(rows["flags"] & (FLAG_UNSENT | FLAG_DENIED))
    if len(unsent):
        codes[unsent[np.isin(rows["error"][unsent], _NO_ROUTE_ERRORS)]] = _NO_ROUTE
        codes[unsent[(rows["flags"][unsent] & FLAG_DENIED) != 0]] = _DENIED
    return codes


def _connect_failures(rows: ConnectionFields, metrics: dict[str, Numbers]) -> None:
    failed = (rows["flags"] & FLAG_FAILED) != 0
    metrics["connect_failures"] = (failed & (rows["ended_ns"] != 0) & (rows["direction"] == _OUT)).astype(np.float64)


def _distributions(rows: ConnectionFields, metrics: dict[str, Numbers]) -> None:
    born = rows["born_ns"] != 0
    out = rows["direction"] == _OUT
    since_birth = (rows["established_ns"] - rows["born_ns"]).view(np.int64) / SECOND_NS
    metrics["connect_latency"] = np.where((metrics["established"] > 0) & out & born, since_birth, np.nan)
    received = (metrics["packets_received"] > 0) & (rows["srtt_us"] > 0)
    received &= rows["state"] != _SYN_SENT  # a reading in the middle of the SYN-ACK
    metrics["rtt"] = np.where(received, rows["srtt_us"] / 1e6, np.nan)
    lifetime = (rows["ended_ns"] - rows["born_ns"]).view(np.int64) / SECOND_NS
    metrics["lifetime"] = np.where((rows["ended_ns"] != 0) & born & ~is_listener(rows), lifetime, np.nan)


def _queues(rows: ConnectionFields, metrics: dict[str, Numbers]) -> None:
    listening = is_listener(rows)
    # A SYN or FIN in the queue is a sequence number, not a byte.
    with_data = (metrics["open"] > 0) & ~np.isin(rows["state"], _OPENING)
    unacknowledged = rows["send_queue"].astype(np.int64) - np.isin(rows["state"], _FIN_QUEUED)
    metrics["send_queue"] = np.where(with_data, np.maximum(unacknowledged, 0), 0).astype(np.float64)
    metrics["receive_queue"] = np.where(with_data, rows["receive_queue"].astype(np.int32), 0).clip(0).astype(np.float64)
    # The kernel lets one connection more wait than the backlog (sk_acceptq_is_full), so a full queue is 100 %.
    share = rows["receive_queue"] / (rows["send_queue"].astype(np.float64) + 1)
    listening &= rows["ended_ns"] == 0
    metrics["listeners"] = listening.astype(np.float64)
    metrics["half_open"] = np.where(listening, rows["half_open"], 0).astype(np.float64)
    metrics["accept_queue"] = np.where(listening, share, np.nan)
