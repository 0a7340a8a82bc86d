"""Groups that are about to fire: traffic beyond the limit has begun, and the window fills with it.

A window of 5 s passes its limit seconds after the traffic has. A rule on the sum of many groups passes its own limit
earlier, although each of these groups is going to fire. The newest tick alone shows them: its value, as if the whole
window was like this tick.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers
from watchdog.rules.engine.aggregations import Aggregation
from watchdog.rules.engine.distinct import DistinctCount
from watchdog.rules.engine.plan import Evaluation
from watchdog.rules.engine.selection import Mask
from watchdog.rules.language.rule import Rule


def time_to_limit(
    rule: Rule,
    evaluation: Evaluation,
    limits: Callable[[Slots], Numbers],
    can_fire: Callable[[Slots], Mask],
    elapsed_ns: int,
) -> Numbers:
    """Return by slot the time in ns within which the group passes its limit, if traffic goes on as in the newest tick.

    0 for groups that do not, and for all of a rule whose newest tick proves nothing: with `fire_below`, a percentile.
    `limits` returns the limits of slots, `can_fire` a mask of them: those that `only_if` lets fire. `elapsed_ns`: the
    length of the newest tick. A group without traffic in the tick before can have begun within the newest one: the next
    tick shows how much it has.
    """
    times = np.zeros(evaluation.view.groups.size)
    if not (rule.thresholds.above and elapsed_ns and isinstance(evaluation, (Aggregation, DistinctCount))):
        return times
    values = np.nan_to_num(evaluation.newest_alone(elapsed_ns))
    limit = limits(np.arange(len(times), dtype=np.int32))
    times[evaluation.has_begun()] = elapsed_ns + 1
    near = np.flatnonzero(values > limit)
    # The larger the value, the smaller the part of the window that it fills until the limit; windows have whole ticks.
    times[near] = rule.window_ns * np.maximum(limit[near], 0) / np.maximum(values[near], 1e-9) + 2 * elapsed_ns
    candidates = np.flatnonzero(times).astype(np.int32)
    times[candidates[~can_fire(candidates)]] = 0
    return times
