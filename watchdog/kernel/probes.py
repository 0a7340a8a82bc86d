"""Which programs there are, where they attach, and which belong together."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Attach(enum.Enum):
    """How a program attaches: the expected attach type of include/uapi/linux/bpf.h, and bcc's prefix of its symbol."""

    TP_BTF = (23, b"kfunc__")  # BPF_TRACE_RAW_TP, which bcc has no name for
    FEXIT = (25, b"kretfunc__")  # BPF_TRACE_FEXIT


@dataclass(frozen=True, slots=True)
class Probe:
    """One program: `target` is the tracepoint or kernel function, and its name in the sources."""

    target: str
    attach: Attach


CONNECTIONS = tuple(
    Probe(name, Attach.TP_BTF) for name in ("inet_sock_set_state", "tcp_receive_reset", "tcp_send_reset")
)
"""The life of connections: always attached."""

MESSAGES = tuple(Probe(name, Attach.TP_BTF) for name in ("sock_send_length", "sock_recv_length"))
"""Each message, on demand: since Linux 6.3."""

MESSAGES_BEFORE = tuple(
    Probe(name, Attach.FEXIT)
    for name in ("tcp_sendmsg", "tcp_recvmsg", "udp_sendmsg", "udp_recvmsg", "udpv6_sendmsg", "udpv6_recvmsg")
)
"""The same on kernels without those tracepoints."""

ITERATOR = "task_file"
