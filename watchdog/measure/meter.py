"""The meter: readings of the kernel in, snapshots for the rules out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from socket import AF_INET

import numpy as np
from numpy.typing import NDArray

from watchdog.kernel.collector import Reading
from watchdog.kernel.layout import CONNECTION
from watchdog.measure.attribution import Attribution
from watchdog.measure.catalogue import ABSENT_CODE, FAMILIES, METRICS, UNKNOWN_CODE, MetricKind
from watchdog.measure.cgroup import Cgroups
from watchdog.measure.deltas import Changes, Deltas
from watchdog.measure.interning import InternedNames
from watchdog.measure.snapshot import AddressHalves, Codes, Numbers, Snapshot
from watchdog.measure.struct_rows import concatenate_rows
from watchdog.measure.users import UserNames

SELF_PROCESS = "bpf-watchdog"
"""The process in whose row the watchdog's own losses stand."""

_TRAFFIC = ("bytes_sent", "bytes_received", "packets_sent", "packets_received", "retransmits")
_NO_ADDRESS = np.uint64(2**64 - 1)  # both halves
_OFFSETS = {name: offset for name, (_, offset, *_) in (CONNECTION.fields or {}).items()}
_MAPPED = np.uint64(0xFFFF)  # ::ffff:0:0/96, upper half of the lower half


class _Dimensions(Mapping[str, Codes]):
    # Addresses are many and few rules ask for them: their codes are made on demand.
    def __init__(self, columns: dict[str, Codes], lazy: Mapping[str, Callable[[], Codes]]) -> None:
        self._columns = columns
        self._lazy = lazy

    def __getitem__(self, name: str) -> Codes:
        if name not in self._columns:
            self._columns[name] = self._lazy[name]()
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._columns, **self._lazy})

    def __len__(self) -> int:
        return len({**self._columns, **self._lazy})


@dataclass(frozen=True, slots=True)
class TickCounts:
    """What the daemon counted since the newest snapshot: the same as in `Quality`."""

    late_seconds: float = 0.0
    missed: int = 0
    failed: int = 0
    lost_samples: int = 0


NO_MISSED_TICKS = TickCounts()


class Meter:
    """Turns readings into snapshots; keeps what it needs from one to the next."""

    def __init__(self) -> None:
        """Start with a baseline to come."""
        self.names = InternedNames()
        self._deltas = Deltas()
        self._identity = Attribution(self.names, Cgroups(), UserNames())
        self._previous_ns: int | None = None

    def advance(self, reading: Reading, wall: float, tick_counts: TickCounts = NO_MISSED_TICKS) -> Snapshot:
        """Return the snapshot of one reading; the first one has `elapsed_ns` 0."""
        _, snapshot = self.advance_with_changes(reading, wall, tick_counts)
        return snapshot

    def process_start_ns(self, pid: int) -> int | None:
        """Return when a process of the newest readings began, by CLOCK_BOOTTIME, None if it is not known."""
        return self._identity.process_start_ns(pid)

    def advance_with_changes(
        self, reading: Reading, wall: float, ticks: TickCounts = NO_MISSED_TICKS
    ) -> tuple[Changes, Snapshot]:
        """Return the snapshot and the changes that it was made from; `ticks` tells how it came to this reading.

        The snapshot's first rows are those of the changes; one for each answer to a request follows them. Traffic that
        is late is in the changes, which totals are made of, and not in the snapshot, which rates are made of.
        """
        changes = self._deltas.advance(reading)
        unattributed = changes.rows["owner"]["tgid"] == 0
        moved = changes.metrics["bytes_sent"] + changes.metrics["bytes_received"]
        who = self._identity.codes(changes.rows["owner"], reading.at_ns)
        nameless = np.any([codes == UNKNOWN_CODE for codes in who.values()], axis=0)
        quality = replace(
            reading.quality,
            names_full=int(nameless.sum()),
            unattributed_bytes=int(moved[unattributed].sum()),
            late_bytes=int(moved[changes.late].sum()),
            late_seconds=ticks.late_seconds,
            missed_ticks=ticks.missed,
            failed_ticks=ticks.failed,
            lost_samples=ticks.lost_samples,
        )
        lost = quality.ledger_full + quality.sums_full + quality.storage_failed + quality.missed_events
        lost += quality.names_full
        changes = _with_self(
            changes, {"lost_connections": lost, "missed_ticks": ticks.missed, "failed_ticks": ticks.failed}
        )
        answers = changes.responses.rows
        elapsed = 0 if self._previous_ns is None else reading.at_ns - self._previous_ns
        self._previous_ns = reading.at_ns
        dimensions, addresses = self._dimensions(changes, who, reading.at_ns)
        metrics = dict(changes.metrics)
        for name in _TRAFFIC:
            metrics[name] = np.where(changes.late, 0, metrics[name])
        if len(answers):  # one more row for each, of the connection that it belongs to
            metrics = _with_answers(metrics, changes.responses.seconds)
            dimensions = _Dimensions({}, {name: _extended(dimensions, name, answers) for name in dimensions})
            addresses = {end: np.concatenate([halves, halves[answers]]) for end, halves in addresses.items()}
        snapshot = Snapshot(reading.at_ns, elapsed, wall, dimensions, metrics, addresses, self.names, quality)
        return changes, snapshot

    def _dimensions(
        self, changes: Changes, who: Mapping[str, Codes], at_ns: int
    ) -> tuple[_Dimensions, dict[str, AddressHalves]]:
        rows = changes.rows
        columns = {name: np.append(codes, np.uint32(ABSENT_CODE)) for name, codes in who.items()}
        columns["process"][-1] = self.names.intern("process", SELF_PROCESS, at_ns)
        addresses = {end: _halves(rows, end) for end in ("local", "remote")}
        remote = addresses["remote"]
        ipv4 = (remote[:, 0] == 0) & (remote[:, 1] >> np.uint64(32) == _MAPPED)
        ipv4 |= rows["family"] == AF_INET
        family = np.where(ipv4, FAMILIES.index("ipv4"), FAMILIES.index("ipv6"))
        columns["family"] = family.astype(np.uint32)
        columns["failure"] = changes.failure.astype(np.uint32)
        for name in ("netns", "direction", "local_port", "remote_port", "state"):
            columns[name] = rows[name].astype(np.uint32)
        missing = _missing(rows)
        apart = missing != 0
        for name in ("local_port", "remote_port", "state", "failure"):
            columns[name][apart] = missing[apart]
        for name in ("family", "direction", "netns"):  # some of these rows have them
            blank = apart & (rows[name] == 0)
            columns[name][blank] = missing[blank]
        for halves in addresses.values():
            halves[apart] = _NO_ADDRESS
        lazy = {end: (lambda end=end: self._address_codes(end, addresses[end], missing, at_ns)) for end in addresses}
        return _Dimensions(columns, lazy), addresses

    def _address_codes(self, end: str, halves: AddressHalves, missing: Codes, at_ns: int) -> Codes:
        codes = missing.copy()
        there = missing == 0
        codes[there] = self.names.intern_addresses(end, halves[there], at_ns)
        return codes


def _missing(rows: NDArray[np.void]) -> Codes:
    """Return 0 for connections; for others, the code in the dimensions that they lack.

    What was folded into sums lost them; UDP, which has a family, and the watchdog's own row, the last, never had them.
    """
    missing = np.where(rows["family"] == 0, UNKNOWN_CODE, ABSENT_CODE).astype(np.uint32)
    missing[-1] = ABSENT_CODE
    missing[rows["cookie"] != 0] = 0
    return missing


def _halves(rows: NDArray[np.void], end: str) -> AddressHalves:
    words = rows.view("<u8").reshape(len(rows), -1)  # a copy of words is four times as fast as one of bytes
    at = _OFFSETS[end] // words.itemsize
    return np.ascontiguousarray(words[:, at : at + 2]).byteswap()


def _with_self(changes: Changes, own: Mapping[str, int]) -> Changes:
    # The last row is the watchdog's own: what it lost, and nothing else.
    count = len(changes.rows)
    metrics = {name: np.full(count + 1, _nothing(name)) for name in METRICS}
    for name, values in changes.metrics.items():
        metrics[name][:count] = values
    for name, value in own.items():
        metrics[name][count] = value
    rows = concatenate_rows([changes.rows, np.zeros(1, CONNECTION)])
    failure, late = np.append(changes.failure, np.uint8(0)), np.append(changes.late, False)
    return Changes(rows, failure, metrics, changes.responses, late)


def _nothing(name: str) -> float:
    return np.nan if METRICS[name].kind is MetricKind.DISTRIBUTION else 0.0


def _with_answers(metrics: Mapping[str, Numbers], seconds: Numbers) -> dict[str, Numbers]:
    extended = {}
    for name, values in metrics.items():
        extended[name] = np.concatenate([values, np.full(len(seconds), _nothing(name))])
    extended["response_latency"][-len(seconds) :] = seconds
    return extended


def _extended(dimensions: Mapping[str, Codes], name: str, answers: NDArray[np.intp]) -> Callable[[], Codes]:
    return lambda: np.concatenate([dimensions[name], dimensions[name][answers]])
