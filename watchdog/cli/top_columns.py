"""The columns of `top` by view, with their importance: names as in rules, counters per second."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from watchdog.measure.catalogue import DIMENSIONS, METRICS, MetricKind, is_number
from watchdog.measure.traffic_rows import Cell
from watchdog.measure.traffic_view import TopView
from watchdog.rules.language.formats import format_number, natural_format
from watchdog.sanitize import escape_unprintable

Row = Mapping[str, Cell]

_escaped = functools.lru_cache(maxsize=4096)(escape_unprintable)  # most names stay from tick to tick

_MIN_NAME = 10  # characters to which a name is cut at most
_MIN_IDENTITY = 15  # of the name that identifies a row; as many as a process has bytes
_MIN_ENDPOINT = len("255.255.255.255:65535")
_BYTES_WIDTH = len("999.9 MB/s")  # so that columns do not move when numbers grow
_ENDPOINTS: Final = {"local": "local_port", "remote": "remote_port"}
_GROUP_METRICS: Final = (
    "bytes_sent", "bytes_received", "connects", "connect_failures", "open", "accepts", "established", "closes",
    "retransmits", "rtt.p99", "send_queue", "receive_queue", "packets_sent", "packets_received",
)  # fmt: skip
_SOCKET_NUMBERS = (
    "bytes_sent", "bytes_received", "rtt", "retransmits", "send_queue", "receive_queue", "packets_sent",
    "packets_received",
)  # fmt: skip
_ORDERS: Final[Mapping[TopView, tuple[str, ...]]] = {
    TopView.CONNECTIONS: (
        "process", "pid", "direction", "local", "remote", "state", "failure", *_SOCKET_NUMBERS, "user", "unit",
        "container",
    ),
    TopView.PROCESSES: ("process", "pid", *_GROUP_METRICS, "exe", "user", "unit", "container"),
    TopView.UNITS: ("unit", "container", *_GROUP_METRICS),
    TopView.PEERS: ("remote", *_GROUP_METRICS),
    TopView.SOCKETS: ("local", "remote", "direction", "state", "failure", *_SOCKET_NUMBERS),
}  # fmt: skip
_IMPORTANCE: Final[Mapping[TopView, tuple[str, ...]]] = {
    TopView.CONNECTIONS: (
        "process", "remote", "bytes_sent", "bytes_received", "pid", "state", "rtt", "direction", "local", "retransmits",
        "failure", "unit", "send_queue", "receive_queue", "user", "container", "packets_sent", "packets_received",
    ),
    TopView.PROCESSES: (
        "process", "pid", *_GROUP_METRICS[:5], "unit", "rtt.p99", "accepts", "user", "retransmits", "exe", "container",
        "established", "closes", "send_queue", "receive_queue", "packets_sent", "packets_received",
    ),
    TopView.UNITS: ("unit", *_GROUP_METRICS[:5], "container", *_GROUP_METRICS[5:]),
    TopView.PEERS: ("remote", *_GROUP_METRICS),
    TopView.SOCKETS: (
        "remote", "state", "send_queue", "receive_queue", "rtt", "retransmits", "bytes_sent", "bytes_received",
        "direction", "local", "failure", "packets_sent", "packets_received",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TopColumn:
    """One column; `key`: of its value in a row, and its title.

    `is_endpoint`: an address with its port. `min_width`: the width to which a text is cut at most.
    """

    key: str
    is_endpoint: bool
    min_width: int

    @property
    def is_number(self) -> bool:
        """Return whether the column is aligned to the right and never cut."""
        return is_number(self.key)

    @property
    def start_width(self) -> int:
        """Return the width of the column without rows."""
        return max(len(self.key), _BYTES_WIDTH if self.key.startswith("bytes") else 7 if self.key == "pid" else 0)

    def least_width(self, width: int) -> int:
        """Return the width to which a column as wide as `width` is cut at most."""
        return width if self.is_number else min(width, self.min_width)

    def text(self, row: Row) -> str:
        """Return the cell of a row; unprintable characters are escaped."""
        value = row.get(self.key)
        if value is None or value == "":
            return "-"
        if self.is_endpoint:
            address, port = _escaped(str(value)), row[_ENDPOINTS[self.key]]
            return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        if self.key in DIMENSIONS or isinstance(value, str):
            return _escaped(str(value))
        metric = METRICS[self.key.partition(".")[0]]
        per_second = metric.kind is MetricKind.COUNTER
        return format_number(natural_format(metric.unit, per_second=per_second), value)


@dataclass(frozen=True, slots=True)
class TopColumns:
    """Columns in the order of the table, and `importance`: their indices, the last of which are left out first."""

    columns: tuple[TopColumn, ...]
    importance: tuple[int, ...]


def top_columns(view: TopView, sort: str) -> TopColumns:
    """Return the columns of a view; that of `sort` is always shown."""
    order, importance = _ORDERS[view], list(_IMPORTANCE[view])
    if sort in importance[2:]:
        importance.remove(sort)
        importance.insert(2, sort)
    columns = tuple(_column(view, key) for key in order)
    return TopColumns(columns, tuple(order.index(key) for key in importance))


def possible_columns(columns: TopColumns, width: int) -> list[int]:
    """Return the indices of the columns that can have space in `width` characters, in the order of the table."""
    found: list[int] = []
    used = 0
    for index in columns.importance:
        column = columns.columns[index]
        used += column.start_width if column.is_number else 1
        if found and used > width:
            break
        found.append(index)
    return sorted(found)


def _column(view: TopView, key: str) -> TopColumn:
    is_endpoint = view.is_of_connections and key in _ENDPOINTS
    is_identity = not view.is_of_connections and key in view.identity
    return TopColumn(key, is_endpoint, _MIN_ENDPOINT if is_endpoint else _MIN_IDENTITY if is_identity else _MIN_NAME)
