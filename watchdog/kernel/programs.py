"""The BPF programs: their names, their targets, and the groups in which they are attached."""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass


class AttachType(enum.Enum):
    """Attach type of a program: its number in include/uapi/linux/bpf.h, and bcc's prefix of the symbol."""

    TP_BTF = (23, b"kfunc__")  # BPF_TRACE_RAW_TP; bcc has no name for it
    FEXIT = (25, b"kretfunc__")  # BPF_TRACE_FEXIT


@dataclass(frozen=True, slots=True)
class Probe:
    """One program. `target`: tracepoint or kernel function; `name`: name of the program in the sources."""

    target: str
    attach_type: AttachType
    name: str


STATE_PROBE = Probe("inet_sock_set_state", AttachType.TP_BTF, "inet_sock_set_state")
STATE_FALLBACK_PROBE = Probe("inet_sock_set_state", AttachType.TP_BTF, "fallback_inet_sock_set_state")
RESET_PROBES = tuple(Probe(name, AttachType.TP_BTF, name) for name in ("tcp_receive_reset", "tcp_send_reset"))
CGROUP_PROBE = Probe("cgroup_mkdir", AttachType.TP_BTF, "cgroup_mkdir")
CONNECTION_PROBES = (STATE_PROBE, STATE_FALLBACK_PROBE, *RESET_PROBES, CGROUP_PROBE)
"""Events of connections and new control groups: always attached, in this order, in which they also run."""

_RECEIVE_PROBE = Probe("tcp_rcv_space_adjust", AttachType.TP_BTF, "tcp_rcv_space_adjust")
MESSAGE_PROBES = (
    *(Probe(name, AttachType.TP_BTF, name) for name in ("sock_send_length", "sock_recv_length")),
    _RECEIVE_PROBE,
)
"""Run at each message, attached on demand: since Linux 6.3."""


def _fexit(*names: str) -> tuple[Probe, ...]:
    return tuple(Probe(name, AttachType.FEXIT, name) for name in names)


CONNECT_ERROR_PROBES = _fexit(
    *("tcp_v4_connect", "tcp_v6_connect", "tcp_v4_pre_connect", "tcp_v6_pre_connect"),
    *("security_socket_connect", "inet_csk_get_port"),
)
"""Attempts that fail before their first packet: attached where the kernel allows it, each on its own."""

LEGACY_MESSAGE_PROBES = (
    *_fexit("tcp_sendmsg", "udp_sendmsg", "udp_recvmsg", "udpv6_sendmsg", "udpv6_recvmsg"),
    _RECEIVE_PROBE,
)
"""The same for kernels without these tracepoints."""

OPTIONAL_LEGACY_MESSAGE_PROBES = _fexit("tcp_sendpage", "mptcp_sendmsg", "mptcp_recvmsg")
"""Functions that not every such kernel has: loaded beside `LEGACY_MESSAGE_PROBES` where they exist."""

MESSAGE_PROBE_SETS = (
    MESSAGE_PROBES,
    *(
        (*LEGACY_MESSAGE_PROBES, *present)
        for count in range(len(OPTIONAL_LEGACY_MESSAGE_PROBES) + 1)
        for present in itertools.combinations(OPTIONAL_LEGACY_MESSAGE_PROBES, count)
    ),
    (),
)
"""Every set of message probes that a loader can hand over; the empty one where the kernel can run neither."""

FILE_ITERATOR = "task_file"
"""Walks over the files of all tasks: owners, and sockets older than the programs."""

SOCKET_ITERATOR = "bpf_sk_storage_map"
"""Walks over the entries of all sockets that the programs follow."""

TASK_ITERATOR = "task"
"""Reads the executable of one process, when an alert needs evidence."""
