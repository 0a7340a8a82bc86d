"""The views of `top`, with the columns of their rows; imports no numpy, for the help of the command."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

SUMMED: Final = (
    "connects", "established", "accepts", "connect_failures", "closes", "open", "bytes_sent", "bytes_received",
    "packets_sent", "packets_received", "retransmits", "send_queue", "receive_queue",
)  # fmt: skip
"""Metrics that add up over connections."""


class TopView(enum.StrEnum):
    """The kind of the rows. `SOCKETS`: connections and listeners."""

    CONNECTIONS = "connections"
    PROCESSES = "processes"
    UNITS = "units"
    PEERS = "peers"
    SOCKETS = "sockets"

    @property
    def is_of_connections(self) -> bool:
        """Return whether a row is a connection, not a sum."""
        return self in {TopView.CONNECTIONS, TopView.SOCKETS}

    @property
    def identity(self) -> tuple[str, ...]:
        """Return the dimensions that identify a row."""
        return _IDENTITIES[self]

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of a row: its identity, further dimensions, `SUMMED`, and the round-trip time."""
        return (*_IDENTITIES[self], *_FURTHER[self], *SUMMED, "rtt" if self.is_of_connections else "rtt.p99")


_CONNECTION: Final = ("process", "pid", "direction", "local", "local_port", "remote", "remote_port", "netns")
_OWNER: Final = ("exe", "user", "unit", "container")
_IDENTITIES: Final[Mapping[TopView, tuple[str, ...]]] = {
    TopView.CONNECTIONS: _CONNECTION,
    TopView.PROCESSES: ("process", "pid"),
    TopView.UNITS: ("unit", "container"),
    TopView.PEERS: ("remote",),
    TopView.SOCKETS: _CONNECTION,
}
_FURTHER: Final[Mapping[TopView, tuple[str, ...]]] = {
    TopView.CONNECTIONS: ("state", "failure", *_OWNER),
    TopView.PROCESSES: _OWNER,
    TopView.UNITS: (),
    TopView.PEERS: (),
    TopView.SOCKETS: ("state", "failure", *_OWNER),
}

VIEWS: Final = (TopView.CONNECTIONS, TopView.PROCESSES, TopView.UNITS, TopView.PEERS)
"""Views of `top` in the order of their keys; sockets are those of one process."""
