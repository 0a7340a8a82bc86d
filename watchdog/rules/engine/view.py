"""Views: the rows of a snapshot grouped by one `by` and selected by one `where`, shared by all rules with both."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from watchdog.measure.catalogue import (
    DIRECTIONS,
    HOST_DIMENSIONS,
    METRICS,
    OTHER_CODE,
    TRAFFIC_METRICS,
    UNKNOWN_CODE,
    DimensionKind,
    MetricKind,
)
from watchdog.measure.loss_bounds import missing_amount
from watchdog.measure.slot_table import NEVER_NS, Slots
from watchdog.measure.snapshot import Numbers, Snapshot
from watchdog.rules.engine.groups import GroupScope, GroupSlots
from watchdog.rules.engine.late_traffic import Ages, age_steps, past_values, spread
from watchdog.rules.engine.missing import NOTHING_MISSING, MissingAmounts
from watchdog.rules.engine.selection import Exclusion, Mask, Selection
from watchdog.rules.engine.window import TickValues, tick_weight_ms
from watchdog.rules.language.rule import Condition

_NAMES = frozenset(name for name, entry in HOST_DIMENSIONS.items() if entry.kind is DimensionKind.NAME)


class GroupedSnapshot:
    """One snapshot, grouped by one `by`.

    `present_slots`: the distinct slots in rising order. `group_index`: (n,), for each row its index into it.
    `lost_rows`: indices of the rows without a known group, or without room for it.
    """

    def __init__(
        self, snapshot: Snapshot, present_slots: Slots, group_index: Slots, lost_rows: NDArray[np.intp]
    ) -> None:
        """Keep all of them."""
        self.snapshot = snapshot
        self.present_slots = present_slots
        self.group_index = group_index
        self.lost_rows = lost_rows

    @cached_property
    def has_losses(self) -> bool:
        """Return whether any row lost a value, or has no known group, or counts too little."""
        snapshot = self.snapshot
        undercounted = any(len(one.rows) for one in snapshot.undercounted)
        return bool(len(self.group_index) and (len(snapshot.partial) or len(self.lost_rows) or undercounted))

    @cached_property
    def row_order(self) -> NDArray[np.intp]:
        """Return the rows in rising order of their slots."""
        return np.argsort(self.group_index)

    @cached_property
    def ordered_slots(self) -> Slots:
        """Return the slots of the rows, in `row_order`."""
        return self.present_slots[self.group_index[self.row_order]]


def group_snapshot(groups: GroupSlots, snapshot: Snapshot, retention_ns: int, selection: Selection) -> GroupedSnapshot:
    """Return `snapshot` with the group of every row. Without measured time it is a baseline: its rows do not count."""
    if not snapshot.elapsed_ns:
        nothing = np.zeros(0, dtype=np.int32)
        return GroupedSnapshot(snapshot, nothing, nothing, np.zeros(0, np.intp))
    inside = None if groups.scope is None else _rows_inside(groups.scope, snapshot, selection)
    slots = groups.assign(snapshot, retention_ns, inside)
    seen = np.zeros(groups.size, dtype=np.bool_)
    seen[slots] = True
    present_slots = np.flatnonzero(seen).astype(np.int32)
    position = np.zeros(groups.size, dtype=np.int32)
    position[present_slots] = np.arange(len(present_slots), dtype=np.int32)
    return GroupedSnapshot(snapshot, present_slots, position[slots], _lost_rows(groups, snapshot))


def _rows_inside(scope: GroupScope, snapshot: Snapshot, selection: Selection) -> Mask | None:
    inside = selection.mask(snapshot, scope.where)
    if scope.metric is None:
        return inside
    values = snapshot.metrics[scope.metric]
    is_distribution = METRICS[scope.metric].kind is MetricKind.DISTRIBUTION
    counted: Mask = ~np.isnan(values) if is_distribution else values != 0
    return counted if inside is None else counted & inside


def _lost_rows(groups: GroupSlots, snapshot: Snapshot) -> NDArray[np.intp]:
    """Return the rows that can belong to any group: also those of owners without any known name."""
    if not len(snapshot.partial) or not _NAMES.intersection(groups.by):
        return groups.lost_rows
    nameless = [snapshot.dimensions[name][snapshot.partial] == OTHER_CODE for name in sorted(_NAMES)]
    return np.union1d(groups.lost_rows, snapshot.partial[np.all(nameless, axis=0)])


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Rows of the newest tick: of the host, those that meet `where`, and those of these in one group."""

    host: int
    selected: int
    group: int


class View:
    """The rows of the newest snapshot under one `by`, one `where` and its exclusions."""

    def __init__(
        self, groups: GroupSlots, where: tuple[Condition, ...], exclusions: tuple[Exclusion, ...] = ()
    ) -> None:
        """Start without a snapshot."""
        self.groups = groups
        self.where = where
        self.exclusions = exclusions
        self.unused_exclusions = set(exclusions)  # those that no row has met that met `where`
        self.grouped: GroupedSnapshot  # the newest snapshot, grouped; between `load` and `release` only
        self.notes_selected = False  # whether `load` notes the groups with a row that meets `where`
        self.has_matched = False  # whether any row has met `where` so far
        self._is_selected: Mask | None = None  # made when it is asked for, until the next `load`
        self._newest: tuple[Slots, Slots, Mask | None] | None = None  # present slots, group index, mask; kept
        self._mask: Mask | None = None
        self._selected_ns = np.zeros(0, np.int64)  # by slot: time of the newest row that meets `where`
        self._possible: Mask | None = None  # of the partial rows

    def load(self, current: GroupedSnapshot, selection: Selection) -> None:
        """Take the newest snapshot, already grouped."""
        self.grouped = current
        self._mask = self._counted_rows(current, selection) if len(current.group_index) else None
        self._is_selected = None
        self._newest = current.present_slots, current.group_index, self._mask
        self.has_matched = self.has_matched or self._has_selected_rows()
        partial = current.snapshot.partial
        if len(current.group_index) and len(partial):
            self._possible = selection.possible(current.snapshot, self.where, partial, self.exclusions)
        if (self.where or self.exclusions) and self.notes_selected:
            self._note_selected()
        else:
            self._selected_ns = self._selected_ns[:0]

    def _counted_rows(self, current: GroupedSnapshot, selection: Selection) -> Mask | None:
        for exclusion in list(self.unused_exclusions):
            excluded = selection.mask(current.snapshot, (*self.where, *exclusion))
            if excluded is not None and excluded.any():
                self.unused_exclusions.discard(exclusion)
        return selection.counted(current.snapshot, self.where, self.exclusions)

    def _has_selected_rows(self) -> bool:
        return bool(len(self.grouped.group_index)) and (self._mask is None or bool(self._mask.any()))

    def count_rows(self, slot: int) -> RowCounts:
        """Return the rows of the newest tick, and those in the group of `slot`."""
        if self._newest is None:
            return RowCounts(0, 0, 0)
        present_slots, group_index, mask = self._newest
        position = int(present_slots.searchsorted(slot))
        in_group = group_index == (position if slot in present_slots[position : position + 1] else -1)
        if mask is None:
            return RowCounts(len(group_index), len(group_index), int(in_group.sum()))
        return RowCounts(len(group_index), int(mask.sum()), int((in_group & mask).sum()))

    def is_selected(self) -> Mask:
        """Return a mask of all slots: those with a row that meets `where` in the newest tick."""
        if self._is_selected is None:
            selected = np.zeros(self.groups.size, dtype=np.bool_)
            if self._newest is not None:
                present_slots, group_index, mask = self._newest
                selected[present_slots if mask is None else present_slots[group_index[mask]]] = True
            self._is_selected = selected
        return self._is_selected

    def selected_ns(self, slots: Slots) -> NDArray[np.int64]:
        """Return the time of the newest row of each slot that meets `where`, `NEVER_NS` where none is known.

        Rows of ticks without `notes_selected` are not known, except without `where`.
        """
        if not (self.where or self.exclusions):
            return self.groups.seen_ns(slots)
        found = np.full(len(slots), NEVER_NS)
        known = (slots < len(self._selected_ns)) & self.groups.seen_since(slots, NEVER_NS)
        found[known] = self._selected_ns[slots[known]]
        return found

    def _note_selected(self) -> None:
        grouped = self.grouped
        self._selected_ns = _grown(self._selected_ns, self.groups.capacity)
        if self._mask is not None:
            self._selected_ns[self.groups.new_slots] = NEVER_NS
            self._selected_ns[grouped.present_slots[grouped.group_index[self._mask]]] = grouped.snapshot.at_ns

    def release(self) -> None:
        """Release the snapshot."""
        del self.grouped
        self._mask = self._possible = None

    def sums(self, metric: str) -> Numbers:
        """Return one whole number for each group present.

        Counters: the sum of changes; gauges: the sum of values times the tick's weight; distributions: the sum in ns.
        """
        grouped = self.grouped
        if not len(grouped.group_index):
            return np.zeros(0)
        column = grouped.snapshot.metrics[metric]
        match METRICS[metric].kind:
            case MetricKind.DISTRIBUTION:
                column = np.rint(np.nan_to_num(column) * 1e9)
            case MetricKind.GAUGE:
                column = column * tick_weight_ms(grouped.snapshot.elapsed_ns)
            case MetricKind.COUNTER:
                pass
        if self._mask is not None:
            column = column * self._mask
        return np.asarray(
            np.bincount(grouped.group_index, weights=column, minlength=len(grouped.present_slots)), dtype=np.float64
        )

    def current_sums(self, metric: str) -> Numbers:
        """Return `sums` without the part of late traffic that belongs to earlier ticks."""
        sums = self.sums(metric)
        if not self._is_late(metric):
            return sums
        _, groups, parts = self._late_parts(metric)
        return sums - np.bincount(groups, weights=parts[1:].sum(axis=0), minlength=len(sums))

    def earlier_sums(self, metric: str) -> Sequence[TickValues]:
        """Return the part of late traffic that belongs to earlier ticks."""
        if not self._is_late(metric):
            return ()
        ends_ns, groups, parts = self._late_parts(metric)
        return past_values(self.grouped.snapshot.at_ns, ends_ns, self.grouped.present_slots[groups], parts)

    def _is_late(self, metric: str) -> bool:
        snapshot = self.grouped.snapshot
        return metric in TRAFFIC_METRICS and snapshot.elapsed_ns > 0 and len(snapshot.late.rows) > 0

    def _late_parts(self, metric: str) -> tuple[Ages, Slots, Numbers]:
        """Return the ends of the steps, and of each late row the group, an index, and the parts by step."""
        grouped, late = self.grouped, self.grouped.snapshot.late
        values = grouped.snapshot.metrics[metric][late.rows]
        if self._mask is not None:
            values = values * self._mask[late.rows]
        ends_ns = age_steps(grouped.snapshot.elapsed_ns, int(late.unseen_ns.max()))
        return ends_ns, grouped.group_index[late.rows], spread(values, late.unseen_ns, ends_ns)

    def counts(self, metric: str) -> Numbers:
        """Return the number of values of the distribution `metric` of each group present."""
        grouped = self.grouped
        if not len(grouped.group_index):
            return np.zeros(0)
        return np.bincount(
            grouped.group_index[self._rows_with_value(metric)], minlength=len(grouped.present_slots)
        ).astype(np.float64)

    def samples(self, metric: str) -> tuple[Slots, Numbers]:
        """Return slot and value of each value of the distribution `metric`, in rising order of slots."""
        grouped = self.grouped
        if not len(grouped.group_index):
            return np.zeros(0, dtype=np.int32), np.zeros(0)
        values = grouped.snapshot.metrics[metric][grouped.row_order]
        wanted = self._rows_with_value(metric)[grouped.row_order]
        if wanted.all():  # one array of slots for all metrics
            return grouped.ordered_slots, values
        return grouped.ordered_slots[wanted], values[wanted]

    def missing(self, metrics: Collection[str]) -> MissingAmounts:
        """Return the amounts that this tick can miss of `metrics`; of distributions, the numbers of values."""
        grouped, snapshot = self.grouped, self.grouped.snapshot
        everywhere = float(sum(missing_amount(snapshot.quality, metric) for metric in metrics))
        if not grouped.has_losses:
            return MissingAmounts(NOTHING_MISSING.slots, NOTHING_MISSING.amounts, everywhere)
        parts = [part for metric in metrics for part in self._missing_by_row(metric)]
        row = np.concatenate([np.zeros(0, np.intp), *(rows for rows, _ in parts)])
        amount = np.concatenate([np.zeros(0), *(amounts for _, amounts in parts)])
        row, amount = row[amount > 0], amount[amount > 0]
        if not len(row):
            return MissingAmounts(NOTHING_MISSING.slots, NOTHING_MISSING.amounts, everywhere)
        without_group = np.isin(row, grouped.lost_rows)
        everywhere += float(amount[without_group].sum())
        slots, index = np.unique(grouped.group_index[row[~without_group]], return_inverse=True)
        sums = np.bincount(index, weights=amount[~without_group], minlength=len(slots)).astype(np.float64)
        return MissingAmounts(grouped.present_slots[slots], sums, everywhere)

    def _missing_by_row(self, metric: str) -> Iterator[tuple[NDArray[np.intp], Numbers]]:
        """Yield rows with the amount of `metric` that their group, or every group, can miss."""
        grouped, snapshot = self.grouped, self.grouped.snapshot
        selected = np.ones(len(snapshot), np.bool_) if self._mask is None else self._mask
        for undercounted in snapshot.undercounted:
            if metric in undercounted.metrics:
                rows = undercounted.rows[self._may_count(undercounted.rows, selected)]
                yield rows, np.full(len(rows), np.inf)
        partial = snapshot.partial
        possible = np.zeros(0, np.bool_) if self._possible is None else self._possible
        unsure = partial[possible & (~selected[partial] | np.isin(partial, grouped.lost_rows))]
        without_room = grouped.lost_rows[selected[grouped.lost_rows] & ~np.isin(grouped.lost_rows, partial)]
        rows = np.concatenate([unsure, without_room])
        values = snapshot.metrics[metric][rows]
        if METRICS[metric].kind is MetricKind.DISTRIBUTION:
            yield rows, (~np.isnan(values)).astype(np.float64)
            yield self._folded_values(metric, partial[possible])
        else:
            yield rows, np.maximum(values, 0)

    def _may_count(self, rows: NDArray[np.intp], selected: Mask) -> Mask:
        """Return a mask of `rows`: those that are selected, or may be."""
        if self._possible is None:
            return selected[rows]
        return selected[rows] | np.isin(rows, self.grouped.snapshot.partial[self._possible])

    def _folded_values(self, metric: str, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], Numbers]:
        """Return the rows of connections folded into sums, and the number of values of a distribution lost in each."""
        snapshot = self.grouped.snapshot
        rows = rows[snapshot.dimensions["local_port"][rows] == UNKNOWN_CODE]
        closes = snapshot.metrics["closes"][rows]
        connections = np.maximum(closes, snapshot.metrics["lost_connections"][rows])
        match metric:
            case "accept_queue":  # of listeners, which have rows of their own
                lost = np.zeros(len(rows))
            case "response_latency":
                lost = np.full(len(rows), float(snapshot.quality.responses_unassigned))
            case "connect_latency":
                inbound = snapshot.dimensions["direction"][rows] == DIRECTIONS.index("in")
                established = snapshot.metrics["established"][rows] + connections - closes
                lost = np.where(inbound, 0, established)
            case _:
                lost = connections
        return rows, lost

    def _rows_with_value(self, metric: str) -> Mask:
        """Return a mask of the selected rows with a value of the distribution `metric`."""
        wanted = ~np.isnan(self.grouped.snapshot.metrics[metric])
        return wanted if self._mask is None else wanted & self._mask

    def counted_rows(self, metric: str) -> NDArray[np.intp]:
        """Return the indices of the selected rows that have something of `metric`: not 0, or a value."""
        if not len(self.grouped.group_index):
            return np.zeros(0, np.intp)
        if METRICS[metric].kind is MetricKind.DISTRIBUTION:
            return np.flatnonzero(self._rows_with_value(metric))
        wanted = self.grouped.snapshot.metrics[metric] != 0
        return np.flatnonzero(wanted if self._mask is None else wanted & self._mask)

    def newest_values(self, metric: str) -> Numbers:
        """Return the value of this tick alone for each group present: counters per second, gauges as they are."""
        sums = self.current_sums(metric)
        if METRICS[metric].kind is MetricKind.GAUGE:
            return sums / max(tick_weight_ms(self.grouped.snapshot.elapsed_ns), 1)
        return sums / (max(self.grouped.snapshot.elapsed_ns, 1) / 1e9)


def _grown(times_ns: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    """Return `times_ns` with room for `capacity` slots."""
    missing = capacity - len(times_ns)
    return np.concatenate([times_ns, np.full(missing, NEVER_NS)]) if missing > 0 else times_ns
