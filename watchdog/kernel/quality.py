"""How complete a snapshot is. Each snapshot carries it, so that rules know how far their input can be too low."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Final

_NO_LOSSES = frozenset(
    ("pass_seconds", "walk_unfinished", "late_seconds", "late_bytes", "unattributed_bytes", "lost_amounts")
)


@dataclass(frozen=True, slots=True)
class Quality:
    """Data that is missing from one snapshot, or late in it.

    Counts are of this snapshot only, not since the start.
    """

    ledger_full: int = 0  # closed connections added to per-process sums: totals exact, details lost
    sums_full: int = 0  # closed connections that fit into neither ledger nor sums: lost
    storage_failed: int = 0  # events of sockets without memory for an entry: lost
    not_followed: int = 0  # connections of such sockets: their connects are counted for their process
    responses_lost: int = 0  # responses whose latency was lost: the others are still a fair sample
    responses_unassigned: int = 0  # responses of connections without a row in this tick: they are in no rule
    datagrams_lost: int = 0  # UDP messages that were not counted
    missed_events: int = 0  # events lost: the kernel skipped the program, and the fallback program too
    late_bytes: int = 0  # of connections unseen for a long time: rates spread them over that time
    impossible_changes: int = 0  # connections with a change of a counter that no connection can make: not counted
    names_full: int = 0  # connections with an unknown name of their owner, because there are too many names
    sockmap_connections: int = 0  # connections in a sockmap: their bytes are not known
    unattributed_bytes: int = 0  # bytes of unknown processes
    pass_seconds: float = 0.0  # duration of the pass over live sockets, and of this tick's part of the walk over files
    walk_unfinished: int = 0  # 1: the walk over files goes on after this tick, owners can be older than it
    late_seconds: float = 0.0  # delay of the start of this tick
    missed_ticks: int = 0  # ticks that did not run since the previous snapshot
    failed_ticks: int = 0  # ticks that failed since the last complete tick
    lost_samples: int = 0  # failed ticks whose sample was not judged: it is in no count
    # The amounts of the metrics in these samples; without an entry the amount is unknown.
    lost_amounts: Mapping[str, float] = field(default_factory=dict)

    def losses(self) -> dict[str, int]:
        """Return the counts of lost data that are not 0, by cause; delays and sums of bytes are none."""
        return {name: count for name, count in asdict(self).items() if count and name not in _NO_LOSSES}


LOSS_CAUSES: Final = tuple(part.name for part in fields(Quality) if part.name not in _NO_LOSSES)
"""Every cause that `Quality.losses` can have."""

PRESENT_LOSSES: Final = frozenset(("sockmap_connections",))
"""Causes whose count is a number of present connections: each tick has them again."""

LOSS_WORDS: Final[Mapping[str, str]] = {
    "ledger_full": "connections added up by process (too many ended within a tick)",
    "sums_full": "connections lost (too many processes)",
    "storage_failed": "events of connections not counted (no kernel memory)",
    "not_followed": "connections not followed after their connect (no kernel memory)",
    "missed_events": "events skipped by the kernel",
    "impossible_changes": "connections with impossible changes of their counters (not counted)",
    "names_full": "connections without their names (too many names)",
    "responses_lost": "responses not timed (too many within a tick)",
    "responses_unassigned": "responses without their connection (it has no open file, or was added up by process)",
    "datagrams_lost": "datagrams not counted (too many processes)",
    "sockmap_connections": "connections in a sockmap (their bytes are not known)",
    "missed_ticks": "ticks that did not run",
    "failed_ticks": "ticks that failed",
    "lost_samples": "samples that were not judged (their ticks failed)",
}
"""Each of `LOSS_CAUSES` in words, after its count."""


def total_losses(former: Mapping[str, int], quality: Quality) -> dict[str, int]:
    """Return the losses since the start with those of a further tick; of `PRESENT_LOSSES` those of this tick only."""
    losses = quality.losses()
    past = {cause: count for cause, count in former.items() if cause not in PRESENT_LOSSES}
    return past | {
        cause: count if cause in PRESENT_LOSSES else past.get(cause, 0) + count for cause, count in losses.items()
    }
