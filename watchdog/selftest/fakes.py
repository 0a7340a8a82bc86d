"""Fakes of a host: clocks that step on command, and a collector with simulated connections."""

from __future__ import annotations

import time

import numpy as np

from watchdog.clock import SECOND_NS
from watchdog.kernel.collector import Reading
from watchdog.kernel.layout import CONNECTION, DATAGRAMS, DATAGRAMS_KEY, FLAG_CONNECT, RESPONSE, SUMS, SUMS_KEY
from watchdog.kernel.quality import Quality
from watchdog.kernel.totals_map import Totals
from watchdog.measure.catalogue import DIRECTIONS

_PORT = 443


class SteppedClock:
    """The host's clocks, with the wall clock shifted by `wall_offset_seconds`."""

    def __init__(self) -> None:
        """Start without an offset."""
        self.wall_offset_seconds = 0.0

    def boottime_ns(self) -> int:
        """Return CLOCK_BOOTTIME in ns."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Return CLOCK_REALTIME with the offset."""
        return time.time() + self.wall_offset_seconds


class ManualClock(SteppedClock):
    """A clock that advances only when `since_boot_ns` is set."""

    def __init__(self) -> None:
        """Stand at 1,000 s after boot."""
        super().__init__()
        self.since_boot_ns = 1_000 * SECOND_NS
        self._booted = time.time()

    def boottime_ns(self) -> int:
        """Return the time since boot in ns."""
        return self.since_boot_ns

    def wall(self) -> float:
        """Return the wall clock with the offset."""
        return self._booted + self.since_boot_ns / SECOND_NS + self.wall_offset_seconds


class FakeCollector:
    """Replaces the collector: in each tick `connects` connections begin, transfer 10 MB each way, and break."""

    message_probes_problem = ""

    def __init__(self, clock: ManualClock) -> None:
        """Start without connections."""
        self.connects = 0
        self._clock = clock
        self._last_cookie = 0

    def read(self) -> Reading:
        """Return the connections of this tick."""
        now_ns = self._clock.boottime_ns()
        rows = np.zeros(self.connects, CONNECTION)
        rows["cookie"] = self._last_cookie + 1 + np.arange(self.connects)
        self._last_cookie += self.connects
        rows["born_ns"] = rows["established_ns"] = rows["ended_ns"] = now_ns
        rows["bytes_sent"] = rows["bytes_received"] = 10_000_000
        rows["packets_sent"], rows["packets_received"], rows["retransmits"] = 10_000, 10_000, 5_000
        rows["resets_received"], rows["srtt_us"] = 1, 2_000_000
        rows["flags"], rows["direction"], rows["family"] = FLAG_CONNECT, DIRECTIONS.index("out"), 2
        rows["remote_port"] = _PORT
        rows["remote"][:, 10:] = 255, 255, 192, 0, 2, 7  # RFC 5737
        rows["owner"]["tgid"], rows["owner"]["comm"] = 2**22 + 1, b"selftest"  # beyond what a pid can be
        return Reading(
            at_ns=now_ns,
            live=np.empty(0, CONNECTION),
            closed=rows,
            sums=Totals(np.empty(0, SUMS_KEY), np.empty(0, SUMS)),
            responses=np.empty(0, RESPONSE),
            datagrams=Totals(np.empty(0, DATAGRAMS_KEY), np.empty(0, DATAGRAMS)),
            quality=Quality(),
        )

    def request_complete_pass(self) -> None:
        """Do nothing."""

    def enable_message_probes(self) -> bool:
        """Return that the message probes are attached."""
        return True

    def disable_message_probes(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
