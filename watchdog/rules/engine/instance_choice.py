"""Choice of the firing groups that get instances of their own, and of the instances that give way to worse groups.

A group is worse the further its value is beyond the limit. Ratios, percentiles and means say nothing about size: there
the distance is weighed by the volume behind the value, so that ten failed connects of ten do not stand before 6,000 of
10,000. Small groups that someone makes on purpose, each at 100 %, do not hide a large one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers

MAX_INSTANCES: Final = 20  # of one rule: the worst of the firing ones; the others are one number
MAX_ACTIVE: Final = 2 * MAX_INSTANCES  # instances that began earlier keep theirs: people read no more than these
_MIN_DISPLACING_FACTOR = 2  # groups of similar weight must not take turns


@dataclass(frozen=True, slots=True)
class InstanceChoice:
    """The groups of one rule and tick, worst first.

    `shown`: new groups with an instance of their own. `left_out`: firing groups without one. `displaced`: index into
    the active instances, of those that end in favour of `shown`.
    """

    shown: Slots
    left_out: Slots
    displaced: NDArray[np.intp]


def weigh(values: Numbers, limits: Numbers, volumes: Numbers | None) -> Numbers:
    """Return the weight of groups beyond their `limits`: the distance of their values, times their volumes if given."""
    distance = np.abs(np.where(np.isnan(values), 0, values - limits))
    return distance if volumes is None else np.nan_to_num(distance * volumes)


def choose_instances(firing: Slots, weights: Numbers, active: Slots, active_count: int) -> InstanceChoice:
    """Choose among the slots `firing` with their `weights`.

    `active`: slots of the pending and firing instances; `active_count`: their number, that of the overflow included.
    """
    order = np.argsort(-weights, kind="stable")
    firing, weights = firing[order], weights[order]
    is_new = ~np.isin(firing, active)
    is_worst = np.arange(len(firing)) < MAX_INSTANCES
    entering = np.flatnonzero(is_new & is_worst)
    room = max(MAX_ACTIVE - active_count, 0)
    displaced = _displaced(weights[entering[room:]], _weights_of(active, firing, weights), active, firing[is_worst])
    shown = entering[: room + len(displaced)]
    is_shown = np.zeros(len(firing), np.bool_)
    is_shown[shown] = True
    is_left_out = (is_new & ~is_shown) | np.isin(firing, active[displaced])
    return InstanceChoice(firing[shown], firing[is_left_out], displaced)


def _weights_of(active: Slots, firing: Slots, weights: Numbers) -> Numbers:
    """Return the weight of each of `active`, -1 for those that do not fire."""
    found = np.full(len(active), -1.0)
    if len(firing):
        by_slot = np.argsort(firing)
        at = np.minimum(firing[by_slot].searchsorted(active), len(firing) - 1)
        same = firing[by_slot][at] == active
        found[same] = weights[by_slot][at[same]]
    return found


def _displaced(waiting: Numbers, active_weights: Numbers, active: Slots, worst: Slots) -> NDArray[np.intp]:
    """Return the index of the instances that give way to groups with the weights `waiting`, worst first."""
    lightest = np.argsort(active_weights, kind="stable")
    lightest = lightest[~np.isin(active[lightest], worst)][: len(waiting)]
    gives_way = active_weights[lightest] * _MIN_DISPLACING_FACTOR < waiting[: len(lightest)]
    return lightest[np.logical_and.accumulate(gives_way)]
