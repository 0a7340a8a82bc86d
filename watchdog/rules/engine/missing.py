"""Sums of the amounts that the ticks of a window can miss: 0 unless something was lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from watchdog.measure.slot_table import NEVER_NS, Slots
from watchdog.measure.snapshot import Numbers
from watchdog.rules.engine.window import WindowSum, pack_tick_values


@dataclass(frozen=True, slots=True)
class MissingAmounts:
    """The most that the newest tick can miss of one metric.

    `slots`: distinct, in rising order. `amounts`: one for each of them, infinite without a bound. `everywhere`: for
    every slot besides, since the group of the loss is not known.
    """

    slots: Slots
    amounts: Numbers
    everywhere: float


NOTHING_MISSING = MissingAmounts(np.zeros(0, np.int32), np.zeros(0), 0.0)


class MissingSum:
    """Running sums of missing amounts by slot over one window. It has no arrays while nothing is missing."""

    def __init__(self, window_ns: int) -> None:
        """Start with nothing missing."""
        self.window_ns = window_ns
        self._newest_ns = NEVER_NS  # of the newest tick that misses something
        self._clear()

    def _clear(self) -> None:
        self._bounded, self._unbounded = WindowSum(self.window_ns), WindowSum(self.window_ns)
        self._everywhere: deque[tuple[int, float]] = deque()
        self.is_empty = True

    def push(self, at_ns: int, capacity: int, missing: MissingAmounts) -> None:
        """Add the newest tick and remove those that left the window."""
        if len(missing.slots) or missing.everywhere:
            self._newest_ns, self.is_empty = at_ns, False
        elif self.is_empty:
            return
        elif self._newest_ns <= at_ns - self.window_ns:
            self._clear()
            return
        without_bound = np.isinf(missing.amounts)
        bounded = np.where(without_bound, 0, missing.amounts)
        self._bounded.push(pack_tick_values(at_ns, missing.slots, bounded), capacity)
        self._unbounded.push(pack_tick_values(at_ns, missing.slots, without_bound.astype(np.float64)), capacity)
        self._everywhere.append((at_ns, missing.everywhere))
        while self._everywhere[0][0] <= at_ns - self.window_ns:
            self._everywhere.popleft()

    def amounts(self, slots: Slots) -> Numbers:
        """Return the missing amount of each of `slots`."""
        if self.is_empty:
            return np.zeros(len(slots))
        amounts = self._bounded.sums[slots] + sum(amount for _, amount in self._everywhere)
        return np.where(self._unbounded.sums[slots] > 0, np.inf, amounts)


class MissingAccumulator:
    """Adds the missing amounts of each tick into windows."""

    def __init__(self, read: Callable[[], tuple[int, int, MissingAmounts]]) -> None:
        """Start without windows; `read` returns the time of the newest tick, the number of slots, and the amounts."""
        self._read = read
        self.windows: dict[int, MissingSum] = {}

    def add_newest_tick(self) -> None:
        """Add the newest tick to each window."""
        newest = self._read()
        for window in self.windows.values():
            window.push(*newest)
