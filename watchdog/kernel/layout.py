"""The records of the kernel half as numpy dtypes, in the same layout as bpf/connection.h."""

from __future__ import annotations

import numpy as np

OWNER = np.dtype(
    [
        ("start_ns", "<u8"),
        ("cgroup_id", "<u8"),
        ("tgid", "<u4"),
        ("uid", "<u4"),
        ("comm", "S16"),
        ("exe", "S32"),
    ]
)
"""struct owner: a process at the time when it became the owner; all zero when unknown."""

CONNECTION = np.dtype(
    [
        ("cookie", "<u8"),
        ("born_ns", "<u8"),
        ("established_ns", "<u8"),
        ("ended_ns", "<u8"),
        ("bytes_sent", "<u8"),
        ("bytes_received", "<u8"),
        ("packets_sent", "<u4"),
        ("packets_received", "<u4"),
        ("retransmits", "<u4"),
        ("resets_sent", "<u4"),
        ("resets_received", "<u4"),
        ("srtt_us", "<u4"),
        ("netns", "<u4"),
        ("send_queue", "<u4"),
        ("receive_queue", "<u4"),
        ("drops", "<u4"),
        ("half_open", "<u4"),
        ("local_port", "<u2"),
        ("remote_port", "<u2"),
        ("error", "<u2"),
        ("incarnation", "<u2"),
        ("family", "u1"),
        ("state", "u1"),
        ("direction", "u1"),
        ("flags", "u1"),
        ("local", "u1", (16,)),
        ("remote", "u1", (16,)),
        ("owner", OWNER),
    ]
)
"""struct connection: one TCP connection; times in ns of CLOCK_BOOTTIME."""

SUMS_KEY = np.dtype([("start_ns", "<u8"), ("tgid", "<u4"), ("netns", "<u4"), ("direction", "<u4"), ("pad", "<u4")])
"""struct sums_key."""

SUMS_COUNTERS = (
    "connects",
    "established",
    "accepts",
    "closes",
    "connect_failures",
    "resets_sent",
    "resets_received",
    "bytes_sent",
    "bytes_received",
    "packets_sent",
    "packets_received",
    "retransmits",
    "lost_connections",
)
"""The counters of struct sums, in its order: all counters of the catalogue that the kernel half has."""

SUMS = np.dtype([*((name, "<u8") for name in SUMS_COUNTERS), ("owner", OWNER)])
"""struct sums: totals of connections that did not fit into the ledger."""

RESET_PEER_KEY = np.dtype([("remote", "u1", (16,)), ("netns", "<u4"), ("direction", "<u4")])
"""struct reset_peer_key."""

RESET_PEER = np.dtype([("created_ns", "<u8"), ("resets_sent", "<u8")])
"""struct reset_peer: resets in answer to segments of a peer that belong to no connection."""

CGROUP = np.dtype([("id", "<u8"), ("parent_id", "<u8"), ("uid", "<u4"), ("pad", "<u4"), ("name", "S256")])
"""struct cgroup_record: a control group (v2) that was made, and the effective user who made it."""

RESPONSE = np.dtype([("cookie", "<u8"), ("latency_ns", "<u8")])
"""struct response: one response to a request, on demand."""

DATAGRAMS_KEY = np.dtype([("start_ns", "<u8"), ("tgid", "<u4"), ("netns", "<u4"), ("family", "<u4"), ("pad", "<u4")])
"""struct datagrams_key."""

DATAGRAMS_COUNTERS = ("bytes_sent", "bytes_received", "datagrams_sent", "datagrams_received")
"""The counters of struct datagrams, in its order; the catalogue adds the prefix `udp_`."""

DATAGRAMS = np.dtype([*((name, "<u8") for name in DATAGRAMS_COUNTERS), ("owner", OWNER)])
"""struct datagrams: UDP of one process, on demand."""

EXECUTABLE = np.dtype(
    [
        ("start_ns", "<u8"),
        ("inode", "<u8"),
        ("tgid", "<u4"),
        ("device", "<u4"),
        ("uid", "<u4"),
        ("folder_uid", "<u4"),
        ("mode", "<u2"),
        ("folder_mode", "<u2"),
        ("pad", "<u4"),
        ("path", "S4096"),
    ]
)
"""struct executable: the file that a process executes."""

FLAG_CONNECT, FLAG_ACCEPTED, FLAG_FAILED, FLAG_CORRECTION, FLAG_SOCKMAP = 1, 2, 4, 8, 16
FLAG_UNSENT, FLAG_DENIED, FLAG_APART = 32, 64, 128
LOSS_FIELDS = ("ledger_full", "sums_full", "storage_failed", "responses_lost", "datagrams_lost")
"""The map `losses`, by index: names of the fields of `Quality`."""


def layout_assertions() -> str:
    """Return C code that does not compile unless bpf/connection.h has this layout."""
    structs = {
        "owner": OWNER,
        "connection": CONNECTION,
        "sums_key": SUMS_KEY,
        "sums": SUMS,
        "reset_peer_key": RESET_PEER_KEY,
        "reset_peer": RESET_PEER,
        "response": RESPONSE,
        "cgroup_record": CGROUP,
        "datagrams_key": DATAGRAMS_KEY,
        "datagrams": DATAGRAMS,
        "executable": EXECUTABLE,
    }
    lines = []
    for name, dtype in structs.items():
        lines.append(f'_Static_assert(sizeof(struct {name}) == {dtype.itemsize}, "size of {name}");')
        for field, (_, offset) in ((field, dtype.fields[field][:2]) for field in dtype.names or () if dtype.fields):
            check = f"__builtin_offsetof(struct {name}, {field}) == {offset}"
            lines.append(f'_Static_assert({check}, "{name}.{field}");')
    return "\n".join(lines) + "\n"
