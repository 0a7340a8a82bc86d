"""How complete a snapshot is: carried with every one of them, so that rules know when they can't know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quality:
    """What the collector knows to be missing from, or late in, one snapshot.

    Counts are of this snapshot alone, not since the start.
    """

    ledger_full: int = 0  # closed connections folded into per-process sums: totals exact, detail lost
    sums_full: int = 0  # closed connections that found neither ledger nor sums: lost
    storage_failed: int = 0  # sockets the kernel had no memory to follow: lost until the pass sees them
    responses_lost: int = 0  # answers whose latency was lost: the others are still a fair sample
    datagrams_lost: int = 0  # UDP messages that were not counted
    missed_events: int = 0  # events lost: the kernel skipped a program, and no other took them
    late_bytes: int = 0  # of connections seen for the first time in long: in no rate, for they are no news
    names_full: int = 0  # connections some name of whose owner is not known, there being too many names
    unattributed_bytes: int = 0  # bytes whose process is not known
    pass_seconds: float = 0.0  # what the pass over live sockets took
    pass_retries: int = 0  # how often it had to be resumed after 1,000,000 files without a TCP socket among them
    late_seconds: float = 0.0  # how much later than planned this tick began
    missed_ticks: int = 0  # whole ticks that never ran since the previous snapshot
    failed_ticks: int = 0  # ticks that broke off, since the newest tick before that did not
    lost_samples: int = 0  # of those, the ones whose sample was not judged: it is in no count

    @property
    def is_incomplete(self) -> bool:
        """Tell whether counts may be too low, so that a rule that does not fire may be wrong."""
        lost_in_kernel = self.sums_full or self.storage_failed or self.missed_events or self.datagrams_lost
        return bool(lost_in_kernel or self.lost_samples)
