"""Tallies: everything that was measured in a stretch of time, for `sample`.

Ticks are summed up as they come: what is kept grows with the connections or groups seen, not with the ticks. The
watchdog's own row is left out.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from watchdog.kernel.quality import Quality
from watchdog.measure.catalogue import DIMENSIONS, DIRECTIONS, METRICS, DimensionKind, MetricKind
from watchdog.measure.deltas import Changes, ConnectionIds, connection_ids, is_listener
from watchdog.measure.snapshot import Snapshot

_OWN = ("lost_connections", "missed_ticks", "failed_ticks")  # the watchdog's, not the host's
COUNTERS = tuple(name for name, metric in METRICS.items() if metric.kind is MetricKind.COUNTER and name not in _OWN)
GAUGES = tuple(name for name, metric in METRICS.items() if metric.kind is MetricKind.GAUGE)
DISTRIBUTIONS = tuple(name for name, metric in METRICS.items() if metric.kind is MetricKind.DISTRIBUTION)
_SHOWN = ("pid", *(name for name in DIMENSIONS if name != "pid"))
_TRAFFIC = ("bytes_sent", "bytes_received", "packets_sent", "packets_received", "retransmits")
_EVENTS = tuple(name for name in COUNTERS if name not in _TRAFFIC)
_LOSSES = {
    "ledger_full": "connections summed up by process (too many ended within a tick)",
    "sums_full": "connections lost (too many processes)",
    "storage_failed": "connections not followed (no kernel memory)",
    "missed_events": "events skipped by the kernel",
    "names_full": "connections without their names (too many names)",
    "responses_lost": "answers not timed (too many within a tick)",
    "datagrams_lost": "datagrams not counted (too many processes)",
}
_OUT = DIRECTIONS.index("out")
_US_NS = 1000
_TIMES = ("rtt_us", "connect_latency_us", "lifetime_us", "cookie")

SampleRow = dict[str, object]


@dataclass(frozen=True, slots=True)
class _MeasuredTick:
    changes: Changes
    snapshot: Snapshot

    def connections(self) -> tuple[NDArray[np.intp], ConnectionIds]:
        """Return the numbers of the rows that are no listeners, nor the watchdog's own, and their ids."""
        numbers = np.flatnonzero(~is_listener(self.changes.rows)[:-1])
        return numbers, connection_ids(self.changes.rows)[numbers]


class ConnectionAggregate:
    """Sums ticks up by connection. Keeps the newest tick, and a row of each connection that is not in it any more."""

    def __init__(self) -> None:
        """Start empty."""
        self._newest: _MeasuredTick | None = None
        self._sums: dict[int, NDArray[np.int64]] = {}
        self._answers: dict[int, int] = {}
        self._gone: dict[int, SampleRow] = {}
        self._folded: dict[tuple[object, ...], tuple[SampleRow, NDArray[np.int64]]] = {}

    def add(self, changes: Changes, snapshot: Snapshot) -> None:
        """Add one tick, as `Meter.advance_with_changes` returns it; the first one, the baseline, is not to be added."""
        tick = _MeasuredTick(changes, snapshot)
        numbers, ids = tick.connections()
        counted = np.stack([changes.metrics[name][numbers] for name in COUNTERS], axis=1).astype(np.int64)
        for place in np.flatnonzero(counted.any(axis=1)).tolist():
            if key := int(ids[place]):
                self._sums[key] = self._sums.get(key, 0) + counted[place]
        for place in np.flatnonzero(ids == 0).tolist():  # of no one connection
            row = _described(tick, int(numbers[place]))
            before = self._folded.get(tuple(row.values()), (row, 0))[1]
            self._folded[tuple(row.values())] = row, before + counted[place]
        self._answer(tick)
        self._let_go(ids)
        self._newest = tick

    def rows(self) -> list[SampleRow]:
        """Return one row per connection, keys as DESIGN lists them for `sample --json`, most bytes first.

        Counters hold what changed in the time; the rest is as last seen. Times are in µs, None where there is none;
        `response_latency_us` is the median of the newest tick with an answer, where messages are followed.
        """
        rows = dict(self._gone)
        if self._newest is not None:
            numbers, ids = self._newest.connections()
            described = zip(ids.tolist(), numbers.tolist(), strict=True)
            rows |= {key: _described(self._newest, number) for key, number in described if key}
        nothing = np.zeros(len(COUNTERS), np.int64)
        whole = [_with_counters(row, self._sums.get(key, nothing), self._answers.get(key)) for key, row in rows.items()]
        whole += [_with_counters(row, counted, None) for row, counted in self._folded.values()]
        return sorted(whole, key=_bytes, reverse=True)

    def _answer(self, tick: _MeasuredTick) -> None:
        responses, ids = tick.changes.responses, connection_ids(tick.changes.rows)
        answers: dict[int, list[float]] = {}
        for number, seconds in zip(responses.rows.tolist(), responses.seconds.tolist(), strict=True):
            answers.setdefault(int(ids[number]), []).append(seconds)
        self._answers |= {key: _median_us(seconds) for key, seconds in answers.items()}

    def _let_go(self, ids: ConnectionIds) -> None:
        # What is not in the tick with these `ids` will not be seen again.
        if self._newest is None:
            return
        numbers, before = self._newest.connections()
        left = np.flatnonzero(~np.isin(before, ids) & (before != 0)).tolist()
        self._gone |= {int(before[place]): _described(self._newest, int(numbers[place])) for place in left}


@dataclass(slots=True)
class _GroupSums:
    sums: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(COUNTERS), np.int64))
    now: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(GAUGES), np.int64))
    distributions: dict[str, array[float]] = field(default_factory=lambda: {name: array("d") for name in DISTRIBUTIONS})


class GroupAggregate:
    """Sums ticks up by dimensions."""

    def __init__(self, dimensions: Sequence[str]) -> None:
        """Start empty."""
        self._dimensions = tuple(dimensions)
        self._groups: dict[tuple[str, ...], _GroupSums] = {}

    def add(self, changes: Changes, snapshot: Snapshot) -> None:
        """Add one tick, as `Meter.advance_with_changes` returns it; the first one, the baseline, is not to be added."""
        for group in self._groups.values():
            group.now[:] = 0
        metrics = changes.metrics
        count = len(changes.rows) - 1
        codes = np.stack([snapshot.dimensions[name][:count] for name in self._dimensions], axis=1)
        unique, inverse = np.unique(codes, axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        sums = np.stack([np.bincount(inverse, metrics[name][:-1], len(unique)) for name in (*COUNTERS, *GAUGES)])
        here = []
        for number, values in enumerate(unique.tolist()):
            key = tuple(snapshot.names.text(name, code) for name, code in zip(self._dimensions, values, strict=True))
            group = self._groups.setdefault(key, _GroupSums())
            group.sums += sums[: len(COUNTERS), number].astype(np.int64)
            group.now += sums[len(COUNTERS) :, number].astype(np.int64)
            here.append(group)
        for name in DISTRIBUTIONS:
            column = metrics[name][:-1]
            for number in np.flatnonzero(~np.isnan(column)).tolist():
                here[inverse[number]].distributions[name].append(float(column[number]))
        responses = changes.responses
        for number, seconds in zip(responses.rows.tolist(), responses.seconds.tolist(), strict=True):
            here[inverse[number]].distributions["response_latency"].append(seconds)

    def rows(self) -> list[SampleRow]:
        """Return one row per combination of the dimensions' values, most bytes first.

        Counters are sums over the time, gauges are as last seen, distributions are summed up in seconds.
        """
        rows = []
        for key, group in self._groups.items():
            row: SampleRow = {name: _plain(name, text) for name, text in zip(self._dimensions, key, strict=True)}
            row |= dict(zip(COUNTERS, group.sums.tolist(), strict=True))
            row |= dict(zip(GAUGES, group.now.tolist(), strict=True))
            row |= {name: _summary(values) for name, values in group.distributions.items()}
            rows.append(row)
        return sorted(rows, key=_bytes, reverse=True)


class SampleLosses:
    """What was not seen in a stretch of time."""

    def __init__(self) -> None:
        """Start with none."""
        self._counts = dict.fromkeys(_LOSSES, 0)

    def add(self, quality: Quality) -> None:
        """Add one tick's."""
        for name in self._counts:
            self._counts[name] += getattr(quality, name)

    def counts_by_cause(self) -> dict[str, int]:
        """Return how many of what was lost, by cause in words."""
        return {_LOSSES[name]: count for name, count in self._counts.items()}


def _median_us(seconds: list[float]) -> int:
    return round(float(np.median(seconds)) * 1e6)


def _plain(dimension: str, text: str) -> str | int:
    return int(text) if DIMENSIONS[dimension].kind is DimensionKind.NUMBER else text


def _bytes(row: SampleRow) -> tuple[int, int]:
    return int(str(row["bytes_sent"])) + int(str(row["bytes_received"])), int(str(row["established"]))


def _described(tick: _MeasuredTick, number: int) -> SampleRow:
    # All but the counters.
    snapshot, raw = tick.snapshot, tick.changes.rows[number]
    born, established, ended = int(raw["born_ns"]), int(raw["established_ns"]), int(raw["ended_ns"])
    row: SampleRow = {
        name: _plain(name, snapshot.names.text(name, int(snapshot.dimensions[name][number]))) for name in _SHOWN
    }
    latency = (established - born) // _US_NS if established and born and raw["direction"] == _OUT else None
    row["rtt_us"] = int(raw["srtt_us"]) or None
    row["connect_latency_us"] = latency
    row["lifetime_us"] = ((ended or snapshot.at_ns) - born) // _US_NS if born else None
    row["cookie"] = int(raw["cookie"])
    return row


def _with_counters(row: SampleRow, counted: NDArray[np.int64], answer_us: int | None) -> SampleRow:
    changed = dict(zip(COUNTERS, counted.tolist(), strict=True))
    traffic, events = ({name: changed[name] for name in names} for names in (_TRAFFIC, _EVENTS))
    dimensions, rest = ({name: row[name] for name in names} for names in (_SHOWN, _TIMES))
    return {**dimensions, **traffic, **rest, **events, "response_latency_us": answer_us}


def _summary(values: array[float]) -> dict[str, float | int] | None:
    if not values:
        return None
    p50, p99 = np.percentile(values, [50, 99]).tolist()
    return {"count": len(values), "min": min(values), "p50": p50, "p99": p99, "max": max(values)}
