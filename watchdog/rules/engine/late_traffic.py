"""Spreads traffic that arrives late over the time in which it can have happened.

A connection that no pass saw for a time ends, or is seen again, with the traffic of the whole time. Sums count it at
once. For rates an equal part belongs to each moment since the connection was last seen: a 13 s old upload must neither
be missing, nor look like one of 1 s.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers
from watchdog.rules.engine.window import TickValues, pack_tick_values

Ages = NDArray[np.int64]

_EXACT_STEPS = 16  # of one tick each; older steps grow by an eighth


def age_steps(elapsed_ns: int, longest_ns: int) -> Ages:
    """Return the ages at which steps end, from one tick on, the last at or beyond `longest_ns`."""
    ends = [elapsed_ns * step for step in range(1, _EXACT_STEPS + 1)]
    while ends[-1] < longest_ns:
        ends.append(ends[-1] + ends[-1] // 8)
    return np.array(ends)


def spread(values: Numbers, unseen_ns: Ages, ends_ns: Ages) -> Numbers:
    """Return, (s, m), the part of each of m `values` in each of s steps: whole numbers that add up to the value."""
    reached = np.minimum(ends_ns[:, np.newaxis], unseen_ns) / unseen_ns
    return np.diff(np.floor(reached * values), axis=0, prepend=0)


def past_values(at_ns: int, ends_ns: Ages, groups: Slots, parts: Numbers) -> list[TickValues]:
    """Return the parts of all steps but the newest, added up by group, as values of earlier ticks.

    `groups`: (m,), slot of each value. A step counts as long as its oldest tick is in the window.
    """
    slots, index = np.unique(groups, return_inverse=True)
    earlier = []
    for end_ns, part in zip(ends_ns[1:].tolist(), parts[1:], strict=True):
        if part.any():
            sums = np.bincount(index, weights=part, minlength=len(slots)).astype(np.float64)
            earlier.append(pack_tick_values(at_ns - end_ns + int(ends_ns[0]), slots.astype(np.int32), sums))
    return earlier
