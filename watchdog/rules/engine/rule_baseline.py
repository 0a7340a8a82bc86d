"""The baseline of one rule: its groups, their columns, and the hours that they learn.

A group has a row from its first value that differs from that of a group without connections; the host of a rule
without `by` from its first value. Groups younger than `learn` are judged by the highest limits that other groups of the
rule have. The work at the end of an hour is spread over the ticks of the next minute.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers, Snapshot
from watchdog.rules.engine.baseline_columns import INCOMPLETE, BaselineColumns
from watchdog.rules.engine.baseline_groups import NO_ROW, BaselineGroups, RowNumbers, group_keys, key_of_labels
from watchdog.rules.engine.baseline_tail import MIN_PRIOR_EXCESS, Floats, Mask
from watchdog.rules.engine.groups import HOST_SLOT, NO_GROUP_SLOT, UNGROUPED_SLOT, GroupSlots
from watchdog.rules.engine.hour_clock import HOUR_SECONDS, HourClock
from watchdog.rules.engine.learnt_facts import BaselineFacts
from watchdog.rules.language.rule import Labels, Rule, Severity
from watchdog.rules.language.ruleset_hash import baseline_digest

_SPREAD_SECONDS = 60  # of an hour, over which the work at the end of the one before is spread
_MIN_CLOSED_ROWS = 8_192  # in one tick: few calls of numpy; a millisecond
_MAX_NEW_ROWS = 4_096  # in one tick; and in an hour, unless more groups than that are known
_MIN_LOOKED_UP = 1_024  # groups without a row in one tick, however many rows are new: known ones that return
_FULL_SHARE = 7 / 8  # of the rows: from here on the least known ones are dropped …
_KEPT_SHARE = 3 / 4  # … down to this share
_HOURS_A_DAY = 24


@dataclass(frozen=True, slots=True)
class GroupBaseline:
    """The baseline of one group; amounts in the metric's unit.

    `usual`, `highest`: as in `BaselineFacts`. `limits`: infinite while it is too young. `learnt_hours`: of the group.
    `record_hours`: in a row; a day of them makes a new normal.
    """

    limits: Mapping[Severity, float]
    usual: float | None
    highest: float | None
    learnt_hours: int
    record_hours: int
    is_held: bool


@dataclass(slots=True)
class _Closing:
    """The end of an hour that is under way: its highest amounts, and the first row that is not closed yet."""

    number: int
    is_whole: bool
    ended: Floats
    at_ns: int
    first: int = 0


class RuleBaseline:
    """The baseline of one rule, kept over reloads while its definition is the same."""

    def __init__(self, rule: Rule, secret: bytes, max_rows: int) -> None:
        """Start with nothing learnt; `secret`: of the keys of groups. At most `max_rows` groups."""
        assert rule.baseline is not None  # noqa: S101 - of rules with a baseline only
        self.digest = baseline_digest(rule)
        self.by = rule.by
        self.max_rows = max_rows
        self.learnt_hours = 0
        self.groups = BaselineGroups()
        self.hour = HourClock()
        self.adopted = self.dropped = 0
        """Groups with a new normal, and groups dropped for want of room, since the last `take_counts`."""
        self.is_due = False  # to be saved
        self._secret = secret
        self._sign = 1.0 if rule.baseline.above else -1.0
        spec = rule.baseline
        rarity = [spec.rarity_hours[severity] for severity in sorted(spec.rarity_hours)]
        self.columns = BaselineColumns(spec.floor, rarity, spec.season, spec.learn_hours, above=spec.above)
        self.apply_rule(rule)
        self._engine_groups: GroupSlots | None = None
        self._waiting: Slots = np.zeros(0, np.int32)  # slots without a row
        self._without_room: Slots = np.zeros(0, np.int32)  # … of unknown groups: until the hour ends
        self._is_mapped = False
        self._row_by_slot: RowNumbers | None = None  # made when it is needed in a tick
        self._closing: _Closing | None = None
        self._new_rows = 0  # in this hour
        self._known_rows = 0  # at its begin
        self._new_normal: Slots = np.zeros(0, np.int32)  # slots with one in this tick
        self._accepted: Slots = np.zeros(0, np.int32)  # slots with one by `accept` since the newest tick

    def apply_rule(self, rule: Rule) -> None:
        """Apply a rule with the same definition: its rarity, and its time to learn."""
        spec = rule.baseline
        assert spec is not None  # noqa: S101 - as above
        self.severities = sorted(spec.rarity_hours)
        self.columns.rarity_hours = tuple(spec.rarity_hours[severity] for severity in self.severities)
        self.columns.learn_hours = spec.learn_hours
        self._absent_amount = np.float32(self._sign * rule.value_without_rows)
        self._newcomer_limits = [math.inf] * len(self.severities)
        self._highest_limits = [-math.inf] * len(self.severities)  # of the groups whose limits were set so far
        if self.hour.number is not None:
            self.set_limits()

    @property
    def is_learning(self) -> bool:
        """Return whether the rule has no limits yet."""
        return self.learnt_hours < self.columns.learn_hours

    def amounts(self, values: Numbers) -> Floats:
        """Return `values` as amounts: negated where the rule fires below."""
        return (self._sign * values).astype(np.float32)

    def is_uncertain(self, low: Numbers, high: Numbers) -> Mask:
        """Return where bounds of a value are too far apart for the hour to be learnt."""
        return self.columns.spread(self.amounts(low), self.amounts(high)) > MIN_PRIOR_EXCESS

    def slots_to_read(self, groups: GroupSlots) -> Slots:
        """Return the slots whose values `take` needs, as they are in the newest tick: once in each tick."""
        if not self._is_mapped or self._engine_groups is not groups:  # or a tick was missed
            self.groups.slots[:] = NO_GROUP_SLOT
            first = UNGROUPED_SLOT + 1 if groups.by else HOST_SLOT
            self._waiting = np.arange(first, groups.size if groups.by else HOST_SLOT + 1, dtype=np.int32)
            self._without_room = np.zeros(0, np.int32)
            self._engine_groups = groups
        else:
            self._take_new_slots(groups.new_slots, groups.size)
        self._is_mapped, self._row_by_slot = False, None
        return np.concatenate((self.groups.slots, self._waiting))

    def _take_new_slots(self, new_slots: Slots, size: int) -> None:
        """Let new groups wait for a row; some have slots that other groups had."""
        if len(new_slots):
            is_new = np.zeros(size, np.bool_)
            is_new[new_slots] = True
            self.groups.detach(is_new)
            self._waiting = np.concatenate((self._waiting[~is_new[self._waiting]], new_slots))
            self._without_room = self._without_room[~is_new[self._without_room]]

    def take(self, snapshot: Snapshot, amounts: Floats, incomplete: Mask) -> None:
        """Add the tick of `snapshot`: amounts of `slots_to_read`, NaN for none.

        `incomplete`: where something is missing, so that the hour is not learnt.
        """
        count = len(self.groups)
        self.columns.tick(amounts[:count])
        self.columns.highest[:count][incomplete[:count]] = INCOMPLETE
        self._take_waiting(snapshot, amounts[count:])
        self._is_mapped, self._row_by_slot = True, None

    def _take_waiting(self, snapshot: Snapshot, amounts: Floats) -> None:
        """Give rows to the groups without one that have a value of their own: known ones always, new ones with room."""
        room = max(_MAX_NEW_ROWS, self._known_rows) - self._new_rows
        room = max(min(room, _MAX_NEW_ROWS, self.max_rows - len(self.groups)), 0)
        has_own = ~np.isnan(amounts)
        if self.by:  # the host is judged without connections too: it learns that it has none
            has_own &= amounts != self._absent_amount
        own = np.flatnonzero(has_own)[: max(room, _MIN_LOOKED_UP)]
        if not len(own) or self._engine_groups is None:
            return
        slots = self._waiting[own]
        keys = group_keys(self._engine_groups, slots, snapshot, self._secret)
        # Equal keys are one group to us: two groups whose names have no room for codes of their own.
        _, firsts = np.unique(keys, return_index=True)
        unknown = np.sort(firsts[self.groups.find(keys[firsts]) == NO_ROW])[:room]
        self.groups.add(keys[unknown], slots[unknown])
        self.columns.add(len(unknown))
        self._new_rows += len(unknown)
        rows = self.groups.find(keys)
        has_row = rows != NO_ROW
        self.groups.slots[rows[has_row]] = slots[has_row]
        np.fmax.at(self.columns.highest, rows[has_row], amounts[own][has_row])
        self._waiting = np.delete(self._waiting, own)
        self._without_room = np.concatenate((self._without_room, slots[~has_row]))

    def end_hours(self, local_seconds: float, at_ns: int, *, is_measured: bool) -> None:
        """Take the time of a tick before its amounts; do a part of the work at the end of an hour.

        `is_measured`: the window of the rule is filled.
        """
        self._new_normal, self._accepted = self._accepted, np.zeros(0, np.int32)
        ended = self.hour.advance(local_seconds, is_measured=is_measured)
        if ended is not None:
            self.close_rows(len(self.groups))
            amounts = self.columns.end_hour()
            self._closing = _Closing(ended.number, ended.is_whole, amounts, at_ns)
            self._known_rows, self._new_rows = len(self.groups), 0
            self._waiting = np.concatenate((self._waiting, self._without_room))
            self._without_room = np.zeros(0, np.int32)
        if self._closing is not None:
            share = min(self.hour.seconds_into / _SPREAD_SECONDS, 1.0)
            due = math.ceil(share * len(self._closing.ended))
            self.close_rows(max(due, self._closing.first + _MIN_CLOSED_ROWS))

    def close_rows(self, stop: int) -> None:
        """Close the hour that ended for the rows before `stop`, if one is being closed."""
        closing = self._closing
        if closing is None:
            return
        rows = slice(closing.first, min(stop, len(closing.ended)))
        ended = closing.ended[rows]
        self._note_seen(rows, ended, closing)
        if closing.is_whole:
            adopted = np.arange(rows.start, rows.stop)[self.columns.close(rows, ended, closing.number)]
            self.adopted += len(adopted)
            self._new_normal = np.union1d(self._new_normal, self.groups.slots[adopted])
        self._set_limits(rows)
        closing.first = rows.stop
        if closing.first >= len(closing.ended):
            self._finish(closing)

    def _note_seen(self, rows: slice, ended: Floats, closing: _Closing) -> None:
        seen: NDArray[np.bool_] = (ended > -np.inf) & (ended != self._absent_amount)
        if self._engine_groups is not None:
            hour_ago_ns = closing.at_ns - HOUR_SECONDS * 10**9
            slots = self.groups.slots[rows]
            seen |= (slots != NO_GROUP_SLOT) & self._engine_groups.seen_since(slots, hour_ago_ns)
        self.groups.note_hour(rows, seen, is_day_over=closing.number % _HOURS_A_DAY == _HOURS_A_DAY - 1)

    def _finish(self, closing: _Closing) -> None:
        self._closing = None
        self.learnt_hours += closing.is_whole
        kept = self.max_rows
        if len(self.groups) > _FULL_SHARE * self.max_rows:
            kept = int(_KEPT_SHARE * self.max_rows)
        rows = self.groups.best_known(kept)
        if len(rows) < len(self.groups):
            self.keep(rows)
        self._set_newcomer_limits()
        self.is_due = True

    def keep(self, rows: RowNumbers) -> None:
        """Keep `rows` and drop all others, while no hour is being closed; they begin anew when they are seen again."""
        self.dropped += len(self.groups) - len(rows)
        self.groups.keep(rows)
        self.columns.keep(rows)
        self._is_mapped, self._row_by_slot = False, None

    def set_limits(self) -> None:
        """Set the limits of all groups for the present hour."""
        self._set_limits(slice(0, len(self.groups)))
        self._set_newcomer_limits()

    def _set_limits(self, rows: slice) -> None:
        limits = self.columns.set_limits(rows, self.hour.number or 0)
        highest = [float(np.where(np.isinf(one), -np.inf, one).max(initial=-np.inf)) for one in limits]
        self._highest_limits = [max(pair) for pair in zip(self._highest_limits, highest, strict=True)]

    def _set_newcomer_limits(self) -> None:
        """Set the limits of young groups: the highest ones of the others, once the rule has learnt."""
        never = self.is_learning or self._sign < 0
        self._newcomer_limits = [math.inf if never or math.isinf(one) else one for one in self._highest_limits]
        self._highest_limits = [-math.inf] * len(self.severities)

    def limit_of(self, slots: Slots) -> Floats:
        """Return, (m,), the amount above which the least severe severity fires for the group of each of `slots`."""
        rows = self._rows_of(slots)
        limits = np.full(len(slots), np.float32(self._newcomer_limits[0]))
        known = rows != NO_ROW
        own = self.columns.limit[rows[known]]
        limits[known] = np.where(np.isinf(own) & self._is_young(rows[known]), limits[known], own)
        return np.full(len(slots), np.float32(np.inf)) if self.is_learning else limits

    def limits_by_severity(self, slot: int) -> dict[Severity, float]:
        """Return the limits of one group in the metric's unit, infinite while there are none."""
        row = self._row_of(slot)
        if self.is_learning or self.hour.number is None:
            found = [math.inf] * len(self.severities)
        elif row == NO_ROW or self._is_young(np.array([row]))[0]:
            found = self._newcomer_limits
        else:
            found = [float(limits[0]) for limits in self.columns.limits(np.array([row]), self._limit_hour(row))]
        return {severity: self._sign * limit for severity, limit in zip(self.severities, found, strict=True)}

    def _limit_hour(self, row: int) -> int:
        """Return the hour that the limit of a row is for: not yet the present one while the last one is closed."""
        number = self.hour.number or 0
        closing = self._closing
        return closing.number if closing is not None and closing.first <= row < len(closing.ended) else number

    def explain(self, slot: int, value: float, limits: Mapping[Severity, float]) -> BaselineFacts:
        """Return the facts about `value` of the group of `slot`; `limits`: in force."""
        row, number = self._row_of(slot), self.hour.number or 0
        if row == NO_ROW or self._is_young(np.array([row]))[0]:
            top = self._newcomer_limits[0]
            rarity = min(self.columns.rarity_hours[0], float(self.learnt_hours))
            return BaselineFacts(limits, None, self._sign * top, rarity, self.learnt_hours, is_new=True)
        number = self._limit_hour(row)
        rows, amounts = np.array([row]), self.amounts(np.array([value]))
        rate, arms = self.columns.rates(rows, amounts, number)
        learnt = int(self.columns.age[row])
        rarity = min(float(1 / (rate[0] * arms[0])), float(learnt))
        usual, highest = (
            None if amount is None else self._sign * amount for amount in self.columns.references(row, number)
        )
        return BaselineFacts(limits, usual, highest, rarity, learnt, is_new=False)

    def describe(self, row: int) -> GroupBaseline:
        """Return the baseline of the group in `row`."""
        number, columns = self._limit_hour(row), self.columns
        usual, highest = (None if one is None else self._sign * one for one in columns.references(row, number))
        limits = [self._sign * float(one[0]) for one in columns.limits(np.array([row]), number)]
        return GroupBaseline(
            dict(zip(self.severities, limits, strict=True)),
            usual,
            highest,
            int(columns.age[row]),
            columns.record_hours(row),
            columns.is_held(row),
        )

    def known_rows(self, slots: Slots | None = None) -> RowNumbers:
        """Return the rows of the groups that have a slot, of `slots` if given: the highest levels first."""
        rows = np.flatnonzero(self.groups.slots != NO_GROUP_SLOT) if slots is None else self._rows_of(slots)
        rows = rows[rows != NO_ROW]
        order = np.argsort(-self.columns.all_hours[rows].astype(np.int32), kind="stable")
        return np.asarray(rows[order])

    def read_labels(self, row: int, snapshot: Snapshot) -> Labels:
        """Return the labels of a row that has a slot; `snapshot`: the newest tick."""
        assert self._engine_groups is not None  # noqa: S101 - rows get their slots from it
        return self._engine_groups.read_labels(int(self.groups.slots[row]), snapshot)

    def find_slots(self, labels: Labels, snapshot: Snapshot) -> Slots:
        """Return the slots of the groups that have `labels`, some of their labels."""
        if self._engine_groups is None:
            return np.zeros(0, np.int32)
        return self._engine_groups.find_slots(labels, snapshot)

    def accept(self, rows: RowNumbers) -> None:
        """Take the present level of `rows` for the usual one: alerts that it clears end with the next tick."""
        self.columns.accept(rows, self.hour.number or 0)
        self.set_limits()
        self._accepted = np.union1d(self._accepted, self.groups.slots[rows])

    def forget(self, rows: RowNumbers) -> None:
        """Drop `rows`, while no hour is being closed: their groups begin anew."""
        before = self.dropped
        self.keep(np.setdiff1d(np.arange(len(self.groups)), rows))
        self.dropped = before

    def has_new_normal(self, slot: int) -> bool:
        """Return whether the group of `slot` got a new normal in this tick."""
        return bool(np.isin(slot, self._new_normal)) and slot != NO_GROUP_SLOT

    def row_of_labels(self, labels: Labels) -> int:
        """Return the row of the group with `labels`, `NO_ROW` for an unknown one."""
        given = dict(labels)
        own = tuple((name, given[name]) for name in self.by)
        return int(self.groups.find(np.array([key_of_labels(own, self._secret)], np.uint64))[0])

    def _row_of(self, slot: int) -> int:
        return int(self._rows_of(np.array([slot], np.int32))[0])

    def _rows_of(self, slots: Slots) -> RowNumbers:
        """Return the row of each of `slots`, `NO_ROW` without one."""
        if self._row_by_slot is None:
            self._row_by_slot = np.full(int(self.groups.slots.max(initial=0)) + 1, NO_ROW)
            self._row_by_slot[self.groups.slots] = np.arange(len(self.groups))
            self._row_by_slot[NO_GROUP_SLOT] = NO_ROW
        known = slots < len(self._row_by_slot)
        return np.where(known, self._row_by_slot[np.where(known, slots, NO_GROUP_SLOT)], NO_ROW)

    def _is_young(self, rows: RowNumbers) -> Mask:
        return np.asarray(self.columns.age[rows] < self.columns.learn_hours)

    def take_counts(self) -> tuple[int, int]:
        """Return the numbers of groups with a new normal, and of dropped groups, since the last call."""
        counts, self.adopted, self.dropped = (self.adopted, self.dropped), 0, 0
        return counts
