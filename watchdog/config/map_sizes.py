"""How much the kernel half can keep between two ticks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MapSizes:
    """What certainly finds room; the kernel rounds up. Beyond it detail is lost, and counted.

    `ledger`: ends of connections, 216 bytes each; further ones are added to their process's sums. `responses`: answers
    to requests, 24 bytes each, while they are measured. `processes`: with such sums, and with UDP, 440 bytes each.
    """

    ledger: int = 65_536
    responses: int = 131_072
    processes: int = 4_096


DEFAULT_MAP_SIZES = MapSizes()
