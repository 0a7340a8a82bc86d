"""Rows of `sample` in the order of its output, most bytes or the given column first, in bounded memory."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from typing import Protocol

from watchdog.measure.sorted_runs import SortedRuns

SampleRow = dict[str, object]
Rank = tuple[float, ...]
"""Bytes in both directions, handshakes completed; before them, with a column to sort by, that of its value."""


def row_value(row: SampleRow, name: str) -> object:
    """Return the value of `row` at `name`, "response_latency.p99" for a part of a summary; None without a value."""
    metric, _, part = name.partition(".")
    value = row[metric]
    return value.get(part) if part and isinstance(value, dict) else value


def value_rank(value: object) -> Rank:
    """Return the rank of a row by one value: the greatest number, or the first text, is first; no value is last."""
    if value is None or value == "":
        return (-math.inf,)
    if isinstance(value, int | float):
        return (value,)
    return (*(-ord(character) for character in str(value)), 1)  # the end of a text, so that a prefix is first


class RankedRows(Protocol):
    """Rows with their ranks."""

    def add(self, rank: Rank, make_row: Callable[[], SampleRow]) -> None:
        """Add the row of `make_row`, which is called only if the row can be shown."""
        ...

    def __iter__(self) -> Iterator[tuple[Rank, SampleRow]]:
        """Yield ranks and rows, the highest rank first."""
        ...


class TopRows:
    """The `limit` rows with the highest ranks; of equal rows, the first ones."""

    def __init__(self, limit: int) -> None:
        """Start empty."""
        self._limit = limit
        self._added = 0
        self._heap: list[tuple[Rank, int, SampleRow]] = []  # the number makes each entry unique

    def add(self, rank: Rank, make_row: Callable[[], SampleRow]) -> None:
        """Add one row; a row with a lower rank than `limit` others is not made."""
        self._added += 1
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, (rank, -self._added, make_row()))
        elif rank > self._heap[0][0]:
            heapq.heapreplace(self._heap, (rank, -self._added, make_row()))

    def __iter__(self) -> Iterator[tuple[Rank, SampleRow]]:
        """Yield ranks and rows, the highest rank first."""
        return ((rank, row) for rank, _, row in sorted(self._heap, key=lambda entry: entry[:2], reverse=True))


class AllRows:
    """All rows: some thousand in memory, the others in a temporary file."""

    def __init__(self) -> None:
        """Start empty."""
        self._runs = SortedRuns()

    def add(self, rank: Rank, make_row: Callable[[], SampleRow]) -> None:
        """Add one row.

        Raises:
            WatchdogError: the temporary file cannot be written.
        """
        self._runs.add([-number for number in rank], make_row())

    def __iter__(self) -> Iterator[tuple[Rank, SampleRow]]:
        """Yield ranks and rows, the highest rank first."""
        return ((tuple(-number for number in key), row) for key, row in self._runs)


def make_ranked_rows(limit: int) -> RankedRows:
    """Return a container for the `limit` first rows, for all rows if it is 0."""
    return TopRows(limit) if limit else AllRows()
