"""Values of rules with a window above an hour."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from watchdog.clock import SECOND_NS
from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers
from watchdog.rules.engine.aggregations import MetricReading
from watchdog.rules.engine.arithmetic import Bounds
from watchdog.rules.engine.groups import UNGROUPED_SLOT
from watchdog.rules.engine.long_window_table import LongWindowTable, Rows
from watchdog.rules.engine.view import View
from watchdog.rules.engine.window import RecentTicks, pack_tick_values
from watchdog.rules.language.expression import metrics_of
from watchdog.rules.language.rule import Rule, StatKind
from watchdog.rules.language.ruleset_hash import definition_digest

_UNKNOWN, _NO_ROOM = -1, -2
_MAX_LOOKED_UP = 4_096  # new groups in a tick
_EXTREMES: Final = (StatKind.MAX, StatKind.MIN)
_PER_SECOND: Final = (StatKind.RATE, StatKind.MEAN)


class LongCoverage:
    """The window of a `LongWindow`."""

    def __init__(self, window_ns: int) -> None:
        """Keep its length."""
        self.window_ns = window_ns


class LongWindow:
    """The values of one rule: of a tick alone in a view, of the window in a table."""

    def __init__(self, rule: Rule, view: View, per_tick: Callable[[], Numbers]) -> None:
        """Start with an empty table; `per_tick` returns a value for each group present in the newest snapshot."""
        self.view = view
        self.coverage = LongCoverage(rule.window_ns)
        self.table = LongWindowTable(definition_of(rule), rule.stat.kind, rule.window_ns, keeps_idle=keeps_idle(rule))
        self._rule = rule
        self._per_tick = per_tick
        self._recent = RecentTicks()
        self._rows = np.zeros(0, np.intp)  # by slot: row of the table, `_UNKNOWN` or `_NO_ROOM`
        self._followed = self.table
        self._room_version = 0

    def add_newest_tick(self) -> None:
        """Add the newest tick."""
        grouped, table = self.view.grouped, self.table
        table.advance(grouped.snapshot.at_ns, misses=self._misses())
        if not self._rule.by:
            table.find_or_add([()])  # the host, which is judged without any connection, too
        values = np.broadcast_to(self._per_tick(), len(grouped.present_slots))
        there = (values != 0) & (grouped.present_slots != UNGROUPED_SLOT)
        slots, values = grouped.present_slots[there], values[there]
        self._recent.push(pack_tick_values(grouped.snapshot.at_ns, slots, values))
        rows = self._table_rows(slots, values)
        table.add(rows[rows >= 0], values[rows >= 0])

    def _misses(self) -> bool:
        missing = self.view.missing(tuple(sorted(metrics_of(self._rule.metric))))
        return missing.everywhere > 0 or len(missing.slots) > 0

    def _table_rows(self, slots: Slots, values: Numbers) -> Rows:
        """Return the row of each of `slots`, below 0 without one; new groups get rows in order of their `values`."""
        groups, snapshot = self.view.groups, self.view.grouped.snapshot
        self._take_moves()
        if len(self._rows) < groups.capacity:
            self._rows = np.append(self._rows, np.full(groups.capacity - len(self._rows), _UNKNOWN, np.intp))
        self._rows[groups.new_slots] = _UNKNOWN
        unknown = self._rows[slots] == _UNKNOWN
        chosen = slots[unknown][np.argsort(-values[unknown], kind="stable")][:_MAX_LOOKED_UP]
        if len(chosen):
            texts = [groups.texts(slot, snapshot) if slot > UNGROUPED_SLOT else () for slot in chosen.tolist()]
            rows = self.table.find_or_add(texts)
            self._rows[chosen] = np.where(rows < 0, _NO_ROOM, rows)
        return self._rows[slots]

    def _take_moves(self) -> None:
        """Follow the table, whose rows get other numbers when groups leave it."""
        if self.table is not self._followed:
            self._rows[:], self._followed = _UNKNOWN, self.table
            self.table.take_moves()
        for moves in self.table.take_moves():
            there = self._rows >= 0
            self._rows[there] = moves[self._rows[there]]
        if self._room_version != self.table.room_version:
            self._room_version = self.table.room_version
            self._rows[self._rows == _NO_ROOM] = _UNKNOWN

    def row_values(self) -> Numbers:
        """Return the value of each row of the table."""
        values = self.table.values()
        if self._rule.stat.kind in _PER_SECOND:
            return values / max(self.table.covered_ns / SECOND_NS, 1.0)
        return values

    def values(self, slots: Slots, *, window_filled: bool) -> Numbers:  # noqa: ARG002 - time before the first tick has 0
        """Return the values of `slots`."""
        self._take_moves()
        if not len(self._rows):
            return np.zeros(len(slots))
        rows = np.where(slots < len(self._rows), self._rows[np.minimum(slots, len(self._rows) - 1)], -1)
        return np.where(rows >= 0, np.append(self.row_values(), 0.0)[rows], 0.0)

    @property
    def is_exact(self) -> bool:
        """Return True: losses of the window make the values lower bounds, see `long_window_judge.py`."""
        return True

    def bounds(self, slots: Slots, *, window_filled: bool) -> Bounds:
        """Return the values twice."""
        values = self.values(slots, window_filled=window_filled)
        return values, values

    def slots_beyond(self, threshold: float, *, above: bool, window_filled: bool) -> Slots:
        """Return the slots with a value above (below) `threshold`, of groups that had a row lately."""
        values = self.values(np.arange(self.view.groups.size, dtype=np.int32), window_filled=window_filled)
        return np.flatnonzero(values > threshold if above else values < threshold).astype(np.int32)

    slots_maybe_beyond = slots_beyond

    def history(self, slot: int, elapsed_ns: Mapping[int, int]) -> Numbers:
        """Return the value of `slot` in each of the newest ticks alone, per second, the oldest first."""
        ticks = [one for one in self._recent.entries if one.at_ns in elapsed_ns]
        if self._rule.stat.kind in _EXTREMES:
            return np.array([one.value_of(slot) for one in ticks])
        return np.array([one.value_of(slot) * SECOND_NS / elapsed_ns[one.at_ns] for one in ticks])

    def volumes(self, slots: Slots) -> Numbers:
        """Return the values of `slots`, which are amounts."""
        return self.values(slots, window_filled=True)

    def readings(self, slot: int, tick: Mapping[int, int]) -> list[MetricReading]:
        """Return the value of `slot`, as `Aggregation.readings`."""
        newest = self.history(slot, tick)
        value = float(self.values(np.array([slot], dtype=np.int32), window_filled=True)[0])
        name, statistic = min(metrics_of(self._rule.metric)), self._rule.stat.text
        return [MetricReading(name, statistic, value, float(newest[-1]) if len(newest) else None)]


def keeps_idle(rule: Rule) -> bool:
    """Return whether groups without traffic stay to be judged: they are news below a level."""
    return not rule.thresholds.above


def definition_of(rule: Rule) -> str:
    """Return a digest of the keys that decide on the values of a rule."""
    return definition_digest(rule.metric, rule.stat, rule.window_ns, rule.by, rule.where)
