"""The metric catalogue: all metrics with kind and unit, and all dimensions.

The list is closed. The rules, `bpf-watchdog metrics`, `sample --by` and the documentation use it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class MetricKind(enum.StrEnum):
    """Kind of a metric: how its values combine over connections and time."""

    COUNTER = "counter"  # adds up over connections and ticks
    GAUGE = "gauge"  # adds up over connections, holds for one tick
    DISTRIBUTION = "distribution"  # one value per connection and tick, or none: exact percentiles


class Unit(enum.StrEnum):
    """The unit of one value."""

    CONNECTIONS = "connections"
    BYTES = "bytes"
    SEGMENTS = "segments"
    SECONDS = "seconds"
    DATAGRAMS = "datagrams"
    RATIO = "ratio"
    PORTS = "ports"
    SOCKETS = "sockets"
    TICKS = "ticks"
    RELOADS = "reloads"
    STAGES = "stages"
    PROCESSES = "processes"


DIRECTIONS = ("unknown", "out", "in")
FAMILIES = ("", "ipv4", "ipv6")
FAILURES = ("", "refused", "timeout", "unreachable", "reset", "aborted", "no_route", "denied", "no_port", "other")
UNSENT_FAILURES = ("no_route", "denied", "no_port")
"""Failures before the first packet: counted in full where the kernel allows fexit programs."""
# include/net/tcp_states.h, by number
TCP_STATES = (
    "", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT",
    "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV",
)  # fmt: skip

# States in which a socket is read, and CLOSE for a connection that ended. A process has no socket in TIME_WAIT and
# NEW_SYN_RECV: the kernel keeps small structures of their own for these (inet_timewait_sock, request_sock).
_LIVE = ("ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "CLOSE_WAIT", "LAST_ACK", "CLOSING")
_CONNECTED = tuple(state for state in _LIVE if state != "SYN_SENT")
_WITH_DATA = tuple(state for state in _CONNECTED if state != "SYN_RECV")
LISTENING = ("LISTEN",)
"""The states of listeners, which are no connections."""
_ENDED = ("CLOSE",)
_NO_FAILURE = ("",)

IMPOSSIBLE_PAIRS = (
    # Only a socket in SYN_SENT can be refused (tcp_reset). Only an attempt to connect needs a route and a port.
    ("direction", ("in",), "failure", ("refused", "no_route", "no_port")),
    ("direction", ("in",), "state", ("SYN_SENT",)),
    # A live connection has no failure yet.
    ("state", (*_LIVE, *LISTENING), "failure", tuple(filter(None, FAILURES))),
)
"""Values of two dimensions that no connection has at once, as (dimension, values, other dimension, its values)."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `source`: field or event of the kernel; `cost`: cost of the measurement on the host.

    `directions`, `states`, `failures`: the values of these dimensions that its connections can have.
    """

    name: str
    kind: MetricKind
    unit: Unit
    meaning: str
    source: str
    cost: str
    on_demand: bool = False  # measured only while a rule or a command uses it
    missing_dimensions: tuple[str, ...] = ()  # dimensions that its values do not have
    directions: tuple[str, ...] = ("out", "in")
    states: tuple[str, ...] = (*_LIVE, *_ENDED)
    failures: tuple[str, ...] = FAILURES

    def possible_values(self, dimension: str) -> tuple[str, ...] | None:
        """Return the values of `dimension` that its connections can have; None if they are no closed list."""
        return {"direction": self.directions, "state": self.states, "failure": self.failures}.get(dimension)


MAX_WINDOW = (
    "1h"  # of a rule: names are retained for this time, which bounds the number of names that processes can create
)
UNKNOWN_CODE = 2**32 - 1
"""The code, in any dimension, of a lost value: it matches no pattern, not even an excluding one."""
ABSENT_CODE = 2**32 - 2
"""The code, in any dimension, of a missing value: it matches no pattern, not even an excluding one."""
OTHER_CODE = 2**32 - 3
"""The code, in dimensions of names, of all names without space: they are one group, and match no pattern."""

_PEER = ("remote", "remote_net", "remote_country", "remote_asn", "remote_port", "failure")
_END = ("direction", "local", "local_port", "state", *_PEER)
_OWNER = ("exe", "pid", "user", "unit", "container", "netns", "family")

_EVENT = "one program run per state change of a connection"
_OWN = "none: counted by the watchdog itself"
_MESSAGE = "a program run at every message of the host, while a rule or `sample --messages` uses it"
_HOST = "two small files a tick; for the ports a dump of TIME_WAIT, at most 1 % of one CPU"
_PASS = "read in the pass over live sockets, nothing per message"

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "connects",
            MetricKind.COUNTER,
            Unit.CONNECTIONS,
            "attempts to connect out",
            "CLOSE to SYN_SENT; failures before that: return values of the connect path",
            _EVENT,
            directions=("out",),
        ),
        Metric(
            "established",
            MetricKind.COUNTER,
            Unit.CONNECTIONS,
            "handshakes completed, either direction",
            "to ESTABLISHED",
            _EVENT,
            states=(*_CONNECTED, *_ENDED),
        ),
        Metric(
            "accepts",
            MetricKind.COUNTER,
            Unit.CONNECTIONS,
            "inbound connections that a process took from its accept queue",
            "sk_socket of an inbound socket",
            _EVENT,
            directions=("in",),
            states=(*_CONNECTED, *_ENDED),
        ),
        Metric(
            "closes",
            MetricKind.COUNTER,
            Unit.CONNECTIONS,
            "connections that ended, failed attempts included",
            "to CLOSE",
            _EVENT,
            states=_ENDED,
        ),
        Metric(
            "connect_failures",
            MetricKind.COUNTER,
            Unit.CONNECTIONS,
            "attempts that were not established, or were reset within 1 s before a byte was answered; by `failure`",
            "sk_err at CLOSE; failures before SYN_SENT: return values of the connect path",
            _EVENT,
            directions=("out",),
            states=_ENDED,
            failures=tuple(filter(None, FAILURES)),
        ),
        Metric(
            "resets_sent",
            MetricKind.COUNTER,
            Unit.CONNECTIONS,
            "RST segments sent; without a connection, by `remote`",
            "tcp_send_reset",
            _EVENT,
        ),
        Metric(
            "resets_received",
            MetricKind.COUNTER,
            Unit.CONNECTIONS,
            "RST segments received",
            "tcp_receive_reset",
            _EVENT,
        ),
        Metric(
            "bytes_sent",
            MetricKind.COUNTER,
            Unit.BYTES,
            "payload sent, retransmissions not counted again",
            "tcp_sock.bytes_sent - bytes_retrans",
            _PASS,
        ),
        Metric(
            "bytes_received",
            MetricKind.COUNTER,
            Unit.BYTES,
            "payload received in order",
            "tcp_sock.bytes_received less the FIN",
            _PASS,
        ),
        Metric(
            "packets_sent",
            MetricKind.COUNTER,
            Unit.SEGMENTS,
            "segments sent, pure ACKs included",
            "tcp_sock.segs_out",
            _PASS,
        ),
        Metric(
            "packets_received",
            MetricKind.COUNTER,
            Unit.SEGMENTS,
            "segments received, pure ACKs included",
            "tcp_sock.segs_in",
            _PASS,
        ),
        Metric(
            "retransmits", MetricKind.COUNTER, Unit.SEGMENTS, "segments sent again", "tcp_sock.total_retrans", _PASS
        ),
        Metric(
            "late_bytes",
            MetricKind.COUNTER,
            Unit.BYTES,
            "the part of bytes_sent and bytes_received that was counted late: no pass saw the connection for 10 s",
            "as bytes_sent and bytes_received",
            _OWN,
        ),
        Metric(
            "open",
            MetricKind.GAUGE,
            Unit.CONNECTIONS,
            "connections that exist now; by `state`",
            "skc_state",
            _PASS,
            states=_LIVE,
            failures=_NO_FAILURE,
        ),
        Metric(
            "send_queue",
            MetricKind.GAUGE,
            Unit.BYTES,
            "payload written and not yet acknowledged by the peer",
            "tcp_sock.write_seq - snd_una",
            _PASS,
            states=_WITH_DATA,
            failures=_NO_FAILURE,
        ),
        Metric(
            "receive_queue",
            MetricKind.GAUGE,
            Unit.BYTES,
            "payload received and not yet read by the process",
            "tcp_sock.rcv_nxt - copied_seq",
            _PASS,
            states=_WITH_DATA,
            failures=_NO_FAILURE,
        ),
        Metric(
            "accept_queue",
            MetricKind.DISTRIBUTION,
            Unit.RATIO,
            "connections waiting for accept, as a share of the listener's limit; one value per listener and tick",
            "sock.sk_ack_backlog / (sk_max_ack_backlog + 1)",
            _PASS,
            missing_dimensions=_PEER,
            directions=("in",),
            states=LISTENING,
        ),
        Metric(
            "half_open",
            MetricKind.GAUGE,
            Unit.CONNECTIONS,
            "inbound handshakes that wait for the peer's last ACK (NEW_SYN_RECV), by listener; none with SYN cookies",
            "inet_connection_sock.icsk_accept_queue.qlen of listeners",
            _PASS,
            missing_dimensions=_PEER,
            directions=("in",),
            states=LISTENING,
        ),
        Metric(
            "listeners",
            MetricKind.GAUGE,
            Unit.SOCKETS,
            "sockets that listen for connections",
            "skc_state",
            _PASS,
            missing_dimensions=_PEER,
            directions=("in",),
            states=LISTENING,
        ),
        Metric(
            "listen_drops",
            MetricKind.COUNTER,
            Unit.CONNECTIONS,
            "connections that a listener dropped, its accept queue being full in most cases",
            "sock.sk_drops of listeners",
            _PASS,
            missing_dimensions=_PEER,
            directions=("in",),
            states=LISTENING,
        ),
        Metric(
            "connect_latency",
            MetricKind.DISTRIBUTION,
            Unit.SECONDS,
            "time from connect to established, of outbound connections established in the tick",
            "SYN_SENT to ESTABLISHED",
            _EVENT,
            directions=("out",),
            states=(*_CONNECTED, *_ENDED),
        ),
        Metric(
            "rtt",
            MetricKind.DISTRIBUTION,
            Unit.SECONDS,
            "smoothed round-trip time, of connections that received something in the tick",
            "tcp_sock.srtt_us",
            _PASS,
            states=(*_CONNECTED, *_ENDED),
        ),
        Metric(
            "lifetime",
            MetricKind.DISTRIBUTION,
            Unit.SECONDS,
            "time from first to last state, of connections that ended in the tick",
            "SYN_SENT or SYN_RECV to CLOSE",
            _EVENT,
            states=_ENDED,
        ),
        Metric(
            "response_latency",
            MetricKind.DISTRIBUTION,
            Unit.SECONDS,
            "time from the last send to the next receive: for a client the wait for a response (direction out),"
            " for a server the wait for the next request (in)",
            "sock_send_length to tcp_rcv_space_adjust; MPTCP: to sock_recv_length",
            _MESSAGE,
            on_demand=True,
            states=(*_CONNECTED, *_ENDED),
        ),
        *(
            Metric(
                f"udp_{quantity}_{way}",
                MetricKind.COUNTER,
                unit,
                f"{meaning} {way} by UDP, by process",
                source,
                _MESSAGE,
                on_demand=True,
                missing_dimensions=_END,
            )
            for quantity, unit, meaning in (
                ("bytes", Unit.BYTES, "payload"),
                ("datagrams", Unit.DATAGRAMS, "datagrams"),
            )
            for way, source in (("sent", "sock_send_length"), ("received", "sock_recv_length"))
        ),
        *(
            Metric(
                name,
                MetricKind.GAUGE,
                unit,
                meaning,
                source,
                _HOST,
                missing_dimensions=(*_OWNER[:-2], "process", "family", *_END),
            )
            for name, unit, meaning, source in (
                (
                    "time_wait",
                    Unit.CONNECTIONS,
                    "sockets in TIME_WAIT, and orphans in FIN_WAIT2, in the watchdog's network namespace",
                    "/proc/net/sockstat: tw",
                ),
                (
                    "orphans",
                    Unit.CONNECTIONS,
                    "sockets of the whole host that no process has any more and that are not closed yet",
                    "/proc/net/sockstat: orphan",
                ),
                (
                    "ports_in_use",
                    Unit.PORTS,
                    "those of `ports` that TCP sockets hold, TIME_WAIT included",
                    "the live sockets, and NETLINK_SOCK_DIAG for TIME_WAIT",
                ),
                (
                    "ports",
                    Unit.PORTS,
                    "local ports that the kernel gives to connects, in the watchdog's network namespace",
                    "ip_local_port_range without ip_local_reserved_ports",
                ),
            )
        ),
        Metric(
            "lost_connections",
            MetricKind.COUNTER,
            Unit.CONNECTIONS,
            "connections that the watchdog itself lost, or lost details of; those of an unknown process in one row of"
            " process `bpf-watchdog`",
            "the collector's own counts",
            _OWN,
            missing_dimensions=_END,
        ),
        Metric(
            "missed_ticks",
            MetricKind.COUNTER,
            Unit.TICKS,
            "ticks of the watchdog itself that did not run; in one row of process `bpf-watchdog`",
            "the collector's own counts",
            _OWN,
            missing_dimensions=(*_OWNER, *_END),
        ),
        Metric(
            "failed_ticks",
            MetricKind.COUNTER,
            Unit.TICKS,
            "ticks of the watchdog itself that failed, see its log; in one row of process `bpf-watchdog`",
            "the daemon's own counts",
            _OWN,
            missing_dimensions=(*_OWNER, *_END),
        ),
        Metric(
            "unknown_ticks",
            MetricKind.COUNTER,
            Unit.TICKS,
            "ticks in which losses left a rule unknown for a group; in one row of process `bpf-watchdog`",
            "the rules, one tick before",
            _OWN,
            missing_dimensions=(*_OWNER, *_END),
        ),
        Metric(
            "refused_reloads",
            MetricKind.COUNTER,
            Unit.RELOADS,
            "reloads of the watchdog itself that were refused, see its log; in one row of process `bpf-watchdog`",
            "the daemon's own counts",
            _OWN,
            missing_dimensions=(*_OWNER, *_END),
        ),
        Metric(
            "slow_stages",
            MetricKind.COUNTER,
            Unit.STAGES,
            "stages of ticks of the watchdog itself that took longer than their limit, see its log; in one row of"
            " process `bpf-watchdog`",
            "the daemon's own counts",
            _OWN,
            missing_dimensions=(*_OWNER, *_END),
        ),
        Metric(
            "unread_commands",
            MetricKind.COUNTER,
            Unit.PROCESSES,
            "processes whose command line could not be read for the evidence of an alert; in one row of process"
            " `bpf-watchdog`",
            "the daemon's own counts",
            _OWN,
            missing_dimensions=(*_OWNER, *_END),
        ),
        Metric(
            "tick_interval",
            MetricKind.GAUGE,
            Unit.SECONDS,
            "present interval between two ticks of the watchdog itself; in one row of process `bpf-watchdog`",
            "the tick loop",
            _OWN,
            missing_dimensions=(*_OWNER, *_END),
        ),
        Metric(
            "configured_interval",
            MetricKind.GAUGE,
            Unit.SECONDS,
            "interval between two ticks by the settings; in one row of process `bpf-watchdog`",
            "`[sampling] interval`",
            _OWN,
            missing_dimensions=(*_OWNER, *_END),
        ),
    )
}


LOCATION_DIMENSIONS = {"remote_country": "country_file", "remote_asn": "asn_file"}
"""Dimensions that need a file of the user's own, and the key of `[networks]` that names it."""

TRAFFIC_METRICS = ("bytes_sent", "bytes_received", "packets_sent", "packets_received", "retransmits")
"""Counters of live connections, which can arrive late: see `LateTraffic`."""

UNCOUNTED_IN_SOCKMAP = frozenset(("bytes_sent", "bytes_received", "send_queue", "receive_queue"))
"""Metrics that miss the messages that a sockmap passes from socket to socket."""

HOST_METRICS = ("time_wait", "orphans", "ports_in_use", "ports")
"""Counts of sockets that no process has, in one row of the watchdog's network namespace."""

OWN_METRICS = (
    "lost_connections",
    "missed_ticks",
    "failed_ticks",
    "unknown_ticks",
    "refused_reloads",
    "slow_stages",
    "unread_commands",
    "tick_interval",
    "configured_interval",
)
"""Counts and times of the watchdog itself, not of the host."""

ON_DEMAND_METRICS = frozenset(name for name, metric in METRICS.items() if metric.on_demand)


class DimensionKind(enum.StrEnum):
    """Kind of the values of a dimension."""

    NAME = "name"  # free text from the host: comm, user, unit, …
    NUMBER = "number"  # pid, port, inode
    CHOICE = "choice"  # one of a closed list
    ADDRESS = "address"  # IPv4 or IPv6 address; selected by CIDR


@dataclass(frozen=True, slots=True)
class Dimension:
    """One dimension. `volatile`: values change with every process or connection: a poor alert identity.

    Bounds of its values, for patterns that no value can match: `max_bytes` of a name, None without one; `endings` of
    names that are not empty; `minimum` and `maximum` of a number.
    """

    name: str
    kind: DimensionKind
    meaning: str
    choices: tuple[str, ...] = ()
    volatile: bool = False
    max_bytes: int | None = None
    endings: tuple[str, ...] = ()
    minimum: int = 0
    maximum: int = 2**32 - 1


UNATTRIBUTED = "(unattributed)"
CONTAINER_DIGITS = 12
"""Digits of a container id that are kept, as `docker ps` shows them."""
UNIT_ENDINGS = (".service", ".scope", ".socket", ".mount", ".swap")
"""Types of systemd units that can hold processes (systemd.unit(5))."""

_MAX_PROCESS_BYTES = 15  # TASK_COMM_LEN with its NUL, include/linux/sched.h
_MAX_EXE_BYTES = 31  # EXE_LEN of bpf/connection.h, with its NUL
_MAX_USER_BYTES = 255  # LOGIN_NAME_MAX with its NUL
_MAX_PID = 4_194_304  # PID_MAX_LIMIT, include/linux/threads.h
# Inode numbers of namespaces: PROC_DYNAMIC_FIRST (fs/proc/generic.c) and up, a few below for those of the boot.
_MIN_NETNS = 0xEFFF_FFF0
_MAX_PORT = 65_535

DIMENSIONS: dict[str, Dimension] = {
    dimension.name: dimension
    for dimension in (
        Dimension(
            "process",
            DimensionKind.NAME,
            "name (comm) of the process's main thread, 15 bytes at most, `(unattributed)` if none is known",
            max_bytes=_MAX_PROCESS_BYTES,
        ),
        Dimension(
            "exe",
            DimensionKind.NAME,
            "file name of the executable, from the kernel, 31 bytes at most",
            max_bytes=_MAX_EXE_BYTES,
        ),
        Dimension("pid", DimensionKind.NUMBER, "process id", volatile=True, maximum=_MAX_PID),
        Dimension(
            "user",
            DimensionKind.NAME,
            "effective user of the process; in a container, its number",
            max_bytes=_MAX_USER_BYTES,
        ),
        Dimension(
            "unit",
            DimensionKind.NAME,
            "systemd unit; of a user or in a container with its owner: `user@1000/app.service`",
            endings=UNIT_ENDINGS,
        ),
        Dimension(
            "container",
            DimensionKind.NAME,
            "container: id, first 12 digits, or name; of a user or in a container with its owner",
        ),
        Dimension(
            "netns", DimensionKind.NUMBER, "network namespace, its inode number", volatile=True, minimum=_MIN_NETNS
        ),
        Dimension("direction", DimensionKind.CHOICE, "opened by this end (out) or by the peer (in)", DIRECTIONS),
        Dimension("family", DimensionKind.CHOICE, "address family; IPv4-mapped IPv6 counts as ipv4", FAMILIES),
        Dimension("local", DimensionKind.ADDRESS, "address of this end"),
        Dimension("local_port", DimensionKind.NUMBER, "port of this end", volatile=True, maximum=_MAX_PORT),
        Dimension("remote", DimensionKind.ADDRESS, "address of the peer"),
        Dimension(
            "remote_net",
            DimensionKind.ADDRESS,
            "network of the peer: the first 24 bits of its address, IPv6 48, as `[networks]` sets them",
        ),
        Dimension(
            "remote_country",
            DimensionKind.NAME,
            "country of the peer, ISO 3166-1: `DE`; needs a file of your own in `[networks]`",
            max_bytes=2,
        ),
        Dimension(
            "remote_asn",
            DimensionKind.NAME,
            "autonomous system of the peer: `AS64496`; needs a file of your own in `[networks]`",
            max_bytes=12,
        ),
        Dimension("remote_port", DimensionKind.NUMBER, "port of the peer", maximum=_MAX_PORT),
        Dimension("state", DimensionKind.CHOICE, "TCP state", TCP_STATES),
        Dimension("failure", DimensionKind.CHOICE, "cause of the failure or break", FAILURES),
    )
}

HOST_DIMENSIONS = {name: entry for name, entry in DIMENSIONS.items() if name not in LOCATION_DIMENSIONS}
"""Dimensions that the host alone has the values of: those of the rows of `sample` and `top`."""


def is_number(name: str) -> bool:
    """Return whether the values of a metric, of a part of it, or of a dimension are numbers."""
    return name not in DIMENSIONS or DIMENSIONS[name].kind is DimensionKind.NUMBER
