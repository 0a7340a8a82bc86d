"""The connections of a period, for `sample`: sums of all ticks by connection.

Each tick is added at once. Memory grows with the live connections and with the rows to show, not with the number of
ticks or of ended connections. The watchdog's own row is omitted.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from watchdog.kernel.layout import FLAG_SOCKMAP
from watchdog.measure.catalogue import DIMENSIONS, DIRECTIONS, LOCATION_DIMENSIONS, TRAFFIC_METRICS, DimensionKind
from watchdog.measure.connection_metrics import ConnectionIds, is_correction, is_listener, is_of_namespace
from watchdog.measure.deltas import Changes, connection_ids
from watchdog.measure.interning import address_text
from watchdog.measure.ranked_rows import Rank, SampleRow, make_ranked_rows
from watchdog.measure.sample_sums import COUNTERS, RowOrder, Sums, json_value, no_sums, totals_by_counter
from watchdog.measure.snapshot import Snapshot

_DERIVED = ("remote_net", *LOCATION_DIMENSIONS)  # of `remote`, which is shown
_SHOWN = ("pid", *(name for name in DIMENSIONS if name not in {"pid", *_DERIVED}))
_EVENTS = tuple(name for name in COUNTERS if name not in TRAFFIC_METRICS)
_BYTES = ("bytes_sent", "bytes_received")
_IN_SOCKMAP = "in_sockmap"  # in rows without counters only: their bytes are not known
_OUT = DIRECTIONS.index("out")
_US_NS = 1000
_TIMES = ("rtt_us", "connect_latency_us", "lifetime_us", "cookie")
_MAX_UNSEEN = 4096  # rows that are kept for connections without a file, and for processes without new sums
_NO_ADDRESS = 2**64 - 1  # in both halves
_NO_SUMS = no_sums()


@dataclass(frozen=True, slots=True)
class _MeasuredTick:
    changes: Changes
    snapshot: Snapshot

    def connections(self) -> tuple[NDArray[np.intp], ConnectionIds]:
        """Return index and id of all rows except listeners, namespaces, and the watchdog's own; corrections first."""
        rows = self.changes.rows
        numbers = np.flatnonzero(~(is_listener(rows) | is_of_namespace(rows))[:-1])
        rows = self.changes.rows[numbers]
        order = np.argsort(~is_correction(rows), kind="stable")
        return numbers[order], connection_ids(rows)[order]


class ConnectionAggregate:
    """Adds ticks up by connection.

    The row of an ended connection is complete in the tick after its end, and only the rows to show are kept then. Rows
    that can still change are few: those of the newest tick, of connections without a file, and of sums. When these are
    too many, the oldest are completed; what comes later is in a further row of the same connection or process.
    """

    def __init__(self, limit: int = 0, sort: str = "") -> None:
        """Start empty; keep the `limit` rows with most bytes, or first by the value `sort`, all rows if it is 0."""
        self._limit = limit
        self._order = RowOrder(sort)
        self._totals = no_sums()
        self._newest: _MeasuredTick | None = None
        self._sums: dict[int, Sums] = {}
        self._response_us: dict[int, int] = {}
        self._unseen: dict[int, SampleRow] = {}
        self._other_rows: dict[tuple[object, ...], tuple[SampleRow, Sums]] = {}
        self._complete = make_ranked_rows(limit)
        self._complete_count = 0

    def add(self, changes: Changes, snapshot: Snapshot) -> None:
        """Add one tick, as `Meter.advance_with_changes` returns it. Do not add the first tick, the baseline.

        Raises:
            WatchdogError: the temporary file of all rows cannot be written.
        """
        tick = _MeasuredTick(changes, snapshot)
        numbers, ids = tick.connections()
        counted = np.stack([changes.metrics[name][numbers] for name in COUNTERS], axis=1).astype(np.int64)
        self._totals += counted.sum(axis=0)
        for index in np.flatnonzero(counted.any(axis=1)).tolist():
            if key := int(ids[index]):
                self._sums[key] = self._sums.get(key, 0) + counted[index]
        for index in np.flatnonzero(ids == 0).tolist():  # not a single connection: sums, UDP
            row = _describe_row(tick, int(numbers[index]))
            name = tuple(row.values())
            before = self._other_rows.pop(name, (row, 0))[1]
            self._other_rows[name] = row, before + counted[index]
        self._add_responses(tick)
        self._complete_ended(ids)
        self._limit_unseen(int((ids == 0).sum()))
        self._newest = tick

    def rows(self) -> Iterator[SampleRow]:
        """Yield one row per connection, with the keys of `sample --json`, in their order, at most `limit`.

        Counters have their change in the period, all other keys the last value. Times are in µs, None where there is
        none. Bytes are None where a sockmap can have passed some. `response_latency_us`, measured with `--messages`, is
        the median of the newest tick with a response.
        """
        changing = self._changing_rows()
        if self._limit:
            changing = iter(heapq.nlargest(self._limit, changing, key=itemgetter(0)))
        ranked = ((rank, make_row()) for rank, make_row in sorted(changing, key=itemgetter(0), reverse=True))
        merged = heapq.merge(self._complete, ranked, key=itemgetter(0), reverse=True)
        return (row for _, row in islice(merged, self._limit or None))

    def row_count(self) -> int:
        """Return the number of rows, also of those beyond the limit."""
        return self._complete_count + sum(1 for _ in self._changing_rows())

    def totals(self) -> dict[str, int]:
        """Return the sums of all rows by counter, also of those beyond the limit."""
        return totals_by_counter(self._totals)

    def _changing_rows(self) -> Iterator[tuple[Rank, Callable[[], SampleRow]]]:
        if self._newest is not None:
            numbers, ids = self._newest.connections()
            live = dict(zip(ids.tolist(), numbers.tolist(), strict=True))
            live.pop(0, None)
            for key, number in live.items():
                counted = self._sums.get(key, _NO_SUMS)
                response_us = self._response_us.get(key)
                yield self._ranked(counted, partial(_make_row, self._newest, number, counted, response_us))
        for key, row in self._unseen.items():
            counted = self._sums.get(key, _NO_SUMS)
            yield self._ranked(counted, partial(_with_counters, row, counted, self._response_us.get(key)))
        for row, counted in self._other_rows.values():
            yield self._ranked(counted, partial(_with_counters, row, counted, None))

    def _add_responses(self, tick: _MeasuredTick) -> None:
        responses, ids = tick.changes.responses, connection_ids(tick.changes.rows)
        latencies: dict[int, list[float]] = {}
        for number, seconds in zip(responses.rows.tolist(), responses.seconds.tolist(), strict=True):
            latencies.setdefault(int(ids[number]), []).append(seconds)
        self._response_us |= {key: _median_us(seconds) for key, seconds in latencies.items()}

    def _complete_ended(self, ids: ConnectionIds) -> None:
        # A connection that is not in the tick with these `ids` has ended, or has no file.
        unseen = np.fromiter(self._unseen, np.uint64, len(self._unseen))
        for key in unseen[np.isin(unseen, ids)].tolist():
            del self._unseen[key]
        if self._newest is None:
            return
        tick = self._newest
        numbers, before = tick.connections()
        gone = ~np.isin(before, ids) & (before != 0)
        for key, number in dict(zip(before[gone].tolist(), numbers[gone].tolist(), strict=True)).items():
            if tick.changes.rows[number]["ended_ns"]:
                counted, response_us = self._sums.pop(key, _NO_SUMS), self._response_us.pop(key, None)
                self._add_complete(counted, partial(_make_row, tick, number, counted, response_us))
            else:
                self._unseen[key] = _describe_row(tick, number)

    def _limit_unseen(self, new_other_rows: int) -> None:
        for key in list(islice(self._unseen, max(0, len(self._unseen) - _MAX_UNSEEN))):
            row, counted = self._unseen.pop(key), self._sums.pop(key, _NO_SUMS)
            self._add_complete(counted, partial(_with_counters, row, counted, self._response_us.pop(key, None)))
        idle = len(self._other_rows) - max(_MAX_UNSEEN, new_other_rows)
        for name in list(islice(self._other_rows, max(0, idle))):
            row, counted = self._other_rows.pop(name)
            self._add_complete(counted, partial(_with_counters, row, counted, None))

    def _add_complete(self, counted: Sums, make_row: Callable[[], SampleRow]) -> None:
        self._complete_count += 1
        self._complete.add(*self._ranked(counted, make_row))

    def _ranked(self, counted: Sums, make_row: Callable[[], SampleRow]) -> tuple[Rank, Callable[[], SampleRow]]:
        return self._order.rank(counted, make_row), make_row


def _median_us(seconds: list[float]) -> int:
    return round(float(np.median(seconds)) * 1e6)


def _make_row(tick: _MeasuredTick, number: int, counted: Sums, response_us: int | None) -> SampleRow:
    return _with_counters(_describe_row(tick, number), counted, response_us)


def _describe_row(tick: _MeasuredTick, number: int) -> SampleRow:
    # All keys except the counters.
    snapshot, raw = tick.snapshot, tick.changes.rows[number]
    born, established, ended = int(raw["born_ns"]), int(raw["established_ns"]), int(raw["ended_ns"])
    row: SampleRow = {name: _dimension_value(snapshot, name, number) for name in _SHOWN}
    latency = (established - born) // _US_NS if established and born and raw["direction"] == _OUT else None
    row["rtt_us"] = int(raw["srtt_us"]) or None
    row["connect_latency_us"] = latency
    row["lifetime_us"] = ((ended or snapshot.at_ns) - born) // _US_NS if born else None
    row["cookie"] = int(raw["cookie"])
    row[_IN_SOCKMAP] = bool(raw["flags"] & FLAG_SOCKMAP)
    return row


def _dimension_value(snapshot: Snapshot, name: str, number: int) -> str | int:
    if DIMENSIONS[name].kind is DimensionKind.ADDRESS:  # without a code: a code for each peer would cost memory
        upper, lower = snapshot.addresses[name][number].tolist()
        return "" if upper == lower == _NO_ADDRESS else address_text(upper, lower)
    return json_value(name, snapshot.names.text(name, int(snapshot.dimensions[name][number])))


def _with_counters(row: SampleRow, counted: NDArray[np.int64], response_us: int | None) -> SampleRow:
    changed: SampleRow = {**totals_by_counter(counted)}
    traffic, events = ({name: changed[name] for name in names} for names in (TRAFFIC_METRICS, _EVENTS))
    if row[_IN_SOCKMAP]:
        traffic |= dict.fromkeys(_BYTES)
    dimensions, rest = ({name: row[name] for name in names} for names in (_SHOWN, _TIMES))
    return {**dimensions, **traffic, **rest, **events, "response_latency_us": response_us}
