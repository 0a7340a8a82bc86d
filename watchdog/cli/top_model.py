"""The state of `top`: rows in their order, the selected one, sort, filter, history; it draws and reads nothing."""

from __future__ import annotations

import shlex
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from watchdog.cli.sample_columns import sort_key
from watchdog.cli.top_columns import Row, top_columns
from watchdog.cli.top_filter import exact_matcher
from watchdog.control.traffic_handler import Traffic
from watchdog.errors import UsageError
from watchdog.measure.traffic_rows import Cell, TrafficQuery
from watchdog.measure.traffic_view import SUMMED, TopView

HISTORY: Final = 30
"""Ticks of which the numbers of each row are kept."""
MAX_SHOWN_ROWS: Final = 300
"""Rows that are asked for; a frozen list keeps further ones that have gone, `_MAX_FROZEN` in all."""

_MAX_FROZEN = 1_000
_SAMPLE_DIMENSIONS: Final = {
    TopView.PROCESSES: ("process", "pid"),
    TopView.UNITS: ("unit", "container"),
    TopView.PEERS: ("remote",),
}
_RTT = ("rtt", "rtt.p99")
Key = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class TopQuery:
    """The rows that are asked for; `where`: matchers, as of `sample --where`."""

    traffic: TrafficQuery
    where: tuple[str, ...]


@dataclass(slots=True)
class _Sort:
    column: str = ""  # "" for bytes in both directions
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class _List:
    # The list to which the detail of a process returns.
    view: TopView
    selected: Key | None
    rows: dict[Key, Row]
    history: deque[dict[Key, array[float]]]


class TopModel:
    """Keys and answers change it. `rows`: by key, in their order; those in `gone` have ended, and their row is old."""

    def __init__(self, view: TopView, where: tuple[str, ...]) -> None:
        """Start without rows. `where`: matchers of the filter."""
        self.view = view
        self.where = where
        self.traffic: Traffic | None = None
        self.rows: dict[Key, Row] = {}
        self.gone: set[Key] = set()
        self.selected: Key | None = None
        self.is_paused = self.is_frozen = False
        self.process: tuple[int, str] | None = None  # pid and name of the process in detail
        self._sorts = {each: _Sort() for each in TopView}
        self._history: deque[dict[Key, array[float]]] = deque(maxlen=HISTORY)
        self._before_process: _List | None = None
        self._selected_index = 0  # of the selected row when it was last there
        self._awaits_answer = True  # to the present query, also while the list is paused

    @property
    def sort(self) -> str:
        """Return the column of the order, "" for bytes in both directions."""
        return self._sorts[self.view].column

    @property
    def is_reverse(self) -> bool:
        """Return whether the smallest number is first."""
        return self._sorts[self.view].reverse

    def query(self) -> TopQuery:
        """Return the query for the present view, sort and filter."""
        where = self.where if self.process is None else (f"pid={self.process[0]}",)
        return TopQuery(TrafficQuery(self.view, self.sort, self.is_reverse, MAX_SHOWN_ROWS), where)

    def take(self, query: TopQuery, traffic: Traffic) -> None:
        """Take an answer, unless it is one to a former query, or the list is paused."""
        if query != self.query() or (self.is_paused and not self._awaits_answer):
            return
        self._awaits_answer = False
        is_same_tick = self.traffic is not None and self.traffic.at_ns == traffic.at_ns
        self.traffic = traffic
        columns, identity = self.view.columns, self.view.identity
        fresh: dict[Key, Row] = {}
        for cells in traffic.rows:
            row = dict(zip(columns, cells, strict=True))
            key = tuple(row[name] for name in identity)
            self._keep_rtt(key, row)
            fresh[key] = row
        if is_same_tick and self._history:
            self._history.pop()
        self._history.append({key: array("f", (_number(row[name]) for name in SUMMED)) for key, row in fresh.items()})
        if self.selected in self.rows:
            self._selected_index = list(self.rows).index(self.selected)
        self.gone = set()
        if self.is_frozen:
            kept = list(self.rows.items())[:_MAX_FROZEN]
            self.gone = {key for key, _ in kept if key not in fresh}
            fresh = {key: fresh.get(key, row) for key, row in kept} | fresh
        self.rows = fresh

    def history(self, key: Key) -> list[float | None]:
        """Return the numbers of a row in the newest ticks, the oldest first; None for a tick without the row.

        They are those of the sorted column if it is one of `SUMMED`, else bytes in both directions.
        """
        names = (self.sort,) if self.sort in SUMMED else ("bytes_sent", "bytes_received")
        indices = [SUMMED.index(name) for name in names]
        ticks = (tick.get(key) for tick in self._history)
        return [None if numbers is None else sum(numbers[index] for index in indices) for numbers in ticks]

    def show(self, view: TopView) -> None:
        """Show another view, with the same filter."""
        if view is not self.view:
            self.view = view
            self._forget_rows()

    def set_filter(self, matchers: tuple[str, ...]) -> None:
        """Show only rows that meet these matchers."""
        self.where = matchers
        self._forget_rows()

    def move_sort(self, step: int) -> None:
        """Sort by the column `step` to the right of the present one; beside the ends is the order by bytes."""
        keys = ["", *(column.key for column in top_columns(self.view, self.sort).columns)]
        self._sorts[self.view] = _Sort(keys[(keys.index(self.sort) + step) % len(keys)])
        self._reorder()

    def turn_sort(self) -> None:
        """Reverse the order."""
        sort = self._sorts[self.view]
        sort.reverse = not sort.reverse
        self._reorder()

    def toggle_paused(self) -> None:
        """Stop the numbers, or let them go on."""
        self.is_paused = not self.is_paused

    def toggle_frozen(self) -> None:
        """Freeze the order of the rows, or let it go."""
        self.is_frozen = not self.is_frozen

    def move(self, step: int) -> None:
        """Select the row `step` below the selected one; if that has gone, the one in its place."""
        keys = list(self.rows)
        if not keys:
            return
        if self.selected not in self.rows:
            self.selected = keys[min(self._selected_index, len(keys) - 1)]
            return
        self.selected = keys[max(0, min(len(keys) - 1, keys.index(self.selected) + step))]

    def open_selected(self) -> str:
        """Show the sockets of the process of the selected row; of a unit or peer, its connections.

        Return the reason why not, "" for none.
        """
        row = self.rows.get(self.selected) if self.selected is not None else None
        if row is None:
            return "no row is selected: Up and Down select one"
        if self.view in {TopView.UNITS, TopView.PEERS}:
            self.where = (
                *(one for one in self.where if one.partition("=")[0] not in self.view.identity),
                *(exact_matcher(name, str(row[name])) for name in self.view.identity if row[name] != ""),
            )
            self.show(TopView.CONNECTIONS)
        elif self.process is None:
            if not row["pid"]:
                return "no process is known of this row"
            self._before_process = _List(self.view, self.selected, self.rows, self._history.copy())
            self.process = int(row["pid"]), str(row["process"])
            self.is_paused = False
            self.show(TopView.SOCKETS)
        return ""

    def close_process(self) -> None:
        """Return from the detail of a process to the list, with the rows that it had."""
        before = self._before_process
        if before is not None:
            self.process = self._before_process = None
            self.show(before.view)
            self.selected, self.rows = before.selected, before.rows
            self._history.extend(before.history)

    def command(self) -> str:
        """Return the command that shows the same rows outside, for a shell."""
        query = self.query()
        words = ["bpf-watchdog", "sample"]
        dimensions = _SAMPLE_DIMENSIONS.get(self.view, ())
        if dimensions:
            words += ["--by", ",".join(dimensions)]
        for matcher in query.where:
            words += ["--where", matcher]
        if self.sort and _is_sample_column(self.sort, dimensions):
            words += ["--sort", self.sort]
        return shlex.join(words)

    def _reorder(self) -> None:
        self.is_frozen, self._awaits_answer = False, True

    def _forget_rows(self) -> None:
        self.rows, self.gone, self.selected, self.traffic = {}, set(), None, None
        self._selected_index = 0
        self._history.clear()
        self._reorder()

    def _keep_rtt(self, key: Key, row: dict[str, Cell]) -> None:
        # A connection has a round-trip time in ticks in which it received something: the last one is shown.
        for name in _RTT:
            if name in row and row[name] is None and key in self.rows:
                row[name] = self.rows[key][name]


def _is_sample_column(name: str, dimensions: Sequence[str]) -> bool:
    try:
        sort_key(name, dimensions, messages=False)
    except UsageError:
        return False
    return True


def _number(value: Cell) -> float:
    return value if isinstance(value, int | float) else 0.0
