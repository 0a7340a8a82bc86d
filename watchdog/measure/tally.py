"""The tally: everything that was measured in a stretch of time, for `sample` and `top`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from watchdog.measure.catalogue import DIMENSIONS, DIRECTIONS, METRICS, Kind, Values
from watchdog.measure.deltas import Changes, ids_of, is_listener
from watchdog.measure.snapshot import Snapshot

_OWN = ("lost_connections", "missed_ticks", "failed_ticks")  # the watchdog's, not the host's
COUNTERS = tuple(name for name, metric in METRICS.items() if metric.kind is Kind.COUNTER and name not in _OWN)
GAUGES = tuple(name for name, metric in METRICS.items() if metric.kind is Kind.GAUGE)
DISTRIBUTIONS = tuple(name for name, metric in METRICS.items() if metric.kind is Kind.DISTRIBUTION)
_SHOWN = ("pid", *(name for name in DIMENSIONS if name != "pid"))
_TRAFFIC = ("bytes_sent", "bytes_received", "packets_sent", "packets_received", "retransmits")
_EVENTS = tuple(name for name in COUNTERS if name not in _TRAFFIC)
_LOSSES = {
    "ledger_full": "connections summed up by process (too many ended within a tick)",
    "sums_full": "connections lost (too many processes)",
    "storage_failed": "connections not followed (no kernel memory)",
    "programs_missed": "events skipped by the kernel",
    "responses_lost": "answers not timed (too many within a tick)",
    "datagrams_lost": "datagrams not counted (too many processes)",
}
_OUT = DIRECTIONS.index("out")
_US_NS = 1000

Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class _Tick:
    changes: Changes
    snapshot: Snapshot


@dataclass(slots=True)
class _Group:
    sums: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(COUNTERS), np.int64))
    now: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(GAUGES), np.int64))
    distributions: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in DISTRIBUTIONS})


class Tally:
    """Collects ticks and sums them up by connection or by dimensions. The watchdog's own row is left out."""

    def __init__(self) -> None:
        """Start empty."""
        self._ticks: list[_Tick] = []

    def add(self, changes: Changes, snapshot: Snapshot) -> None:
        """Add one tick, as `Meter.measure` returns it; the first one, the baseline, is not to be added."""
        self._ticks.append(_Tick(changes, snapshot))

    def losses(self) -> dict[str, int]:
        """Return how many of what was lost, by cause in words."""
        qualities = [tick.snapshot.quality for tick in self._ticks]
        return {words: sum(getattr(quality, name) for quality in qualities) for name, words in _LOSSES.items()}

    def connections(self) -> list[Row]:
        """Return one row per connection, keys as DESIGN lists them for `sample --json`, most bytes first.

        Counters hold what changed in the time; the rest is as last seen. Times are in µs, None where there is none;
        `response_latency_us` is the median of the newest tick with an answer, where messages are followed.
        """
        rows: dict[int, Row] = {}
        folded: list[Row] = []
        for tick in self._ticks:
            ids = ids_of(tick.changes.rows)
            answers = _answers(tick)
            counters = [tick.changes.metrics[name].astype(np.int64).tolist() for name in COUNTERS]
            listening = is_listener(tick.changes.rows)
            for number in np.flatnonzero(~listening[:-1]).tolist():
                key = int(ids[number])
                changed = {name: counters[column][number] for column, name in enumerate(COUNTERS)}
                before = rows.get(key)
                if key and before is not None:
                    changed = {name: value + int(str(before[name])) for name, value in changed.items()}
                row = _described(tick, number, changed)
                row["response_latency_us"] = _median_us(answers.get(number)) or (before or {}).get(
                    "response_latency_us"
                )
                if key:
                    rows[key] = row
                else:
                    folded.append(row)
        return sorted([*rows.values(), *folded], key=_bytes, reverse=True)

    def by(self, dimensions: Sequence[str]) -> list[Row]:
        """Return one row per combination of the dimensions' values, most bytes first.

        Counters are sums over the time, gauges are as last seen, distributions are summed up in seconds.
        """
        groups: dict[tuple[str, ...], _Group] = {}
        for tick in self._ticks:
            for group in groups.values():
                group.now[:] = 0
            _add_to_groups(groups, tick, dimensions)
        rows = []
        for key, group in groups.items():
            row: Row = {name: _plain(name, text) for name, text in zip(dimensions, key, strict=True)}
            row |= dict(zip(COUNTERS, group.sums.tolist(), strict=True))
            row |= dict(zip(GAUGES, group.now.tolist(), strict=True))
            row |= {name: _summary(values) for name, values in group.distributions.items()}
            rows.append(row)
        return sorted(rows, key=_bytes, reverse=True)


def _add_to_groups(groups: dict[tuple[str, ...], _Group], tick: _Tick, dimensions: Sequence[str]) -> None:
    metrics, snapshot = tick.changes.metrics, tick.snapshot
    count = len(tick.changes.rows) - 1
    codes = np.stack([snapshot.dimensions[name][:count] for name in dimensions], axis=1)
    unique, inverse = np.unique(codes, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    sums = np.stack([np.bincount(inverse, metrics[name][:-1], len(unique)) for name in (*COUNTERS, *GAUGES)])
    here = []
    for number, values in enumerate(unique.tolist()):
        key = tuple(snapshot.names.text(name, code) for name, code in zip(dimensions, values, strict=True))
        group = groups.setdefault(key, _Group())
        group.sums += sums[: len(COUNTERS), number].astype(np.int64)
        group.now += sums[len(COUNTERS) :, number].astype(np.int64)
        here.append(group)
    for name in DISTRIBUTIONS:
        column = metrics[name][:-1]
        for number in np.flatnonzero(~np.isnan(column)).tolist():
            here[inverse[number]].distributions[name].append(float(column[number]))
    responses = tick.changes.responses
    for number, seconds in zip(responses.rows.tolist(), responses.seconds.tolist(), strict=True):
        here[inverse[number]].distributions["response_latency"].append(seconds)


def _answers(tick: _Tick) -> dict[int, list[float]]:
    answers: dict[int, list[float]] = {}
    responses = tick.changes.responses
    for number, seconds in zip(responses.rows.tolist(), responses.seconds.tolist(), strict=True):
        answers.setdefault(number, []).append(seconds)
    return answers


def _median_us(seconds: list[float] | None) -> int | None:
    return round(np.median(seconds) * 1e6) if seconds else None


def _plain(dimension: str, text: str) -> str | int:
    return int(text) if DIMENSIONS[dimension].values is Values.NUMBER else text


def _bytes(row: Row) -> tuple[int, int]:
    return int(str(row["bytes_sent"])) + int(str(row["bytes_received"])), int(str(row["established"]))


def _described(tick: _Tick, number: int, changed: dict[str, int]) -> Row:
    snapshot, raw = tick.snapshot, tick.changes.rows[number]
    born, established, ended = int(raw["born_ns"]), int(raw["established_ns"]), int(raw["ended_ns"])
    row: Row = {
        name: _plain(name, snapshot.names.text(name, int(snapshot.dimensions[name][number]))) for name in _SHOWN
    }
    latency = (established - born) // _US_NS if established and born and raw["direction"] == _OUT else None
    row |= {name: changed[name] for name in _TRAFFIC}
    row["rtt_us"] = int(raw["srtt_us"]) or None
    row["connect_latency_us"] = latency
    row["lifetime_us"] = ((ended or snapshot.at_ns) - born) // _US_NS if born else None
    row["cookie"] = int(raw["cookie"])
    return row | {name: changed[name] for name in _EVENTS}


def _summary(values: list[float]) -> dict[str, float | int] | None:
    if not values:
        return None
    p50, p99 = np.percentile(values, [50, 99]).tolist()
    return {"count": len(values), "min": min(values), "p50": p50, "p99": p99, "max": max(values)}
