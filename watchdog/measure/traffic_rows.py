"""Rows of the traffic of one tick, for `top`: connections, or sums by process, unit or peer; counters per second.

A snapshot has columns that are made in its tick only: `keep_columns` makes those that rows need, so that they can be
built at a later time, in another thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watchdog.clock import SECOND_NS
from watchdog.measure.catalogue import (
    ABSENT_CODE,
    DIMENSIONS,
    HOST_DIMENSIONS,
    METRICS,
    TRAFFIC_METRICS,
    DimensionKind,
    MetricKind,
    is_number,
)
from watchdog.measure.connection_metrics import LISTEN
from watchdog.measure.interning import address_text
from watchdog.measure.snapshot import Numbers, Snapshot
from watchdog.measure.traffic_view import SUMMED, TopView

MAX_ROWS: Final = 1_000
"""Rows of a table at most."""

_KEPT_METRICS = (*SUMMED, "rtt")
_ADDRESSES = tuple(name for name, one in DIMENSIONS.items() if one.kind is DimensionKind.ADDRESS)
_KEPT_DIMENSIONS = tuple(name for name in HOST_DIMENSIONS if name not in _ADDRESSES)
_BYTES = ("bytes_sent", "bytes_received")
_NO_ADDRESS = np.uint64(2**64 - 1)  # in both halves
_HIGH_SHARE = 0.99

_Index = NDArray[np.intp]
Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class TrafficQuery:
    """Which rows: those of `view`, in the order of the column `sort`, "" for bytes in both directions.

    The greatest number, or the first text, is first; with `reverse`, the last. `limit`: rows at most.
    """

    view: TopView
    sort: str = ""
    reverse: bool = False
    limit: int = MAX_ROWS


@dataclass(frozen=True, slots=True)
class TrafficTable:
    """The first rows of a tick. `rows`: each with a value per column of `view.columns`, None for no value.

    Counters are per second, gauges are of the end of the tick, times are in seconds. `row_count`: number of rows, also
    of those beyond the limit. `totals`: of each of `SUMMED` over all rows.
    """

    rows: list[list[Cell]]
    row_count: int
    totals: dict[str, float]


def keep_columns(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot with the columns that conditions and `traffic_table` need. Call it in the snapshot's tick."""
    return replace(
        snapshot,
        dimensions={name: snapshot.dimensions[name] for name in _KEPT_DIMENSIONS},
        metrics={name: snapshot.metrics[name] for name in _KEPT_METRICS},
        addresses={name: snapshot.addresses[name] for name in _ADDRESSES},
    )


def traffic_table(snapshot: Snapshot, query: TrafficQuery, mask: NDArray[np.bool_] | None) -> TrafficTable:
    """Return the rows of `snapshot`; `mask`: of the rows of the snapshot that count, None for all."""
    selected = snapshot.dimensions["pid"] != ABSENT_CODE  # without the watchdog's own counts, and those of namespaces
    if query.view is TopView.CONNECTIONS:
        selected = selected & (snapshot.dimensions["state"] != LISTEN)
    rows = np.flatnonzero(selected if mask is None else selected & mask)
    groups = _Groups(snapshot, query.view, rows)
    order = groups.order(query.sort, reverse=query.reverse)[: min(query.limit, MAX_ROWS)]
    cells = [groups.cells(name, order) for name in query.view.columns]
    totals = {name: float(groups.numbers(name).sum()) for name in SUMMED}
    return TrafficTable([list(row) for row in zip(*cells, strict=True)], groups.count, totals)


class _Groups:
    """The rows `rows` of a snapshot, (r,), by equal identity. `count`: number of groups, g."""

    def __init__(self, snapshot: Snapshot, view: TopView, rows: _Index) -> None:
        self._snapshot = snapshot
        self._rows = rows
        self._numbers: dict[str, Numbers] = {}
        keys: list[NDArray[np.unsignedinteger]] = []
        for name in view.identity:
            keys += self._key_columns(name, rows)
        order = np.lexsort(keys)
        is_first = np.ones(len(rows), np.bool_)
        is_first[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
        self._group: _Index = np.empty(len(rows), np.intp)  # of each row
        self._group[order] = np.cumsum(is_first) - 1
        self._first = rows[order[is_first]]  # one row of each group, for the dimensions that all of its rows share
        self.count = len(self._first)

    def numbers(self, name: str) -> Numbers:
        """Return the values of a metric, or of a dimension of numbers, (g,); NaN for none."""
        if name in DIMENSIONS:
            return self._snapshot.dimensions[name][self._first].astype(np.float64)
        if name not in self._numbers:
            self._numbers[name] = self._rtt() if name.startswith("rtt") else self._sums(name)
        return self._numbers[name]

    def order(self, sort: str, *, reverse: bool) -> _Index:
        """Return the groups in the order of a column, then by bytes in both directions."""
        volume = -(self.numbers("bytes_sent") + self.numbers("bytes_received"))
        if not sort:
            return np.argsort(-volume if reverse else volume, kind="stable")
        if is_number(sort):
            values = self.numbers(sort)
            signed = np.where(np.isnan(values), np.inf, values if reverse else -values)
            return np.lexsort([volume, signed])
        keys = self._text_ranks(sort) if sort not in _ADDRESSES else self._key_columns(sort, self._first)
        ranks = np.empty(self.count, np.int64)
        by_value = np.lexsort(keys)
        changed = np.ones(self.count, np.bool_)
        changed[1:] = np.any([key[by_value][1:] != key[by_value][:-1] for key in keys], axis=0)
        ranks[by_value] = np.cumsum(changed)
        return np.lexsort([volume, -ranks if reverse else ranks])

    def cells(self, name: str, order: _Index) -> list[Cell]:
        """Return the values of a column for the groups of `order`, as JSON holds them."""
        if name in DIMENSIONS:
            text = self._text_of(name)
            return [int(text(row)) if is_number(name) else text(row) for row in self._first[order].tolist()]
        return [None if value != value else round(value, 9) for value in self.numbers(name)[order].tolist()]  # noqa: PLR0124 - NaN

    def _key_columns(self, name: str, rows: _Index) -> Sequence[NDArray[np.unsignedinteger]]:
        if name not in _ADDRESSES:
            return [self._snapshot.dimensions[name][rows]]
        halves = self._snapshot.addresses[name][rows]
        return [halves[:, 1], halves[:, 0]]  # the last key of lexsort is the first to compare

    def _text_ranks(self, name: str) -> Sequence[NDArray[np.unsignedinteger]]:
        codes = self._snapshot.dimensions[name][self._first]
        unique, inverse = np.unique(codes, return_inverse=True)
        texts = [self._snapshot.names.text(name, code) for code in unique.tolist()]
        ranks = {text: number for number, text in enumerate(sorted(set(texts), key=lambda text: (not text, text)))}
        return [np.array([ranks[text] for text in texts], np.uint32)[inverse.reshape(-1)]]

    def _text_of(self, name: str) -> Callable[[int], str]:
        if name not in _ADDRESSES:
            codes = self._snapshot.dimensions[name]
            return lambda row: self._snapshot.names.text(name, int(codes[row]))
        halves = self._snapshot.addresses[name]
        return lambda row: "" if (halves[row] == _NO_ADDRESS).all() else address_text(*halves[row].tolist())

    def _sums(self, name: str) -> Numbers:
        values = self._snapshot.metrics[name]
        if METRICS[name].kind is MetricKind.COUNTER:
            values = _per_second(self._snapshot, name, values)
        return np.bincount(self._group, values[self._rows], self.count).astype(np.float64, copy=False)

    def _rtt(self) -> Numbers:
        # The value at or above 99 % of the connections of a group: of a single one, its own.
        values = self._snapshot.metrics["rtt"][self._rows]
        known = np.flatnonzero(~np.isnan(values))
        result = np.full(self.count, np.nan)
        if len(known):
            group, values = self._group[known], values[known]
            order = np.lexsort([values, group])
            counts = np.bincount(group, minlength=self.count)
            starts = np.cumsum(counts) - counts
            present = np.flatnonzero(counts)
            last = np.ceil(counts[present] * _HIGH_SHARE).astype(np.intp) - 1
            result[present] = values[order[starts[present] + last]]
        return result


def _per_second(snapshot: Snapshot, name: str, values: Numbers) -> Numbers:
    # Late traffic is of the whole time since its connection was last seen.
    if not snapshot.elapsed_ns:
        return np.zeros(len(values))
    rates = values * (SECOND_NS / snapshot.elapsed_ns)
    late = snapshot.late
    if name in TRAFFIC_METRICS and len(late.rows):
        longer = np.maximum(late.unseen_ns, snapshot.elapsed_ns)
        rates[late.rows] = values[late.rows] * (SECOND_NS / longer)
    return rates
