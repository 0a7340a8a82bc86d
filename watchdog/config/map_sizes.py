"""Sizes of the BPF maps that keep events between two ticks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MapSizes:
    """Guaranteed number of entries; the kernel rounds up. When a map is full, detail is lost and the loss is counted.

    `ledger`: ended connections, 216 bytes each; further ones are added to the totals of their process. `responses`:
    responses to requests while response latency is measured, 24 bytes each. `processes`: processes with such totals,
    and processes with UDP traffic, 440 bytes each.
    """

    ledger: int = 65_536
    responses: int = 131_072
    processes: int = 4_096


DEFAULT_MAP_SIZES = MapSizes()
