"""The tail of one arm of many baselines: how often, and how far, hours go above their envelope.

The excess over the envelope is exponential, its mean has a gamma prior, so that P(excess > u) = p (1 + u/S)^-N (Lomax):
block maxima and peaks over a threshold, the practice of extreme values. All excesses are in nats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]  # float32
Mask = NDArray[np.bool_]

MIN_PRIOR_EXCESS: Final = 0.06  # the prior mean excess follows the gap below the envelope, within these bounds
_MAX_PRIOR_EXCESS = 0.3
_GAP_FACTOR = 1.2
_GAP_KNOWN = 12  # calm hours after which the gap is known
GAP_HOURS: Final = 168  # memory of the gap, and of the envelope over all hours
_PRIOR_ABOVE = 2.0  # hours above the envelope that the prior of the mean excess is worth
_PRIOR_HOURS = 48.0  # hours of which one is above the envelope, before anything is known
_FORGET = np.float32(2 ** (-1 / (28 * 24)))  # in an hour: half of it in 28 days
_MAX_SEEN = 255


@dataclass(frozen=True, slots=True)
class ClosedHour:
    """One hour of some groups, as an arm learns it; all (m,).

    `excess`: of the hour's highest value over the envelope. `weight`: 0 where the hour is not learnt. `is_calm`: the
    hour counts for the gap.
    """

    excess: Floats
    weight: Floats
    is_calm: Mask


class Tails:
    """The tails of one arm, all (n,).

    `hours`: learnt, as they are forgotten. `above`: those above the envelope, `excess`: the sum of theirs. `gap`: mean
    distance of the others from the envelope, of `seen` hours, at most 255.
    """

    NAMES: Final = ("hours", "above", "excess", "gap", "seen")

    def __init__(self, count: int) -> None:
        """Start with nothing learnt."""
        self.hours: Floats = np.zeros(count, np.float32)
        self.above: Floats = np.zeros(count, np.float32)
        self.excess: Floats = np.zeros(count, np.float32)
        self.gap: Floats = np.zeros(count, np.float32)
        self.seen = np.zeros(count, np.uint8)

    def learn(self, rows: slice, hour: ClosedHour) -> None:
        """Learn an hour of the groups in `rows`."""
        above = np.where(hour.excess > 0, hour.weight, np.float32(0))
        forget = np.where(hour.weight > 0, _FORGET, np.float32(1))
        self.hours[rows] = self.hours[rows] * forget + hour.weight
        self.above[rows] = self.above[rows] * forget + above
        self.excess[rows] = self.excess[rows] * forget + above * np.maximum(hour.excess, 0)
        # A counter of its own: the mean must not be weighted by the group's age.
        self.seen[rows] += hour.is_calm & (self.seen[rows] < _MAX_SEEN)
        step = np.maximum(np.float32(1 / GAP_HOURS), 1 / np.maximum(self.seen[rows].astype(np.float32), 1))
        change = (np.maximum(-hour.excess, 0) - self.gap[rows]) * step
        self.gap[rows] += np.where(hour.is_calm, change, np.float32(0))

    def parameters(self, rows: slice | NDArray[np.intp], min_excess: float) -> tuple[Floats, Floats, Floats]:
        """Return N, S and p of the groups in `rows`; `min_excess`: lower bound of the prior mean excess."""
        known = np.clip(_GAP_FACTOR * self.gap[rows], min_excess, _MAX_PRIOR_EXCESS)
        prior = np.where(self.seen[rows] >= _GAP_KNOWN, known, np.float32(_MAX_PRIOR_EXCESS))
        shape = _PRIOR_ABOVE + self.above[rows]
        scale = _PRIOR_ABOVE * prior + self.excess[rows]
        rate = (1 + self.above[rows]) / (_PRIOR_HOURS + self.hours[rows])
        return shape, scale, rate

    def margins(
        self, rows: slice | NDArray[np.intp], log_hours: Sequence[Floats], min_excess: float
    ) -> Iterator[Floats]:
        """Yield the excess that is expected once in so many hours, for each of `log_hours`, logarithms."""
        shape, scale, rate = self.parameters(rows, min_excess)
        log_rate, exponent = np.log(rate), 1 / shape
        for one in log_hours:
            yield np.asarray(scale * np.expm1(np.maximum(log_rate + one, 0) * exponent))

    def rate_above(self, rows: slice | NDArray[np.intp], excess: Floats, min_excess: float) -> Floats:
        """Return the share of all hours in which more than `excess`, at least 0, is expected."""
        shape, scale, rate = self.parameters(rows, min_excess)
        return rate * (1 + excess / scale) ** -shape
