"""Windows: running sums over the ticks of the last n seconds.

The newest tick is added, ticks that leave the window are subtracted. This is exact because all values are whole numbers
(connections, bytes, segments, nanoseconds, milliseconds times connections) and sums stay below 2^53, so that float64
does not round. The values of a tick are stored sparsely where few groups changed, in the narrowest type that fits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watchdog.clock import SECOND_NS
from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers

MAX_RECENT_TICKS: Final = 20  # in the history of an alert
_RECENT_BYTES = 65_536  # of each metric under one `by` and `where`
_DENSE_SHARE = (
    0.5  # of the slots in the range: from this share on, a plain array is smaller and faster than slots and values
)


_PAST_STEPS = 64  # of a window, in which the values of earlier ticks are kept


class WindowCoverage:
    """Number and measured time of the ticks in one window, for all metrics."""

    def __init__(self, window_ns: int) -> None:
        """Start without ticks."""
        self.window_ns = window_ns
        self.tick_count = 0
        self._measured_ns = 0
        self._measured_ms = 0
        self._entries: deque[tuple[int, int]] = deque()

    def push(self, at_ns: int, elapsed_ns: int) -> None:
        """Add a tick and remove those at or before `at_ns` - window."""
        self._entries.append((at_ns, elapsed_ns))
        self._count(1, elapsed_ns)
        while self._entries[0][0] <= at_ns - self.window_ns:
            _, removed_ns = self._entries.popleft()
            self._count(-1, removed_ns)

    def _count(self, sign: int, elapsed_ns: int) -> None:
        self.tick_count += sign * (elapsed_ns > 0)
        self._measured_ns += sign * elapsed_ns
        self._measured_ms += sign * tick_weight_ms(elapsed_ns)

    @property
    def rate_seconds(self) -> float:
        """Return the divisor of rates: the measured time, but at least the window.

        While less was measured, the time before counts as 0: a young window makes no false alarm.
        """
        return max(self.window_ns, self._measured_ns) / SECOND_NS

    @property
    def mean_weight(self) -> int:
        """Return the divisor of a mean over time: the weights of the ticks, at least the window."""
        window_ms = 0 if self._measured_ns >= self.window_ns else tick_weight_ms(self.window_ns)
        return max(window_ms, self._measured_ms, 1)


def tick_weight_ms(elapsed_ns: int) -> int:
    """Return the weight of a tick in a mean over time: whole milliseconds, so that weighted sums stay whole numbers."""
    return round(elapsed_ns / 1_000_000)


@dataclass(frozen=True, slots=True)
class TickValues:
    """Values of one tick: for distinct `slots`, or for consecutive slots from the first one, `slots`, on."""

    at_ns: int
    slots: Slots | int
    values: NDArray[np.generic]

    def apply(self, sums: Numbers, operation: np.ufunc) -> None:
        """Add to, or subtract from, `sums` in place."""
        if isinstance(self.slots, int):
            part = sums[self.slots : self.slots + len(self.values)]
            operation(part, self.values, out=part)
        else:
            sums[self.slots] = operation(sums[self.slots], self.values)

    def value_of(self, slot: int) -> float:
        """Return the value of `slot`, 0 where it has none."""
        index = slot - self.slots if isinstance(self.slots, int) else int(self.slots.searchsorted(slot))
        if not 0 <= index < len(self.values):
            return 0.0
        return float(self.values[index]) if isinstance(self.slots, int) or self.slots[index] == slot else 0.0

    def sparse(self) -> tuple[Slots, Numbers]:
        """Return distinct slots in rising order, and their values."""
        slots = self.slots
        if isinstance(slots, int):
            slots = np.arange(slots, slots + len(self.values), dtype=np.int32)
        return slots, self.values.astype(np.float64)

    @property
    def nbytes(self) -> int:
        """Return the memory of its arrays."""
        return self.values.nbytes + (0 if isinstance(self.slots, int) else self.slots.nbytes)


def pack_tick_values(at_ns: int, slots: Slots, values: Numbers) -> TickValues:
    """Return `values` of `slots` (distinct, in rising order) as the smallest `TickValues`."""
    changed = np.count_nonzero(values)
    if not changed:
        return TickValues(at_ns, 0, np.zeros(0))
    if changed < len(slots) * _DENSE_SHARE:
        nonzero = np.flatnonzero(values)
        slots, values = slots[nonzero], values[nonzero]
    first, reach = int(slots[0]), int(slots[-1]) - int(slots[0]) + 1
    if len(slots) == reach:
        return TickValues(at_ns, first, _narrow(values))
    if len(slots) >= reach * _DENSE_SHARE:
        dense = np.zeros(reach)
        dense[slots - first] = values
        return TickValues(at_ns, first, _narrow(dense))
    return TickValues(at_ns, slots, _narrow(values))


def _narrow(values: Numbers) -> NDArray[np.generic]:
    """Return the same whole numbers in the smallest unsigned type that holds them; others as they are."""
    if values.min() < 0:
        return values
    top = values.max()
    for kind in (np.uint8, np.uint16, np.uint32):
        if top <= np.iinfo(kind).max:
            narrow = values.astype(kind)
            return narrow if np.array_equal(narrow, values) else values
    return values


class RecentTicks:
    """The newest ticks, for the history of an alert, within a small bound of memory.

    On a host with few groups they reach back further than every window; with very many groups, less far.
    """

    def __init__(self) -> None:
        """Start without ticks."""
        self.entries: deque[TickValues] = deque()
        self._bytes = 0

    def push(self, new: TickValues) -> None:
        """Add the newest tick and remove the oldest beyond the bounds."""
        self.entries.append(new)
        self._bytes += new.nbytes
        while len(self.entries) > MAX_RECENT_TICKS or (self._bytes > _RECENT_BYTES and len(self.entries) > 1):
            self._bytes -= self.entries.popleft().nbytes

    def by_slot(self, size: int, age: int = 0) -> Numbers:
        """Return the values of all slots below `size` in the newest tick, or in the one of `age` ticks before."""
        values = np.zeros(size)
        if age < len(self.entries):
            self.entries[-1 - age].apply(values, np.add)
        return values


def has_begun(ticks: Sequence[RecentTicks], size: int) -> NDArray[np.bool_]:
    """Return a mask of the slots below `size`: something in the newest of `ticks`, nothing in the one before.

    Of no slot where the tick before is not kept.
    """
    if any(len(one.entries) <= 1 for one in ticks):
        return np.zeros(size, np.bool_)
    now, before = (np.any([one.by_slot(size, age) > 0 for one in ticks], axis=0) for age in (0, 1))
    return np.asarray(now & ~before)


class WindowSum:
    """Running sums by slot over one window."""

    def __init__(self, window_ns: int) -> None:
        """Start at zero everywhere."""
        self.window_ns = window_ns
        self.sums: Numbers = np.zeros(0)
        self._entries: deque[TickValues] = deque()
        self._past: dict[int, tuple[Slots, Numbers]] = {}  # slots and values, by step of time

    def push(self, new: TickValues, capacity: int, earlier: Sequence[TickValues] = ()) -> None:
        """Add the newest tick, with values of `earlier` ones, and subtract those that left the window."""
        if len(self.sums) < capacity:
            self.sums = np.concatenate((self.sums, np.zeros(capacity - len(self.sums))))
        self._entries.append(new)
        new.apply(self.sums, np.add)
        while self._entries[0].at_ns <= new.at_ns - self.window_ns:
            self._entries.popleft().apply(self.sums, np.subtract)
        if earlier or self._past:
            self._add_earlier(new.at_ns - self.window_ns, earlier)

    def _add_earlier(self, begin_ns: int, earlier: Sequence[TickValues]) -> None:
        step_ns = max(self.window_ns // _PAST_STEPS, 1)
        for values in earlier:
            if values.at_ns > begin_ns:
                values.apply(self.sums, np.add)
                slots, numbers = values.sparse()
                before = self._past.get(values.at_ns // step_ns, (slots[:0], numbers[:0]))
                self._past[values.at_ns // step_ns] = _added((*before, slots, numbers))
        for step in [step for step in self._past if step * step_ns <= begin_ns]:
            slots, numbers = self._past.pop(step)
            self.sums[slots] -= numbers


def _added(both: tuple[Slots, Numbers, Slots, Numbers]) -> tuple[Slots, Numbers]:
    slots, index = np.unique(np.concatenate((both[0], both[2])), return_inverse=True)
    return slots, np.bincount(index, weights=np.concatenate((both[1], both[3]))).astype(np.float64)


@dataclass(frozen=True, slots=True)
class TickSamples:
    """Single values of one tick, in rising order of `slots`."""

    at_ns: int
    slots: Slots
    values: Numbers

    def values_of(self, slots: Slots) -> tuple[Slots, Numbers]:
        """Return index into `slots` and value, for each value that belongs to one of `slots`."""
        first = self.slots.searchsorted(slots, side="left")
        counts = self.slots.searchsorted(slots, side="right") - first
        owner = np.arange(len(slots), dtype=np.int32).repeat(counts)
        within = np.arange(len(owner)) - (counts.cumsum() - counts).repeat(counts)
        return owner, self.values[first.repeat(counts) + within]


class SampleWindow:
    """The single values of one window, kept so that order statistics are exact."""

    def __init__(self, window_ns: int) -> None:
        """Start without values."""
        self.window_ns = window_ns
        self.entries: deque[TickSamples] = deque()

    def push(self, new: TickSamples) -> None:
        """Add the newest tick and remove those that left the window."""
        self.entries.append(new)
        while self.entries[0].at_ns <= new.at_ns - self.window_ns:
            self.entries.popleft()

    def values_of(self, slots: Slots) -> tuple[Slots, Numbers]:
        """Return index into `slots` and value of every value in the window, ordered by index, then value."""
        owner, values = _joined(samples.values_of(slots) for samples in self.entries)
        order = np.lexsort((values, owner))
        return owner[order], values[order]


def _joined(parts: Iterable[tuple[Slots, Numbers]]) -> tuple[Slots, Numbers]:
    owners, values = [np.zeros(0, dtype=np.int32)], [np.zeros(0)]
    for owner, value in parts:
        owners.append(owner)
        values.append(value)
    return np.concatenate(owners), np.concatenate(values)
