"""Groups that are about to fire: traffic beyond the limit has begun, and the window fills with it.

A window of 5 s passes its limit seconds after the traffic has. A rule on the sum of many groups passes its own limit
earlier, although each of these groups is going to fire. The newest tick alone shows them: its value, as if the whole
window was like this tick.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from watchdog.clock import SECOND_NS
from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers
from watchdog.rules.engine.aggregations import Aggregation
from watchdog.rules.engine.distinct import DistinctCount
from watchdog.rules.engine.plan import Evaluation
from watchdog.rules.engine.selection import Mask
from watchdog.rules.language.rule import Rule

_SOON_NS: Final = 5 * SECOND_NS  # one tick says little about a longer time …
_SOON_PARTS: Final = 4  # … but for this part of a long window
_SPARE_TICKS: Final = 2  # windows are filled by whole ticks
_FEW_TICKS: Final = (
    10  # in the window: then a group that has begun within a tick can seem to have much less than it has
)
_BEGUN_SHARE: Final = 0.25


def time_to_limit(
    rule: Rule,
    evaluation: Evaluation,
    limits: Callable[[Slots], Numbers],
    can_fire: Callable[[Slots], Mask],
    elapsed_ns: int,
) -> Numbers:
    """Return by slot the time in ns in which an empty window passes the limit, with traffic as in the newest tick.

    0 for groups that are not about to pass it, and for all of a rule whose newest tick proves nothing: `fire_below`, a
    percentile. `limits` returns the limits of slots, `can_fire` a mask of them: those that `only_if` lets fire.
    `elapsed_ns`: the length of the newest tick. A group without traffic in the tick before can have begun within the
    newest one: the next tick shows how much it has.
    """
    times = np.zeros(evaluation.view.groups.size)
    if not (rule.thresholds.above and elapsed_ns and isinstance(evaluation, (Aggregation, DistinctCount))):
        return times
    slots = np.arange(len(times), dtype=np.int32)
    newest = np.nan_to_num(evaluation.newest_alone(elapsed_ns))
    limit = limits(slots)
    if rule.window_ns < _FEW_TICKS * elapsed_ns:
        times[evaluation.has_begun() & (newest > limit * _BEGUN_SHARE)] = elapsed_ns + 1
    near = np.flatnonzero(newest > np.maximum(limit, 0))
    missing = np.maximum(limit - np.nan_to_num(evaluation.values(slots, window_filled=True)), 0)
    # The time in which ticks like the newest one add so much, while nothing leaves the window.
    fill_ns, missing_ns = (rule.window_ns * part[near] / newest[near] for part in (np.maximum(limit, 0), missing))
    is_soon = missing_ns <= max(_SOON_NS, rule.window_ns / _SOON_PARTS, _SPARE_TICKS * elapsed_ns)
    times[near[is_soon]] = fill_ns[is_soon] + _SPARE_TICKS * elapsed_ns
    candidates = np.flatnonzero(times).astype(np.int32)
    times[candidates[~can_fire(candidates)]] = 0
    return times
