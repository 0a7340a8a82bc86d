"""Baselines of many groups as columns: what each group usually reaches in an hour, and the limit that follows.

Values are `amounts`: the rule's values, negated where it fires below. y = ln(1 + amount/c), c = floor/2, with the sign
of the amount. Two envelopes follow the hour's highest y: one over all hours, one by hour of the day (or week), the
latter taken over the hour before and the hour after too. Each of these two arms has a tail (`baseline_tail.py`). A
group's limit is the lower one of those of its arms: the level expected once within the time that the rule calls rare.

An hour that fired is a record if it was above the limit of the all-hours arm alone. Envelopes do not learn a record.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from watchdog.rules.engine.baseline_tail import GAP_HOURS, MIN_PRIOR_EXCESS, ClosedHour, Floats, Mask, Tails
from watchdog.rules.language.rule import Season

STEPS: Final = 1024.0  # fixed-point steps a nat in the envelopes: 0.1 %
_ZERO = 32768  # code of y = 0; the code 0 stands for "never seen"
_MAX_CODE = 65535
_GOLDEN_RATIO = 0.6180339887498949  # its multiples modulo 1 spread evenly: roundings of the hours cancel
_MAX_Y = 60.0  # nats; no amount is beyond
_SLOTS = {Season.DAY: 24, Season.WEEK: 168, Season.NONE: 0}
_SLOT_DECAY = {Season.DAY: 0.1, Season.WEEK: 0.3, Season.NONE: 0.0}
SEASONS_BEFORE_USE: Final = 2  # after which the arm of the hour is used
_RECORD_WEIGHT = np.float32(0.25)  # weight of a record in the tails
# Hours that fired count up to the limit of at least this rarity. Cut at a limit that they often exceed, the excesses
# would shrink with it until every new high fires: nine a day at a rarity of one.
_MIN_CUT_HOURS = 72.0
_HELD = 255  # `run` of a group whose level is never adopted
ADOPTION_HOURS: Final = 24  # so many records in a row make a new normal …
_MAX_QUIET_HOURS = 2  # … with gaps of at most so many hours
_MAX_AGE = 65535
_SPARE_SHARE = 16  # of the groups: columns grow by this part beyond need

Rows = slice | NDArray[np.intp]
Codes16 = NDArray[np.uint16]

INCOMPLETE: Final = np.float32(np.inf)
"""The highest amount of an hour in which something is missing: it is not learnt."""
NO_AMOUNT: Final = np.float32(-np.inf)
"""The highest amount of an hour without any."""


@dataclass(frozen=True, slots=True)
class Arms:
    """The envelopes of some groups for one hour, codes, and whether each arm is used; all (m,)."""

    all_hours: Codes16
    this_hour: Codes16
    uses_all_hours: Mask
    uses_this_hour: Mask

    @property
    def count(self) -> Floats:
        """Return the number of arms in use, at least 1."""
        return np.maximum(self.uses_all_hours.astype(np.float32) + self.uses_this_hour, 1)

    @property
    def log_count(self) -> Floats:
        """Return the logarithm of `count`."""
        return np.where(self.uses_all_hours & self.uses_this_hour, np.float32(np.log(2)), np.float32(0))


class BaselineColumns:
    """The baselines of n groups with one definition: shares no state with their names or values.

    `count` groups exist; columns can be longer. `highest`: the highest amount of this hour so far. `limit`: the
    amount above which the least severe severity fires, infinite while the group is too young.
    """

    SAVED: Final = ("all_hours", "age", "run", "quiet", "shift", "highest")  # and `slots` and the tails

    def __init__(
        self,
        floor: float,
        rarity_hours: Sequence[float],
        season: Season = Season.DAY,
        learn_hours: int = 24,
        *,
        above: bool = True,
        min_excess: float = MIN_PRIOR_EXCESS,
        seasons_before_use: float = SEASONS_BEFORE_USE,
    ) -> None:
        """Start without groups.

        `rarity_hours`: by severity, the least severe first. `above` False: `floor` is the lowest level whose fall
        counts. `min_excess`: lower bound of the prior mean excess, in nats. `seasons_before_use`: until the arm of the
        hour is used.
        """
        self.floor, self.c = floor, floor / 2
        self.rarity_hours = tuple(rarity_hours)
        self.season, self.learn_hours, self.above = season, learn_hours, above
        self._min_excess, self._seasons_before_use = min_excess, seasons_before_use
        self.count = 0
        self.slots: Codes16 = np.zeros((_SLOTS[season], 0), np.uint16)  # by hour of day or week: its envelope
        self.all_hours: Codes16 = np.zeros(0, np.uint16)
        self.tails = (Tails(0), Tails(0))  # of all hours, of this hour
        self.age = np.zeros(0, np.uint16)  # hours observed
        self.run = np.zeros(0, np.uint8)  # records in a row
        self.quiet = np.zeros(0, np.uint8)  # hours since the newest of them
        self.shift: Floats = np.zeros(0, np.float32)  # their mean excess over the all-hours envelope, in steps
        self.highest: Floats = np.zeros(0, np.float32)
        self.limit: Floats = np.zeros(0, np.float32)

    def add(self, number: int) -> None:
        """Add `number` groups, which nothing is known of, behind the others."""
        first, self.count = self.count, self.count + number
        if self.count > len(self.limit):
            self._arrange(np.arange(first), self.count + self.count // _SPARE_SHARE)
        self.highest[first : self.count], self.limit[first : self.count] = NO_AMOUNT, np.inf

    def keep(self, rows: NDArray[np.intp]) -> None:
        """Keep `rows`, in this order, and drop all others."""
        self._arrange(rows, len(rows))
        self.count = len(rows)

    def _arrange(self, rows: NDArray[np.intp], length: int) -> None:
        """Rearrange all columns by `rows`, and give them a length."""
        for owner, name in self.columns():
            setattr(owner, name, _rearranged(getattr(owner, name), rows, length))
        self.limit = _rearranged(self.limit, rows, length)

    def columns(self) -> list[tuple[BaselineColumns | Tails, str]]:
        """Return the owner and the name of each column that a restart needs."""
        own = [(self, name) for name in ("slots", *self.SAVED)]
        return [*own, *((tails, name) for tails in self.tails for name in Tails.NAMES)]

    def tick(self, amounts: Floats) -> Mask:
        """Add the amounts of one tick, (n,), NaN for none; return which fire."""
        highest = self.highest[: self.count]
        np.fmax(highest, amounts, out=highest)
        return np.asarray(amounts > self.limit[: self.count])

    def end_hour(self) -> Floats:
        """Return the highest amounts of the hour that ends, for `close`, and begin the next one."""
        ended = self.highest[: self.count].copy()
        self.highest[: self.count] = NO_AMOUNT
        return ended

    def close(self, rows: slice, ended: Floats, slot: int) -> Mask:
        """Learn the hour `slot` of the groups in `rows`; return a mask of those with a new normal.

        `ended`: their highest amounts. `limit` is still that of this hour: `set_limits` is to follow.
        """
        ok = np.isfinite(ended)
        y = self._y(np.where(ok, ended, np.float32(0)))
        arms, limit = self._arms(rows, slot), self.limit[rows]
        fired = ok & (ended > limit)
        record = fired & (ended > self._record_limit(rows, arms))
        # It counts no further than to the limit, a record for a quarter: an attack must not move what finds it.
        if self.rarity_hours[0] < _MIN_CUT_HOURS:
            [limit] = self._limits(rows, slot, (_MIN_CUT_HOURS,))
        most = np.where(fired, self._y(np.where(fired, limit, np.float32(0))), np.float32(np.inf))
        weight = np.where(record, _RECORD_WEIGHT * (self.run[rows] != _HELD), np.float32(1))
        for tails, envelope, used in (
            (self.tails[0], arms.all_hours, arms.uses_all_hours & ok),
            (self.tails[1], arms.this_hour, arms.uses_this_hour & ok),
        ):
            excess = np.minimum(y, most) - _decoded(envelope)
            hour = ClosedHour(excess, np.where(used, weight, np.float32(0)), used & ~fired & (ended != 0))
            tails.learn(rows, hour)
        self._follow(rows, slot, y, ok & ~record)
        self.age[rows] += ok & (self.age[rows] < _MAX_AGE)
        return self._adopt(rows, ok, record, y)

    def _follow(self, rows: slice, slot: int, y: Floats, learn: Mask) -> None:
        """Let the envelopes follow the highest y of the hour where `learn` holds."""
        code = np.clip(_ZERO + y * np.float32(STEPS), 1, _MAX_CODE)
        phase = np.float32(slot * _GOLDEN_RATIO % 1)
        envelopes = [(self.all_hours[rows], 1 / GAP_HOURS)]
        if len(self.slots):
            envelopes.append((self.slots[slot % len(self.slots)][rows], _SLOT_DECAY[self.season]))
        for envelope, decay in envelopes:
            was = envelope.astype(np.float32)
            now = np.where((code > was) | (was == 0), code, was - np.float32(decay) * (was - code))
            envelope[:] = np.where(learn, np.minimum(now + phase, _MAX_CODE), was).astype(np.uint16)

    def _adopt(self, rows: slice, ok: Mask, record: Mask, y: Floats) -> Mask:
        """Take a level that has lasted a day for the new normal; return a mask of the groups with one."""
        ended = np.where(ok & (self.quiet[rows] > _MAX_QUIET_HOURS), 0, self.run[rows].astype(np.int16))
        run = np.where(record, ended + 1, ended)
        self.quiet[rows] = np.where(record, 0, np.minimum(self.quiet[rows], _MAX_QUIET_HOURS) + 1)
        shift, level = self.shift[rows], _ZERO + y * np.float32(STEPS)
        mean = shift + (level - self.all_hours[rows] - shift) / np.maximum(run, 1).astype(np.float32)
        self.shift[rows] = np.where(record, mean, np.where(run == 0, np.float32(0), shift))
        held = self.run[rows] == _HELD
        adopted = np.asarray((run >= ADOPTION_HOURS) & ~held)
        if adopted.any():
            self._raise(np.arange(rows.start, rows.stop)[adopted])
        self.run[rows] = np.where(held, _HELD, np.where(adopted, 0, run))
        return adopted

    def _raise(self, rows: NDArray[np.intp]) -> None:
        up = np.maximum(self.shift[rows], 0).astype(np.uint32)
        seen = self.slots[:, rows]
        self.slots[:, rows] = np.where(seen > 0, np.minimum(seen + up, _MAX_CODE), 0)
        self.all_hours[rows] = np.minimum(self.all_hours[rows] + up, _MAX_CODE)

    def accept(self, rows: NDArray[np.intp], slot: int) -> None:
        """Take the level of the records so far, or of this hour, `slot`, for the new normal now."""
        now = self.highest[rows]
        ok = np.isfinite(now) & (self.all_hours[rows] > 0)
        level = _ZERO + self._y(np.where(ok, now, np.float32(0))) * np.float32(STEPS)
        excess = level - self.all_hours[rows]
        self.shift[rows] = np.maximum(self.shift[rows], np.where(ok, excess, np.float32(0)))
        self._raise(rows)
        # The level may be unusual for this hour alone: then the shift is 0.
        reached = np.where(ok, np.clip(np.ceil(level), 1, _MAX_CODE), np.float32(0)).astype(np.uint16)
        self.all_hours[rows] = np.maximum(self.all_hours[rows], reached)
        if len(self.slots):
            this_hour = self.slots[slot % len(self.slots)]
            this_hour[rows] = np.maximum(this_hour[rows], reached)
        self.run[rows] = np.where(self.run[rows] == _HELD, _HELD, 0)
        self.shift[rows] = 0

    def hold(self, rows: NDArray[np.intp], *, is_held: bool) -> None:
        """Never take a level of `rows` for a new normal by itself, or allow it again."""
        run = self.run[rows]
        self.run[rows] = _HELD if is_held else np.where(run == _HELD, 0, run)

    @property
    def held_count(self) -> int:
        """Return the number of groups of which no level is ever taken for a new normal."""
        return int(np.count_nonzero(self.run[: self.count] == _HELD))

    def is_held(self, row: int) -> bool:
        """Return whether a level of `row` is never taken for a new normal."""
        return bool(self.run[row] == _HELD)

    def record_hours(self, row: int) -> int:
        """Return the number of records in a row of a group that could make a new normal; 0 if they have ended."""
        has_ended = self.is_held(row) or self.quiet[row] > _MAX_QUIET_HOURS
        return 0 if has_ended else int(self.run[row])

    def set_limits(self, rows: slice, slot: int) -> list[Floats]:
        """Set `limit` of the groups in `rows` for the hour `slot`; return their limits by severity."""
        limits = self.limits(rows, slot)
        self.limit[rows] = limits[0]
        return limits

    def limits(self, rows: Rows, slot: int) -> list[Floats]:
        """Return the limits of the groups in `rows` in the hour `slot`, by severity: those of `limit` first."""
        return self._limits(rows, slot, self.rarity_hours)

    def _limits(self, rows: Rows, slot: int, rarity_hours: Iterable[float]) -> list[Floats]:
        """Return the limits of the groups in `rows` in the hour `slot` for each of `rarity_hours`."""
        arms, young = self._arms(rows, slot), self.age[rows] < self.learn_hours
        log_hours = [np.float32(np.log(rarity)) + arms.log_count for rarity in rarity_hours]
        pairs = (self.tails[number].margins(rows, log_hours, self._min_excess) for number in range(len(self.tails)))
        found = []
        for all_hours, this_hour in zip(*pairs, strict=True):
            y = np.where(arms.uses_all_hours, _decoded(arms.all_hours) + all_hours, np.float32(np.inf))
            of_hour = np.where(arms.uses_this_hour, _decoded(arms.this_hour) + this_hour, np.float32(np.inf))
            limit = self._amount(np.minimum(y, of_hour), young)
            found.append(np.maximum(limit, np.float32(self.floor)) if self.above else limit)
        return found

    def _record_limit(self, rows: Rows, arms: Arms) -> Floats:
        """Return the limit of the all-hours arm alone, for the least severe severity."""
        log_hours = np.float32(np.log(self.rarity_hours[0])) + arms.log_count
        [margin] = self.tails[0].margins(rows, [log_hours], self._min_excess)
        y = np.where(arms.uses_all_hours, _decoded(arms.all_hours) + margin, np.float32(np.inf))
        return self._amount(y, self.age[rows] < self.learn_hours)

    def _arms(self, rows: Rows, slot: int) -> Arms:
        all_hours, age = self.all_hours[rows], self.age[rows]
        count = len(self.slots)
        if count:
            before, this, after = (self.slots[(slot + step) % count][rows] for step in (-1, 0, 1))
            near = np.maximum(np.maximum(before, after), this)
        else:
            near = np.zeros_like(all_hours)
        used = age > 0, (age >= self._seasons_before_use * count) & (near > 0)
        if self.above:
            return Arms(all_hours, near, *used)
        # A fall counts where the usual lowest level is at least the floor.
        top = np.uint16(_ZERO - np.log1p(self.floor / self.c) * STEPS)
        return Arms(all_hours, near, used[0] & (all_hours <= top), used[1] & (near <= top))

    def spread(self, low: Floats, high: Floats) -> Floats:
        """Return the distance of two amounts, in nats."""
        return np.abs(self._y(high) - self._y(low))

    def _y(self, amounts: Floats) -> Floats:
        return np.copysign(np.log1p(np.abs(amounts) / np.float32(self.c)), amounts)

    def _amount(self, y: Floats, young: Mask) -> Floats:
        """Return the amount of `y`; infinite for young groups."""
        amount = np.copysign(np.float32(self.c) * np.expm1(np.minimum(np.abs(y), np.float32(_MAX_Y))), y)
        return np.asarray(np.where(young | np.isinf(y), np.float32(np.inf), amount))

    def references(self, row: int, slot: int) -> tuple[float | None, float | None]:
        """Return the highest amounts that one group lately reached in the hour `slot`, and in any hour."""
        arms = self._arms(np.array([row]), slot)
        pairs = ((arms.this_hour, arms.uses_this_hour), (arms.all_hours, arms.uses_all_hours))
        young = np.zeros(1, np.bool_)
        usual, highest = (
            float(self._amount(_decoded(envelope), young)[0]) if used[0] else None for envelope, used in pairs
        )
        return usual, highest

    def rates(self, rows: Rows, amounts: Floats, slot: int) -> tuple[Floats, Floats]:
        """Return the share of hours that reach more than `amounts`, (m,), by the arm that finds it rarer.

        And the number of arms in use: times the share, it is that of the hours in which any arm would find it so rare.
        1 where no arm is in use, or where the amount is below both envelopes.
        """
        arms, y, lowest = self._arms(rows, slot), self._y(amounts), np.ones(len(amounts), np.float32)
        for tails, envelope, used in (
            (self.tails[0], arms.all_hours, arms.uses_all_hours),
            (self.tails[1], arms.this_hour, arms.uses_this_hour),
        ):
            excess = y - _decoded(envelope)
            rate = tails.rate_above(rows, np.maximum(excess, 0), self._min_excess)
            lowest = np.where(used & (excess > 0), np.minimum(lowest, rate), lowest)
        return lowest, arms.count


def _decoded(envelope: Codes16) -> Floats:
    return (envelope.astype(np.float32) - np.float32(_ZERO)) / np.float32(STEPS)


def _rearranged(column: NDArray[Any], rows: NDArray[np.intp], length: int) -> NDArray[Any]:
    """Return a column of `length` with `rows` of `column` first, then 0."""
    arranged = np.zeros((*column.shape[:-1], length), column.dtype)
    arranged[..., : len(rows)] = column[..., rows]
    return arranged
