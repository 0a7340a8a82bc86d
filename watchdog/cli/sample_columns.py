"""The columns of the tables of `sample`, with their importance: names as in rules, units as in alerts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from watchdog.config import suggestions
from watchdog.errors import UsageError
from watchdog.measure.catalogue import DIMENSIONS, HOST_DIMENSIONS, METRICS, Unit, is_number
from watchdog.measure.ranked_rows import SampleRow, row_value
from watchdog.measure.sample_sums import COUNTERS, DISTRIBUTIONS, GAUGES
from watchdog.rules.language.formats import format_number, natural_format
from watchdog.sanitize import escape_unprintable

_RATE: Final = "rate"
_MIN_NAME = 10  # characters to which a name is cut at most
_MIN_ENDPOINT = len("255.255.255.255:65535")
_MICROSECONDS: Final = {
    "rtt": "rtt_us",
    "connect_latency": "connect_latency_us",
    "lifetime": "lifetime_us",
    "response_latency": "response_latency_us",
}  # values of one connection
_STATISTICS = ("count", "min", "p50", "p99", "max")
_CONNECTION_ORDER = (
    "process", "pid", "direction", "local", "remote", "state", "failure", "bytes_sent", "bytes_received",
    "response_latency", "rtt", "retransmits", "connects", "closes", "packets_sent", "packets_received",
    "connect_latency", "user", "unit", "container",
)  # fmt: skip
_CONNECTION_IMPORTANCE = (
    "process", "remote", "response_latency", "bytes_sent", "bytes_received", "pid", "direction", "state", "local",
    "failure", "rtt", "retransmits", "connects", "closes", "packets_sent", "packets_received", "connect_latency",
    "unit", "container", "user",
)  # fmt: skip
_GROUP_ORDER = (
    "connects", "established", "accepts", "connect_failures", "closes", "open", "bytes_sent", "bytes_received",
    "packets_sent", "packets_received", "retransmits",
)  # fmt: skip
_GROUP_IMPORTANCE = (
    "bytes_sent", "bytes_received", "connects", "connect_failures", "open", "accepts", "established", "closes",
    "retransmits", "packets_sent", "packets_received",
)  # fmt: skip
_MESSAGE_ORDER = (
    "response_latency.count", "response_latency.p50", "response_latency.p99", "udp_bytes_sent", "udp_bytes_received",
)  # fmt: skip
_MESSAGE_IMPORTANCE = (
    "response_latency.p99", "response_latency.count", "bytes_sent", "bytes_received", "response_latency.p50",
    "udp_bytes_sent", "udp_bytes_received",
)  # fmt: skip
_WITH_RATE = frozenset({"bytes_sent", "bytes_received", "connects", "udp_bytes_sent", "udp_bytes_received"})
_ENDPOINTS: Final = {"local": "local_port", "remote": "remote_port"}


@dataclass(frozen=True, slots=True)
class SampleColumn:
    """One column. `key`: of its value in a row; `title`: its name in rules, "rate" for a counter per second.

    `is_connection`: rows are connections, where an address has its port.
    """

    key: str
    title: str
    is_connection: bool

    @property
    def is_number(self) -> bool:
        """Return whether the column is aligned to the right and never cut."""
        return is_number(self.key)

    @property
    def min_width(self) -> int:
        """Return the width to which cells of texts are cut at most."""
        return _MIN_ENDPOINT if self.is_endpoint else _MIN_NAME

    @property
    def is_endpoint(self) -> bool:
        """Return whether a cell is an address and a port: it is cut before the port."""
        return self.is_connection and self.key in _ENDPOINTS

    def text(self, row: SampleRow, seconds: float) -> str:
        """Return the cell of `row`, of a period of `seconds`; unprintable characters are escaped."""
        value = row_value(row, self.key)
        if value is None or value == "":
            return "-"
        if self.is_endpoint:
            address, port = escape_unprintable(str(value)), row[_ENDPOINTS[self.key]]
            return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        if not isinstance(value, int | float) or self.key in DIMENSIONS:
            return escape_unprintable(str(value))
        if self.title == _RATE:
            value = value / seconds if seconds else 0.0
        elif self.key in _MICROSECONDS.values():
            value = value / 1e6
        return format_number(self._format, value)

    @property
    def _format(self) -> str:
        metric, _, part = self.title.partition(".")
        if part == "count":
            return "count"
        metric = self.key if metric == _RATE else metric
        unit: Unit | None = METRICS[metric].unit
        return natural_format(unit, per_second=self.title == _RATE)


@dataclass(frozen=True, slots=True)
class SampleColumns:
    """Columns in the order of the table, and `importance`: their indices, the last of which are left out first."""

    columns: tuple[SampleColumn, ...]
    importance: tuple[int, ...]


def sort_key(name: str, dimensions: Sequence[str], *, messages: bool) -> str:
    """Return the key of the values in the column `name`: of connections without `dimensions`, else of groups.

    Raises:
        UsageError: there is no such column.
    """
    known = _group_keys(dimensions) if dimensions else _connection_keys()
    measured = [one for one in known if messages or not METRICS.get(one.partition(".")[0], METRICS["open"]).on_demand]
    if name in known and name not in measured:
        raise UsageError(f"--sort: {name} is measured only with --messages")
    if name not in measured:
        raise UsageError(f"--sort: {suggestions.unknown_name('column', name, measured)}")
    return name if dimensions else _MICROSECONDS.get(name, name)


def sample_columns(dimensions: Sequence[str], *, messages: bool, sort: str = "") -> SampleColumns:
    """Return the columns of connections without `dimensions`, else of groups; that of `sort` is always among them."""
    if dimensions:
        of_messages = _MESSAGE_ORDER if messages else ()
        order = [*dimensions, *of_messages, *_GROUP_ORDER]
        first = _MESSAGE_IMPORTANCE if messages else ()
        importance = list(dict.fromkeys([*dimensions, *first, *_GROUP_IMPORTANCE]))
    else:
        order = [name for name in _CONNECTION_ORDER if messages or name != "response_latency"]
        importance = [name for name in _CONNECTION_IMPORTANCE if messages or name != "response_latency"]
    identity = len(dimensions) or 2  # columns that identify a row
    if sort and sort not in importance[:identity]:
        if sort not in order:
            order.insert(identity, sort)
        importance = [name for name in importance if name != sort]
        importance.insert(identity, sort)
    columns: list[SampleColumn] = []
    places: dict[str, list[int]] = {}
    for name in order:
        key = name if dimensions else _MICROSECONDS.get(name, name)
        titles = (name, _RATE) if name in _WITH_RATE else (name,)
        places[name] = list(range(len(columns), len(columns) + len(titles)))
        columns += [SampleColumn(key, title, is_connection=not dimensions) for title in titles]
    return SampleColumns(tuple(columns), tuple(place for name in importance for place in places[name]))


def _connection_keys() -> list[str]:
    dimensions = [name for name in HOST_DIMENSIONS if name != "remote_net"]
    return [*dimensions, *(name for name in COUNTERS if not name.startswith("udp_")), *_MICROSECONDS]


def _group_keys(dimensions: Sequence[str]) -> list[str]:
    return [*dimensions, *COUNTERS, *GAUGES, *(f"{name}.{part}" for name in DISTRIBUTIONS for part in _STATISTICS)]
