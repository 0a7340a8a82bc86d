"""The snapshot: the measurements of one tick, one row per connection, and the codes of their dimensions.

It is the only input of the rules, live or from a recording.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from watchdog.kernel.quality import Quality
from watchdog.measure.loss_bounds import Undercounted

Codes = NDArray[np.uint32]
Numbers = NDArray[np.float64]
AddressHalves = NDArray[np.uint64]


class NameLookup(Protocol):
    """Maps codes of dimension columns to text, and text to codes."""

    def text(self, dimension: str, code: int) -> str:
        """Return the text of `code` in `dimension`, in the form of rule files."""
        ...

    def find_code(self, dimension: str, text: str) -> int | None:
        """Return the code of a name or an address, None while it has none."""
        ...


@dataclass(frozen=True, slots=True)
class LateTraffic:
    """The rows whose traffic is of more than this tick, because no pass saw their connection.

    `rows`: (m,), index into the rows of the snapshot. `unseen_ns`: (m,) int64, time since the connection was last seen.
    """

    rows: NDArray[np.intp]
    unseen_ns: NDArray[np.int64]


NO_LATE_TRAFFIC = LateTraffic(np.empty(0, np.intp), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The measurements of n connections in one tick.

    `at_ns`: CLOCK_BOOTTIME at the end of the pass. `elapsed_ns`: measured time since the previous snapshot, the divisor
    of rates; 0 in the first snapshot, where all rows are baselines. `wall`: for display only.
    `dimensions`: by name, (n,) uint32 codes; equal codes mean equal values. Names and addresses are interned, numbers
    and choices are their own code (choices: index into `Dimension.choices`). Rows with a lost value have
    `UNKNOWN_CODE`, rows without such a value `ABSENT_CODE`.
    `metrics`: by name, (n,) float64: for counters the change in this tick, for gauges the value now (0 if the
    connection has ended), for distributions one value or NaN for none; times in seconds.
    `addresses`: for `local` and `remote`, (n, 2) uint64: upper and lower half of the IPv6 address in host order,
    IPv4 as ::ffff:a.b.c.d, all ones where there is none.
    `late`: the rows whose traffic counts in sums now, and in rates over the time before.
    `partial`: (p,), indices of the rows with a lost value in any dimension, in rising order.
    `undercounted`: rows and those of their metrics that can be too low.
    """

    at_ns: int
    elapsed_ns: int
    wall: float
    dimensions: Mapping[str, Codes]
    metrics: Mapping[str, Numbers]
    addresses: Mapping[str, AddressHalves]
    names: NameLookup
    quality: Quality
    late: LateTraffic = NO_LATE_TRAFFIC
    partial: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    undercounted: tuple[Undercounted, ...] = ()

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.dimensions["pid"])

    def without_rows(self) -> Self:
        """Return the time, names and quality alone: what remains of a tick until the next one."""
        return replace(
            self,
            dimensions={},
            metrics={},
            addresses={},
            late=NO_LATE_TRAFFIC,
            partial=np.empty(0, np.intp),
            undercounted=(),
        )
