"""Sums of all ticks of a period, for `sample`.

Each tick is added at once: memory grows with the number of connections or groups, not with the number of ticks. The
watchdog's own row is omitted.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from watchdog.kernel.quality import Quality
from watchdog.measure.catalogue import DIMENSIONS, DIRECTIONS, METRICS, TRAFFIC_METRICS, DimensionKind, MetricKind
from watchdog.measure.connection_metrics import ConnectionIds, is_listener
from watchdog.measure.deltas import Changes, connection_ids
from watchdog.measure.snapshot import Snapshot

_OWN = ("lost_connections", "missed_ticks", "failed_ticks")  # of the watchdog, not of the host
COUNTERS = tuple(name for name, metric in METRICS.items() if metric.kind is MetricKind.COUNTER and name not in _OWN)
GAUGES = tuple(name for name, metric in METRICS.items() if metric.kind is MetricKind.GAUGE)
DISTRIBUTIONS = tuple(name for name, metric in METRICS.items() if metric.kind is MetricKind.DISTRIBUTION)
_SHOWN = ("pid", *(name for name in DIMENSIONS if name != "pid"))
_EVENTS = tuple(name for name in COUNTERS if name not in TRAFFIC_METRICS)
_LOSSES = {
    "ledger_full": "connections added up by process (too many ended within a tick)",
    "sums_full": "connections lost (too many processes)",
    "storage_failed": "connections not tracked (no kernel memory)",
    "missed_events": "events skipped by the kernel",
    "impossible_changes": "connections with impossible changes of their counters (not counted)",
    "names_full": "connections without their names (too many names)",
    "responses_lost": "responses not timed (too many within a tick)",
    "responses_unassigned": "responses without their connection (it has no open file, or was added up by process)",
    "datagrams_lost": "datagrams not counted (too many processes)",
}
_SOCKMAP = "connections in a sockmap (their bytes are not known)"
_OUT = DIRECTIONS.index("out")
_US_NS = 1000
_TIMES = ("rtt_us", "connect_latency_us", "lifetime_us", "cookie")

SampleRow = dict[str, object]


@dataclass(frozen=True, slots=True)
class _MeasuredTick:
    changes: Changes
    snapshot: Snapshot

    def connections(self) -> tuple[NDArray[np.intp], ConnectionIds]:
        """Return index and id of all rows except listeners and the watchdog's own row."""
        numbers = np.flatnonzero(~is_listener(self.changes.rows)[:-1])
        return numbers, connection_ids(self.changes.rows)[numbers]


class ConnectionAggregate:
    """Adds ticks up by connection. Keeps the newest tick, and one row for each connection that is not in it."""

    def __init__(self) -> None:
        """Start empty."""
        self._newest: _MeasuredTick | None = None
        self._sums: dict[int, NDArray[np.int64]] = {}
        self._response_us: dict[int, int] = {}
        self._ended: dict[int, SampleRow] = {}
        self._other_rows: dict[tuple[object, ...], tuple[SampleRow, NDArray[np.int64]]] = {}

    def add(self, changes: Changes, snapshot: Snapshot) -> None:
        """Add one tick, as `Meter.advance_with_changes` returns it. Do not add the first tick, the baseline."""
        tick = _MeasuredTick(changes, snapshot)
        numbers, ids = tick.connections()
        counted = np.stack([changes.metrics[name][numbers] for name in COUNTERS], axis=1).astype(np.int64)
        for index in np.flatnonzero(counted.any(axis=1)).tolist():
            if key := int(ids[index]):
                self._sums[key] = self._sums.get(key, 0) + counted[index]
        for index in np.flatnonzero(ids == 0).tolist():  # not a single connection: sums, UDP
            row = _describe_row(tick, int(numbers[index]))
            before = self._other_rows.get(tuple(row.values()), (row, 0))[1]
            self._other_rows[tuple(row.values())] = row, before + counted[index]
        self._add_responses(tick)
        self._keep_ended(ids)
        self._newest = tick

    def rows(self) -> list[SampleRow]:
        """Return one row per connection, with the keys of `sample --json`, most bytes first.

        Counters have their change in the period, all other keys the last value. Times are in µs, None where there is
        none. `response_latency_us`, measured with `--messages`, is the median of the newest tick with a response.
        """
        rows = dict(self._ended)
        if self._newest is not None:
            numbers, ids = self._newest.connections()
            described = zip(ids.tolist(), numbers.tolist(), strict=True)
            rows |= {key: _describe_row(self._newest, number) for key, number in described if key}
        nothing = np.zeros(len(COUNTERS), np.int64)
        complete = [
            _with_counters(row, self._sums.get(key, nothing), self._response_us.get(key)) for key, row in rows.items()
        ]
        complete += [_with_counters(row, counted, None) for row, counted in self._other_rows.values()]
        return sorted(complete, key=_sort_key, reverse=True)

    def _add_responses(self, tick: _MeasuredTick) -> None:
        responses, ids = tick.changes.responses, connection_ids(tick.changes.rows)
        latencies: dict[int, list[float]] = {}
        for number, seconds in zip(responses.rows.tolist(), responses.seconds.tolist(), strict=True):
            latencies.setdefault(int(ids[number]), []).append(seconds)
        self._response_us |= {key: _median_us(seconds) for key, seconds in latencies.items()}

    def _keep_ended(self, ids: ConnectionIds) -> None:
        # A connection that is not in the tick with these `ids` has ended.
        if self._newest is None:
            return
        numbers, before = self._newest.connections()
        ended = np.flatnonzero(~np.isin(before, ids) & (before != 0)).tolist()
        self._ended |= {int(before[index]): _describe_row(self._newest, int(numbers[index])) for index in ended}


@dataclass(slots=True)
class _GroupSums:
    sums: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(COUNTERS), np.int64))
    now: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(GAUGES), np.int64))
    distributions: dict[str, array[float]] = field(default_factory=lambda: {name: array("d") for name in DISTRIBUTIONS})


class GroupAggregate:
    """Adds ticks up by dimensions."""

    def __init__(self, dimensions: Sequence[str]) -> None:
        """Start empty."""
        self._dimensions = tuple(dimensions)
        self._groups: dict[tuple[str, ...], _GroupSums] = {}

    def add(self, changes: Changes, snapshot: Snapshot) -> None:
        """Add one tick, as `Meter.advance_with_changes` returns it. Do not add the first tick, the baseline."""
        for group in self._groups.values():
            group.now[:] = 0
        metrics = changes.metrics
        count = len(changes.rows) - 1
        codes = np.stack([snapshot.dimensions[name][:count] for name in self._dimensions], axis=1)
        unique, inverse = np.unique(codes, axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        sums = np.stack([np.bincount(inverse, metrics[name][:-1], len(unique)) for name in (*COUNTERS, *GAUGES)])
        groups = []
        for number, values in enumerate(unique.tolist()):
            key = tuple(snapshot.names.text(name, code) for name, code in zip(self._dimensions, values, strict=True))
            group = self._groups.setdefault(key, _GroupSums())
            group.sums += sums[: len(COUNTERS), number].astype(np.int64)
            group.now += sums[len(COUNTERS) :, number].astype(np.int64)
            groups.append(group)
        for name in DISTRIBUTIONS:
            column = metrics[name][:-1]
            for number in np.flatnonzero(~np.isnan(column)).tolist():
                groups[inverse[number]].distributions[name].append(float(column[number]))
        responses = changes.responses
        for number, seconds in zip(responses.rows.tolist(), responses.seconds.tolist(), strict=True):
            groups[inverse[number]].distributions["response_latency"].append(seconds)

    def rows(self) -> list[SampleRow]:
        """Return one row per combination of the dimensions' values, most bytes first.

        Counters are sums over the period, gauges have the last value, distributions have a summary in seconds.
        """
        rows = []
        for key, group in self._groups.items():
            row: SampleRow = {name: _json_value(name, text) for name, text in zip(self._dimensions, key, strict=True)}
            row |= dict(zip(COUNTERS, group.sums.tolist(), strict=True))
            row |= dict(zip(GAUGES, group.now.tolist(), strict=True))
            row |= {name: _summary(values) for name, values in group.distributions.items()}
            rows.append(row)
        return sorted(rows, key=_sort_key, reverse=True)


class SampleLosses:
    """Losses of a period."""

    def __init__(self) -> None:
        """Start without losses."""
        self._counts = dict.fromkeys(_LOSSES, 0)
        self._sockmap_connections = 0  # the maximum of a tick

    def add(self, quality: Quality) -> None:
        """Add the losses of one tick."""
        for name in self._counts:
            self._counts[name] += getattr(quality, name)
        self._sockmap_connections = max(self._sockmap_connections, quality.sockmap_connections)

    def counts_by_cause(self) -> dict[str, int]:
        """Return the number of losses by description of their cause."""
        counts = {_LOSSES[name]: count for name, count in self._counts.items()}
        return counts | {_SOCKMAP: self._sockmap_connections}


def _median_us(seconds: list[float]) -> int:
    return round(float(np.median(seconds)) * 1e6)


def _json_value(dimension: str, text: str) -> str | int:
    return int(text) if DIMENSIONS[dimension].kind is DimensionKind.NUMBER else text


def _sort_key(row: SampleRow) -> tuple[int, int]:
    return int(str(row["bytes_sent"])) + int(str(row["bytes_received"])), int(str(row["established"]))


def _describe_row(tick: _MeasuredTick, number: int) -> SampleRow:
    # All keys except the counters.
    snapshot, raw = tick.snapshot, tick.changes.rows[number]
    born, established, ended = int(raw["born_ns"]), int(raw["established_ns"]), int(raw["ended_ns"])
    row: SampleRow = {
        name: _json_value(name, snapshot.names.text(name, int(snapshot.dimensions[name][number]))) for name in _SHOWN
    }
    latency = (established - born) // _US_NS if established and born and raw["direction"] == _OUT else None
    row["rtt_us"] = int(raw["srtt_us"]) or None
    row["connect_latency_us"] = latency
    row["lifetime_us"] = ((ended or snapshot.at_ns) - born) // _US_NS if born else None
    row["cookie"] = int(raw["cookie"])
    return row


def _with_counters(row: SampleRow, counted: NDArray[np.int64], response_us: int | None) -> SampleRow:
    changed = dict(zip(COUNTERS, counted.tolist(), strict=True))
    traffic, events = ({name: changed[name] for name in names} for names in (TRAFFIC_METRICS, _EVENTS))
    dimensions, rest = ({name: row[name] for name in names} for names in (_SHOWN, _TIMES))
    return {**dimensions, **traffic, **rest, **events, "response_latency_us": response_us}


def _summary(values: array[float]) -> dict[str, float | int] | None:
    if not values:
        return None
    p50, p99 = np.percentile(values, [50, 99]).tolist()
    return {"count": len(values), "min": min(values), "p50": p50, "p99": p99, "max": max(values)}
