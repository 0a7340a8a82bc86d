"""The groups of a period, for `sample --by`: sums of all ticks by dimensions.

Memory grows with the groups of a tick, not with the number of ticks, of groups or of values. The watchdog's own row is
omitted.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import cast

import numpy as np
from numpy.typing import NDArray

from watchdog.measure.bounded_distribution import BoundedDistribution
from watchdog.measure.connection_metrics import is_of_namespace
from watchdog.measure.deltas import Changes
from watchdog.measure.ranked_rows import SampleRow, make_ranked_rows
from watchdog.measure.sample_sums import (
    COUNTERS,
    DISTRIBUTIONS,
    GAUGES,
    RowOrder,
    Sums,
    json_value,
    no_sums,
    totals_by_counter,
)
from watchdog.measure.snapshot import Numbers, Snapshot
from watchdog.measure.sorted_runs import SortedRuns

_MAX_PARTS_BYTES = 4 << 20  # of groups in memory
_GROUP_BYTES, _DISTRIBUTION_BYTES = 800, 400  # without values

GroupKey = tuple[str | int, ...]


@dataclass(slots=True)
class _GroupPart:
    # The sums of a group since its last part went to the temporary file.
    sums: Sums = field(default_factory=no_sums)
    distributions: dict[str, BoundedDistribution] = field(default_factory=dict)

    def add_part(self, part: object) -> None:
        sums, distributions = cast("tuple[list[int], dict[str, object]]", part)
        self.sums += np.array(sums)
        for name, values in distributions.items():
            self.distribution(name).add_part(values)

    def as_part(self) -> object:
        return self.sums.tolist(), {name: values.as_part() for name, values in self.distributions.items()}

    def distribution(self, name: str) -> BoundedDistribution:
        return self.distributions.setdefault(name, BoundedDistribution())

    def size(self) -> int:
        return _GROUP_BYTES + sum(_DISTRIBUTION_BYTES + values.size for values in self.distributions.values())


class GroupAggregate:
    """Adds ticks up by dimensions. Groups beyond some thousand go to a temporary file, and are added up at the end."""

    def __init__(self, dimensions: Sequence[str], limit: int = 0, sort: str = "") -> None:
        """Start empty; show the `limit` groups with most bytes, or first by the value `sort`, all groups if it is 0."""
        self._dimensions = tuple(dimensions)
        self._limit = limit
        self._order = RowOrder(sort)
        self._totals = no_sums()
        self._parts: dict[GroupKey, _GroupPart] = {}
        self._spilled = SortedRuns()
        self._newest: dict[GroupKey, int] = {}
        self._gauges = np.zeros((len(GAUGES), 0), np.int64)  # of the groups of the newest tick

    def add(self, changes: Changes, snapshot: Snapshot) -> None:
        """Add one tick, as `Meter.advance_with_changes` returns it. Do not add the first tick, the baseline.

        Raises:
            WatchdogError: the temporary file of many groups cannot be written.
        """
        metrics = changes.metrics
        count = len(changes.rows) - 1
        if set(self._dimensions) != {"netns"}:  # the only dimension of rows of namespaces, which come last
            count -= int(is_of_namespace(changes.rows[:count]).sum())
        codes = np.stack([snapshot.dimensions[name][:count] for name in self._dimensions], axis=1)
        unique, inverse = np.unique(codes, axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        sums, self._gauges = (
            np.array([np.bincount(inverse, metrics[name][:count], len(unique)) for name in names]).astype(np.int64)
            for names in (COUNTERS, GAUGES)
        )
        self._totals += sums.sum(axis=1)
        parts = self._parts_of(unique, snapshot)
        for number, part in enumerate(parts):
            part.sums += sums[:, number]
        for name in DISTRIBUTIONS:
            numbers = np.flatnonzero(~np.isnan(metrics[name][:count]))
            _add_values(parts, name, inverse[numbers], metrics[name][numbers])
        responses = changes.responses
        _add_values(parts, "response_latency", inverse[responses.rows], responses.seconds)
        self._spill(len(unique))

    def rows(self) -> Iterator[SampleRow]:
        """Yield one row per combination of the dimensions' values, in their order, at most `limit`.

        Counters are sums over the period, gauges have the last value, distributions have a summary in seconds.
        """
        ranked = make_ranked_rows(self._limit)
        for key, part in self._groups():
            make_row = partial(self._make_row, key, part)
            ranked.add(self._order.rank(part.sums, make_row), make_row)
        return (row for _, row in ranked)

    def row_count(self) -> int:
        """Return the number of groups, also of those beyond the limit."""
        return sum(1 for _ in self._groups())

    def totals(self) -> dict[str, int]:
        """Return the sums of all groups by counter, also of those beyond the limit."""
        return totals_by_counter(self._totals)

    def _parts_of(self, unique: NDArray[np.uint32], snapshot: Snapshot) -> list[_GroupPart]:
        # Different codes can have one text: two rows of `unique` are then one group.
        self._newest, parts = {}, []
        for number, codes in enumerate(unique.tolist()):
            named = zip(self._dimensions, codes, strict=True)
            key = tuple(json_value(name, snapshot.names.text(name, code)) for name, code in named)
            first = self._newest.setdefault(key, number)
            if first != number:
                self._gauges[:, first] += self._gauges[:, number]
            parts.append(self._parts.setdefault(key, _GroupPart()))
        return parts

    def _groups(self) -> Iterator[tuple[GroupKey, _GroupPart]]:
        in_memory = ((list(key), part.as_part()) for key, part in sorted(self._parts.items(), key=itemgetter(0)))
        for key, entries in groupby(heapq.merge(self._spilled, in_memory, key=itemgetter(0)), key=itemgetter(0)):
            whole = _GroupPart()
            for _, part in entries:
                whole.add_part(part)
            yield tuple(key), whole

    def _make_row(self, key: GroupKey, part: _GroupPart) -> SampleRow:
        number = self._newest.get(key)
        gauges = [0] * len(GAUGES) if number is None else self._gauges[:, number].tolist()
        row: SampleRow = dict(zip(self._dimensions, key, strict=True))
        row |= totals_by_counter(part.sums)
        row |= dict(zip(GAUGES, gauges, strict=True))
        return row | {name: _summary(part.distributions.get(name)) for name in DISTRIBUTIONS}

    def _spill(self, newest_groups: int) -> None:
        # Twice the groups of a tick have space, so that it is not all groups of every tick that are written.
        limit = max(_MAX_PARTS_BYTES, 2 * _GROUP_BYTES * newest_groups)
        if sum(part.size() for part in self._parts.values()) > limit:
            for key, part in self._parts.items():
                self._spilled.add(list(key), part.as_part())
            self._parts = {}


def _summary(values: BoundedDistribution | None) -> dict[str, float | int] | None:
    return values.summary() if values is not None else None


def _add_values(parts: Sequence[_GroupPart], name: str, owners: NDArray[np.intp], values: Numbers) -> None:
    # `owners`: (n,), index into `parts` of each of `values`, (n,).
    order = np.argsort(owners, kind="stable")
    owners, values = owners[order], values[order]
    firsts = np.flatnonzero(np.diff(owners, prepend=-1))
    for first, part_values in zip(firsts.tolist(), np.split(values, firsts[1:]), strict=False):
        parts[owners[first]].distribution(name).add(part_values)
