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
    """One program.

    `target`: tracepoint or kernel function. `function`: name in the sources of the code of the program; "": `name`.
    `variant`: number that tells the programs of one function apart, see get_variant() in bpf/connection.bpf.c.
    """

    target: str
    attach_type: AttachType
    name: str
    function: str = ""
    variant: int = 0


STATE_PROBE = Probe("inet_sock_set_state", AttachType.TP_BTF, "inet_sock_set_state")
STATE_FALLBACK_PROBE = Probe(
    "inet_sock_set_state", AttachType.TP_BTF, "fallback_inet_sock_set_state", "inet_sock_set_state", variant=1
)
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


def _fexit(name: str, function: str = "", variant: int = 0) -> Probe:
    return Probe(name, AttachType.FEXIT, name, function, variant)


CONNECT_ERROR_PROBES = (
    _fexit("tcp_v4_connect"),
    _fexit("tcp_v6_connect", "tcp_v4_connect", variant=1),
    _fexit("tcp_v4_pre_connect"),
    _fexit("tcp_v6_pre_connect", "tcp_v4_pre_connect"),
    _fexit("security_socket_connect"),
    _fexit("inet_csk_get_port"),
)
"""Attempts that fail before their first packet: attached where the kernel allows it, each on its own."""

LEGACY_MESSAGE_PROBES = (
    _fexit("tcp_sendmsg"),
    _fexit("udp_sendmsg", "tcp_sendmsg"),
    _fexit("udp_recvmsg"),
    _fexit("udpv6_sendmsg", "tcp_sendmsg"),
    _fexit("udpv6_recvmsg", "udp_recvmsg"),
    _RECEIVE_PROBE,
)
"""The same for kernels without these tracepoints."""

OPTIONAL_LEGACY_MESSAGE_PROBES = (
    _fexit("tcp_sendpage"),
    _fexit("mptcp_sendmsg", "tcp_sendmsg"),
    _fexit("mptcp_recvmsg", "udp_recvmsg"),
)
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
