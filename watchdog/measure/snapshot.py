"""The snapshot: what one tick measured, one row per connection, and how its dimensions are coded.

This is the only thing that the rules see of the host, live or from a recording.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from watchdog.kernel.quality import Quality

Codes = NDArray[np.uint32]
Numbers = NDArray[np.float64]
AddressHalves = NDArray[np.uint64]


class NameLookup(Protocol):
    """Turns codes of dimension columns back into text."""

    def text(self, dimension: str, code: int) -> str:
        """Return the text of `code` in `dimension`, as a rule file would write it."""
        ...

    def find_code(self, dimension: str, text: str) -> int | None:
        """Return the code of a name or an address, None while it has none."""
        ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One tick's measurement of n connections.

    `at_ns`: CLOCK_BOOTTIME at the end of the pass. `elapsed_ns`: measured time since the previous snapshot, what rates
    divide by; 0 in the first one, whose rows are baselines. `wall`: for display only.
    `dimensions`: by name, (n,) uint32 codes; equal codes mean equal values. Names are interned, numbers and choices are
    their own code (choices: index into `Dimension.choices`), addresses are interned. Rows whose value was lost have
    `UNKNOWN`, rows that have no such value `ABSENT`.
    `metrics`: by name, (n,) float64: counters hold the change in this tick, gauges the value now (0 where the
    connection has ended), distributions one value or NaN for none; seconds for times.
    `addresses`: for `local` and `remote`, (n, 2) uint64: upper and lower half of the IPv6 address in host order,
    IPv4 as ::ffff:a.b.c.d, all ones where there is none.
    """

    at_ns: int
    elapsed_ns: int
    wall: float
    dimensions: Mapping[str, Codes]
    metrics: Mapping[str, Numbers]
    addresses: Mapping[str, AddressHalves]
    names: NameLookup
    quality: Quality

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.dimensions["pid"])
