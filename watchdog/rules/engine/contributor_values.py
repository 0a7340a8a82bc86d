"""The contributors to a value, as values: without numpy, which the commands that only show them do not load."""

from __future__ import annotations

from dataclasses import dataclass

from watchdog.rules.language.rule import Labels


@dataclass(frozen=True, slots=True)
class Peer:
    """The connections with one peer, in one `direction`, to one `port`: the port of the end that accepted.

    `address` and `port` are this host's own for metrics without a peer. `amount`: their amount of the metric, the
    greatest value for distributions. `states`: of existing connections; `failures`: of connections that failed or
    broke: (name, count), the most frequent first.
    """

    address: str
    port: int
    direction: str
    amount: float
    connections: int
    bytes_sent: int
    bytes_received: int
    states: tuple[tuple[str, int], ...]
    failures: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class ContributingProcess:
    """One process and its `amount` of the metric; names as in the kernel, "" where there is none."""

    pid: int
    amount: float
    process: str
    exe: str
    user: str
    unit: str
    container: str


@dataclass(frozen=True, slots=True)
class LeftOutGroup:
    """A firing group without an instance of its own, and its amount; `user` and `pid` of one of its processes."""

    labels: Labels
    amount: float
    user: str
    pid: int


@dataclass(frozen=True, slots=True)
class LeftOutGroups:
    """The firing groups in an overflow: the `largest` ones, and the users with most of them, as (name, number).

    `user_count`: number of all users.
    """

    largest: tuple[LeftOutGroup, ...]
    by_user: tuple[tuple[str, int], ...]
    user_count: int


@dataclass(frozen=True, slots=True)
class Contributors:
    """Peers and processes that made up the value of one instance, the greatest first, with their total numbers.

    `metric`: the metric of all amounts. `amount`: the total, NaN for distributions. `history`: the value of each of the
    newest ticks alone, the oldest first, NaN where nothing was measured. `tick_seconds`: length of the newest tick;
    `history_seconds`: of all ticks in `history`. `name_count`: number of the names of the processes. `left_out`: the
    groups of an overflow, else None.
    """

    metric: str
    amount: float
    peers: tuple[Peer, ...]
    peer_count: int
    processes: tuple[ContributingProcess, ...]
    process_count: int
    history: tuple[float, ...]
    tick_seconds: float
    history_seconds: float
    name_count: int = 0
    left_out: LeftOutGroups | None = None
