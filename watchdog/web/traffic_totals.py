"""Totals of the traffic by process and unit since the start, as Prometheus reads them: each tick adds its snapshot.

Counters and distributions only rise, also over reloads; gauges are those of the newest tick. Memory is bounded: a pair
of process and unit that finds no place is in the place `(other)`, so that the sums over all places are the host's.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watchdog.clock import SECOND_NS
from watchdog.measure.catalogue import (
    ABSENT_CODE,
    FAILURES,
    HOST_METRICS,
    METRICS,
    OWN_METRICS,
    TCP_STATES,
    MetricKind,
)
from watchdog.measure.slot_table import NEVER_NS, NO_SLOT, SlotTable
from watchdog.measure.snapshot import Snapshot
from watchdog.web.native_histograms import NativeBuckets
from watchdog.web.series_places import OTHER_PLACE, Pair, SeriesPlaces

COUNTERS: Final = tuple(
    name
    for name, metric in METRICS.items()
    if metric.kind is MetricKind.COUNTER and name not in (*OWN_METRICS, "connect_failures")
)
"""Counters of a place, without `connect_failures`, which are kept by failure."""
GAUGES: Final = tuple(
    name
    for name, metric in METRICS.items()
    if metric.kind is MetricKind.GAUGE and name not in (*OWN_METRICS, *HOST_METRICS, "open")
)
"""Gauges of a place, without `open`, which is kept by state."""
OWN_COUNTERS: Final = tuple(name for name in OWN_METRICS if METRICS[name].kind is MetricKind.COUNTER)
FAILURE_NAMES: Final = ("unknown", *FAILURES[1:])
STATE_NAMES: Final = ("unknown", *TCP_STATES[1:])

_LATENCIES = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BOUNDS: Final[Mapping[str, tuple[float, ...]]] = {
    "accept_queue": (0.1, 0.25, 0.5, 0.8, 0.99, 1),  # with the levels of the shipped rules
    "connect_latency": _LATENCIES,
    "rtt": _LATENCIES,
    "lifetime": (0.001, 0.01, 0.1, 1, 10, 60, 300, 1800, 3600, 21_600, 86_400),
    "response_latency": _LATENCIES,
}
"""Upper bounds of the buckets of each distribution, in seconds or shares."""

_MAX_PAIRS = 65_536
# A code can belong to another name once its own was unused for a minute at least (`measure/interning.py`).
_RECHECK_NS = 30 * SECOND_NS

Counts = NDArray[np.int64]
Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class TrafficView:
    """A copy of the totals of p places.

    `pairs`: (process, unit) of each place, the first is `(other)`. `counters`: (len(COUNTERS), p). `failures`:
    (p, len(FAILURE_NAMES)). `gauges`: (len(GAUGES), p), bytes or numbers. `open_by_state`: (p, len(STATE_NAMES)).
    `seen_states`: the same shape, whether the place ever had a connection in the state. `buckets`: by distribution,
    (p, bounds + 1), not cumulative. `sums`: by distribution, (p,). `native`: counts of native histograms by
    distribution, as of `NativeBuckets.copy`, none before `count_native`. `host`: gauges of the host. `own`: sums of the
    watchdog's own counters. `refused`: times that a pair found no place. `ticks`: number of snapshots.
    """

    pairs: tuple[Pair, ...]
    counters: Counts
    failures: Counts
    gauges: NDArray[np.float64]
    open_by_state: Counts
    seen_states: NDArray[np.bool_]
    buckets: Mapping[str, Counts]
    sums: Mapping[str, NDArray[np.float64]]
    native: Mapping[str, Counts]
    host: Mapping[str, float]
    own: Mapping[str, int]
    refused: int
    ticks: int


class TrafficTotals:
    """Adds snapshots up. The thread of the ticks adds, any other takes views."""

    def __init__(self, max_places: int) -> None:
        """Start with zeros; `max_places`: pairs with totals of their own, `(other)` included."""
        self._lock = threading.Lock()
        self._places = SeriesPlaces(max_places)
        self._table = SlotTable((np.uint32, np.uint32), reserved=0, max_slots=_MAX_PAIRS)
        self._place_of = np.zeros(self._table.capacity, np.intp)  # by slot
        self._checked_ns = np.full(self._table.capacity, NEVER_NS)  # by slot
        self.max_places = max_places
        self._count = max_places + 1  # the last one is for rows that are no traffic
        self._counters = np.zeros((len(COUNTERS), self._count), np.int64)
        self._shown = self._counters.copy()
        self._failures = np.zeros((self._count, len(FAILURE_NAMES)), np.int64)
        self._gauges = np.zeros((len(GAUGES), self._count))
        self._open = np.zeros((self._count, len(STATE_NAMES)), np.int64)
        self._seen_states = np.zeros(self._open.shape, np.bool_)
        self._buckets = {name: np.zeros((self._count, len(edges) + 1), np.int64) for name, edges in BOUNDS.items()}
        self._sums = {name: np.zeros(self._count) for name in BOUNDS}
        self._native: NativeBuckets | None = None
        self._host = dict.fromkeys(HOST_METRICS, 0.0)
        self._own = dict.fromkeys(OWN_COUNTERS, 0)
        self._ticks = 0

    def add(self, snapshot: Snapshot) -> None:
        """Add one tick. The first snapshot of a meter, the baseline, must not be added."""
        with self._lock:
            self._ticks += 1
            places = self._find_places(snapshot)
            self._add_counters(snapshot, places)
            self._take_gauges(snapshot, places)
            for name in BOUNDS:
                self._add_values(name, snapshot.metrics[name], places)

    @property
    def ticks(self) -> int:
        """Return the number of snapshots so far."""
        return self._ticks

    def count_native(self) -> None:
        """Count the distributions in native histograms too from now on."""
        with self._lock:
            if self._native is None:
                self._native = NativeBuckets(self._count)
                for name, buckets in self._buckets.items():
                    self._native.add_classic(name, BOUNDS[name], buckets)

    def view(self) -> TrafficView:
        """Return a copy."""
        with self._lock:
            pairs = tuple(self._places.pairs)
            count = len(pairs)
            # A correction of an ended connection can take a count back; Prometheus would take that for a restart.
            np.maximum(self._shown, self._counters, out=self._shown)
            return TrafficView(
                pairs,
                self._shown[:, :count].copy(),
                self._failures[:count].copy(),
                self._gauges[:, :count].copy(),
                self._open[:count].copy(),
                self._seen_states[:count].copy(),
                {name: counts[:count].copy() for name, counts in self._buckets.items()},
                {name: sums[:count].copy() for name, sums in self._sums.items()},
                {} if self._native is None else self._native.copy(count),
                dict(self._host),
                dict(self._own),
                self._places.refused,
                self._ticks,
            )

    def _find_places(self, snapshot: Snapshot) -> Places:
        """Return the place of each row, (n,)."""
        dimensions, now_ns = snapshot.dimensions, snapshot.at_ns
        slots = self._table.assign((dimensions["process"], dimensions["unit"]), now_ns, now_ns - _RECHECK_NS)
        self._grow()
        has_process, has_slot = dimensions["pid"] != ABSENT_CODE, slots != NO_SLOT
        found = np.where(has_slot, slots, 0)
        is_used = np.zeros(self._table.capacity, np.bool_)
        is_used[found[has_process & has_slot]] = True
        used = np.flatnonzero(is_used)
        self._resolve(snapshot, used, found)
        self._checked_ns[used] = now_ns
        places = np.where(has_slot, self._place_of[found], OTHER_PLACE)
        return np.where(has_process, places, self._count - 1)

    def _grow(self) -> None:
        missing = self._table.capacity - len(self._place_of)
        if missing > 0:
            self._place_of = np.concatenate([self._place_of, np.zeros(missing, np.intp)])
            self._checked_ns = np.concatenate([self._checked_ns, np.full(missing, NEVER_NS)])
        self._checked_ns[self._table.new_slots] = NEVER_NS

    def _resolve(self, snapshot: Snapshot, used: Places, slots: NDArray[np.int32]) -> None:
        """Find the places of those slots of `used` that are new, or were unused for long; most traffic goes first."""
        due = used[self._checked_ns[used] < snapshot.at_ns - _RECHECK_NS]
        if not len(due):
            return
        metrics = snapshot.metrics
        traffic = metrics["bytes_sent"] + metrics["bytes_received"] + metrics["established"] + metrics["open"]
        volume = np.bincount(slots, traffic, self._table.capacity)[due]
        processes, units = self._table.keys
        for slot in due[np.argsort(-volume, kind="stable")].tolist():
            names = [
                "" if code == ABSENT_CODE else snapshot.names.text(dimension, int(code))
                for dimension, code in (("process", processes[slot]), ("unit", units[slot]))
            ]
            self._place_of[slot] = self._places.find(names[0], names[1])

    def _add_counters(self, snapshot: Snapshot, places: Places) -> None:
        for number, name in enumerate(COUNTERS):
            rows, values = _nonzero(snapshot, name)
            self._counters[number] += np.bincount(places[rows], values, self._count).astype(np.int64)
        rows, values = _nonzero(snapshot, "connect_failures")
        failures = _choices(snapshot.dimensions["failure"][rows], len(FAILURE_NAMES))
        self._failures += _by_choice(places[rows], failures, values, self._failures.shape)
        for name in OWN_COUNTERS:
            self._own[name] += int(snapshot.metrics[name].sum())

    def _take_gauges(self, snapshot: Snapshot, places: Places) -> None:
        for number, name in enumerate(GAUGES):
            rows, values = _nonzero(snapshot, name)
            self._gauges[number] = np.bincount(places[rows], values, self._count)
        rows, values = _nonzero(snapshot, "open")
        states = _choices(snapshot.dimensions["state"][rows], len(STATE_NAMES))
        self._open = _by_choice(places[rows], states, values, self._open.shape)
        self._seen_states |= self._open > 0
        for name in HOST_METRICS:
            self._host[name] = float(snapshot.metrics[name].sum())

    def _add_values(self, name: str, values: NDArray[np.float64], places: Places) -> None:
        rows = np.flatnonzero(~np.isnan(values))
        if not len(rows):
            return
        at, values = places[rows], values[rows]
        buckets = self._buckets[name]
        buckets += _by_choice(at, np.searchsorted(BOUNDS[name], values), np.ones(len(rows)), buckets.shape)
        self._sums[name] += np.bincount(at, values, self._count)
        if self._native is not None:
            self._native.add(name, at, values)


def _nonzero(snapshot: Snapshot, name: str) -> tuple[Places, NDArray[np.float64]]:
    """Return the rows where a metric is not 0, (r,), and its values there."""
    values = snapshot.metrics[name]
    rows = np.flatnonzero(values)
    return rows, values[rows]


def _choices(codes: NDArray[np.uint32], count: int) -> Places:
    """Return codes of a closed list as indices below `count`; 0 for a lost or missing value."""
    return np.where(codes < count, codes, 0).astype(np.intp)


def _by_choice(places: Places, choices: Places, values: NDArray[np.float64], shape: tuple[int, ...]) -> Counts:
    """Return the sums of `values`, (r,), by place and choice, in `shape`."""
    sums = np.bincount(places * shape[1] + choices, values, shape[0] * shape[1])
    return sums.astype(np.int64).reshape(shape)
