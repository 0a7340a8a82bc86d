"""Which programs there are, where they attach, and which belong together."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class AttachType(enum.Enum):
    """How a program attaches: the expected attach type of include/uapi/linux/bpf.h, and bcc's prefix of its symbol."""

    TP_BTF = (23, b"kfunc__")  # BPF_TRACE_RAW_TP, which bcc has no name for
    FEXIT = (25, b"kretfunc__")  # BPF_TRACE_FEXIT


@dataclass(frozen=True, slots=True)
class Probe:
    """One program: `target` is the tracepoint or kernel function, `name` that of the program in the sources."""

    target: str
    attach_type: AttachType
    name: str


STATE_PROBE = Probe("inet_sock_set_state", AttachType.TP_BTF, "inet_sock_set_state")
STATE_FALLBACK_PROBE = Probe("inet_sock_set_state", AttachType.TP_BTF, "fallback_inet_sock_set_state")
RESET_PROBES = tuple(Probe(name, AttachType.TP_BTF, name) for name in ("tcp_receive_reset", "tcp_send_reset"))
CONNECTION_PROBES = (STATE_PROBE, STATE_FALLBACK_PROBE, *RESET_PROBES)
"""The life of connections: always attached, in this order, which is that in which they run."""

MESSAGE_PROBES = tuple(Probe(name, AttachType.TP_BTF, name) for name in ("sock_send_length", "sock_recv_length"))
"""Each message, on demand: since Linux 6.3."""

LEGACY_MESSAGE_PROBES = tuple(
    Probe(name, AttachType.FEXIT, name)
    for name in ("tcp_sendmsg", "tcp_recvmsg", "udp_sendmsg", "udp_recvmsg", "udpv6_sendmsg", "udpv6_recvmsg")
)
"""The same on kernels without those tracepoints."""

ITERATOR = "task_file"
