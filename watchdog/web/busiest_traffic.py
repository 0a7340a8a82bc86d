"""The busiest processes and peers of the last half minute, for the status page.

Each tick adds the sums of its `_MAX_KEYS` busiest processes and peers; so the sums of a process that is among these in
some ticks only are a lower bound. Busy is the greater of two shares of the host: of its bytes, and of its connections
that began.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watchdog.clock import SECOND_NS
from watchdog.measure.catalogue import ABSENT_CODE
from watchdog.measure.snapshot import Codes, Numbers, Snapshot

PERIOD_SECONDS: Final = 30
SHOWN: Final = 12
"""Processes, and peers, of a ranking."""

_METRICS: Final = ("bytes_sent", "bytes_received", "connects", "accepts", "connect_failures")
_BYTES, _BEGUN = slice(0, 2), slice(2, 4)  # of `_METRICS`
_MAX_KEYS = 64  # of a tick
_MAX_HELD = 1024  # of a period; beyond, the less busy half is forgotten

Sums = NDArray[np.float64]
_Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class BusyTraffic:
    """One process or peer, per second of the period; `open`: connections at its end.

    `names`: (process, unit), or (address, direction).
    """

    names: tuple[str, str]
    bytes_sent: float
    bytes_received: float
    connects: float
    accepts: float
    connect_failures: float
    open: int


@dataclass(frozen=True, slots=True)
class TrafficRanking:
    """The busiest of a period, which ended at `wall`, wall-clock seconds, and took `seconds`."""

    wall: float
    seconds: float
    processes: tuple[BusyTraffic, ...]
    peers: tuple[BusyTraffic, ...]


class BusiestTraffic:
    """Adds snapshots up, in the thread of the ticks. `ranking`: the newest one, replaced as a whole; None at first."""

    def __init__(self) -> None:
        """Start without ticks."""
        self.ranking: TrafficRanking | None = None
        self._elapsed_ns = 0
        self._processes = _Sums(("process", "unit"))
        self._peers = _Sums(("remote", "direction"))

    def add(self, snapshot: Snapshot) -> None:
        """Add the rows of a tick."""
        self._elapsed_ns += snapshot.elapsed_ns
        is_active = np.zeros(len(snapshot), np.bool_)
        for name in _METRICS:
            is_active |= snapshot.metrics[name] != 0
        rows = np.flatnonzero(is_active)
        values = np.stack([snapshot.metrics[name][rows] for name in _METRICS])
        host = values.sum(axis=1)
        self._processes.add(snapshot, rows, values, host)
        self._peers.add(snapshot, rows, values, host)
        if self._elapsed_ns >= PERIOD_SECONDS * SECOND_NS:
            seconds = self._elapsed_ns / SECOND_NS
            processes, peers = (one.take(snapshot, seconds) for one in (self._processes, self._peers))
            self.ranking = TrafficRanking(snapshot.wall, seconds, processes, peers)
            self._elapsed_ns = 0


class _Sums:
    # The sums of a period by the codes of two dimensions. A code means one name for a minute after its last use.

    def __init__(self, dimensions: tuple[str, str]) -> None:
        self._dimensions = dimensions
        self._host: Sums = np.zeros(len(_METRICS))
        self._sums: dict[_Key, Sums] = {}

    def add(self, snapshot: Snapshot, rows: NDArray[np.intp], values: Numbers, host: Sums) -> None:
        self._host += host
        first, second = (snapshot.dimensions[name][rows] for name in self._dimensions)
        if not (has_name := first != ABSENT_CODE).all():
            first, second, values = first[has_name], second[has_name], values[:, has_name]
        keys, places = np.unique(_packed(first, second), return_inverse=True)
        sums = np.stack([np.bincount(places, one, len(keys)).astype(np.float64) for one in values])
        best = _busiest(sums, host, _MAX_KEYS)
        for key, one in zip(keys[best].tolist(), sums[:, best].T, strict=True):
            pair = key >> 32, key & (2**32 - 1)
            held = self._sums.get(pair)
            if held is not None:
                held += one
            else:
                self._sums[pair] = one.copy()
        if len(self._sums) > _MAX_HELD:
            self._sums = dict(self._sorted(_MAX_HELD // 2))

    def take(self, snapshot: Snapshot, seconds: float) -> tuple[BusyTraffic, ...]:
        """Return the busiest of the period, and begin the next one."""
        found = tuple(self._named(snapshot, key, sums / seconds) for key, sums in self._sorted(SHOWN))
        self._sums, self._host = {}, np.zeros(len(_METRICS))
        return found

    def _sorted(self, count: int) -> list[tuple[_Key, Sums]]:
        """Return the `count` busiest so far, the busiest first."""
        held = list(self._sums.items())
        sums = np.array([one for _, one in held]).reshape(-1, len(_METRICS)).T
        return [held[place] for place in _busiest(sums, self._host, count).tolist()]

    def _named(self, snapshot: Snapshot, key: _Key, rates: Sums) -> BusyTraffic:
        first, second = self._dimensions
        rows = (snapshot.dimensions[first] == key[0]) & (snapshot.dimensions[second] == key[1])
        is_open = int(snapshot.metrics["open"][rows].sum())
        names = _text(snapshot, first, key[0]), _text(snapshot, second, key[1])
        sent, received, connects, accepts, failures = rates.tolist()
        return BusyTraffic(names, sent, received, connects, accepts, failures, is_open)


def _packed(first: Codes, second: Codes) -> NDArray[np.uint64]:
    return np.asarray(first.astype(np.uint64) << np.uint64(32) | second)


def _busiest(sums: Sums, host: Sums, count: int) -> NDArray[np.intp]:
    """Return the places of the `count` busiest of m entries, the busiest first; `sums`: (metrics, m)."""
    shares = np.zeros(sums.shape[1])
    for part in (_BYTES, _BEGUN):
        if total := float(host[part].sum()):
            shares = np.maximum(shares, sums[part].sum(axis=0) / total)
    if len(shares) > count:
        places = np.argpartition(-shares, count)[:count]
        return np.asarray(places[np.argsort(-shares[places], kind="stable")])
    return np.argsort(-shares, kind="stable")


def _text(snapshot: Snapshot, dimension: str, code: int) -> str:
    return "" if code == ABSENT_CODE else snapshot.names.text(dimension, code)
