"""The meter: makes the snapshots for the rules from the readings of the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from socket import AF_INET

import numpy as np
from numpy.typing import NDArray

from watchdog.kernel.collector import Reading
from watchdog.kernel.layout import CONNECTION
from watchdog.kernel.quality import Quality
from watchdog.measure.attribution import Attribution
from watchdog.measure.catalogue import (
    ABSENT_CODE,
    DIMENSIONS,
    FAMILIES,
    METRICS,
    OTHER_CODE,
    UNCOUNTED_IN_SOCKMAP,
    UNKNOWN_CODE,
    DimensionKind,
    MetricKind,
)
from watchdog.measure.cgroup import Cgroups
from watchdog.measure.connection_metrics import is_of_namespace
from watchdog.measure.deltas import Changes, Deltas
from watchdog.measure.interning import InternedNames
from watchdog.measure.missing import DERIVED_FROM_COUNTERS, UNKNOWN_OF_LOST_CONNECTIONS, Undercounted
from watchdog.measure.snapshot import AddressHalves, Codes, LateTraffic, Numbers, Snapshot
from watchdog.measure.struct_rows import concatenate_rows
from watchdog.measure.users import UserNames

SELF_PROCESS = "bpf-watchdog"
"""The process of the row with the watchdog's own losses."""

_NO_ADDRESS = np.uint64(2**64 - 1)  # both halves
_OFFSETS = {name: offset for name, (_, offset, *_) in (CONNECTION.fields or {}).items()}
_MAPPED = np.uint64(0xFFFF)  # ::ffff:0:0/96, upper half of the lower half


class _Dimensions(Mapping[str, Codes]):
    # There are many addresses, and few rules use them: their codes are made on demand.
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
    """Counts of the daemon since the newest snapshot, as in `Quality`.

    `refused_reloads`: by SIGHUP. `unknown`: ticks in which losses left a rule unknown.
    """

    late_seconds: float = 0.0
    missed: int = 0
    failed: int = 0
    lost_samples: int = 0
    refused_reloads: int = 0
    unknown: int = 0


NO_MISSED_TICKS = TickCounts()


class Meter:
    """Makes snapshots from readings; keeps the last values of all connections."""

    def __init__(self) -> None:
        """Start without data: the first reading is the baseline."""
        self.names = InternedNames()
        self._deltas = Deltas()
        self._cgroups = Cgroups()
        self._attribution = Attribution(self.names, self._cgroups, UserNames())
        self._previous_ns: int | None = None

    def advance(self, reading: Reading, wall: float, tick_counts: TickCounts = NO_MISSED_TICKS) -> Snapshot:
        """Return the snapshot of one reading; the first snapshot has `elapsed_ns` 0."""
        _, snapshot = self.advance_with_changes(reading, wall, tick_counts)
        return snapshot

    def process_start_ns(self, pid: int) -> int | None:
        """Return the start of a process of the newest readings, CLOCK_BOOTTIME; None if unknown."""
        return self._attribution.process_start_ns(pid)

    def advance_with_changes(
        self, reading: Reading, wall: float, tick_counts: TickCounts = NO_MISSED_TICKS
    ) -> tuple[Changes, Snapshot]:
        """Return the changes of one reading and its snapshot. `tick_counts`: late, missed and failed ticks before it.

        The first rows of the snapshot are those of the changes; one row per response follows.
        """
        self._cgroups.add(reading.cgroups, reading.at_ns)
        changes = self._deltas.advance(reading)
        owner_codes = self._attribution.codes(changes.rows["owner"], reading.at_ns)
        not_followed = np.flatnonzero(changes.metrics["lost_connections"])
        nameless = np.flatnonzero(np.any([codes == UNKNOWN_CODE for codes in owner_codes.values()], axis=0))
        if len(nameless):
            owner_codes = _with_other_names(owner_codes)
        quality = _complete_quality(reading.quality, changes, len(nameless), tick_counts)
        unattributed = quality.sums_full + quality.storage_failed + quality.missed_events
        lost = np.append(_lost_connections(changes, nameless), unattributed)
        own = {
            "missed_ticks": tick_counts.missed,
            "failed_ticks": tick_counts.failed,
            "unknown_ticks": tick_counts.unknown,
            "refused_reloads": tick_counts.refused_reloads,
        }
        changes = _with_own_row(changes, own)
        changes.metrics["lost_connections"][:] = lost
        response_rows = changes.responses.rows
        elapsed = 0 if self._previous_ns is None else reading.at_ns - self._previous_ns
        self._previous_ns = reading.at_ns
        dimensions, addresses = self._dimensions(changes, owner_codes, reading.at_ns)
        metrics = dict(changes.metrics)
        if len(response_rows):  # one more row per response, a copy of its connection
            metrics = _with_responses(metrics, changes.responses.seconds)
            dimensions = _Dimensions({}, {name: _extended(dimensions, name, response_rows) for name in dimensions})
            addresses = {end: np.concatenate([halves, halves[response_rows]]) for end, halves in addresses.items()}
        late_rows = np.flatnonzero(changes.unseen_ns)
        late = LateTraffic(late_rows, changes.unseen_ns[late_rows])
        partial = np.union1d(nameless, np.flatnonzero(dimensions["local_port"] == UNKNOWN_CODE))
        partial = np.concatenate([partial, len(changes.rows) + np.flatnonzero(np.isin(response_rows, partial))])
        undercounted = (
            Undercounted(changes.in_sockmap, UNCOUNTED_IN_SOCKMAP),
            Undercounted(changes.refused, DERIVED_FROM_COUNTERS),
            Undercounted(not_followed, UNKNOWN_OF_LOST_CONNECTIONS),
        )
        snapshot = Snapshot(
            reading.at_ns,
            elapsed,
            wall,
            dimensions,
            metrics,
            addresses,
            self.names,
            quality,
            late,
            partial,
            undercounted,
        )
        return changes, snapshot

    def _dimensions(
        self, changes: Changes, owner_codes: Mapping[str, Codes], at_ns: int
    ) -> tuple[_Dimensions, dict[str, AddressHalves]]:
        rows = changes.rows
        columns = {name: np.append(codes, np.uint32(ABSENT_CODE)) for name, codes in owner_codes.items()}
        for codes in columns.values():
            codes[is_of_namespace(rows)] = ABSENT_CODE
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
        incomplete = missing != 0
        for name in ("local_port", "remote_port", "state", "failure"):
            columns[name][incomplete] = missing[incomplete]
        for name in ("family", "direction", "netns"):  # some of these rows have a value
            empty = incomplete & (rows[name] == 0)
            columns[name][empty] = missing[empty]
        missing_peer = np.where(remote.any(axis=1), 0, missing)  # rows of reset peers have a peer, and no other end
        lazy = {}
        for end, missing_end in (("local", missing), ("remote", missing_peer)):
            addresses[end][missing_end != 0] = _NO_ADDRESS
            lazy[end] = partial(self._address_codes, end, addresses[end], missing_end, at_ns)
        return _Dimensions(columns, lazy), addresses

    def _address_codes(self, end: str, halves: AddressHalves, missing: Codes, at_ns: int) -> Codes:
        codes = missing.copy()
        complete = missing == 0
        codes[complete] = self.names.intern_addresses(end, halves[complete], at_ns)
        return codes


def _complete_quality(quality: Quality, changes: Changes, nameless_count: int, tick_counts: TickCounts) -> Quality:
    unattributed = changes.rows["owner"]["tgid"] == 0
    traffic = changes.metrics["bytes_sent"] + changes.metrics["bytes_received"]
    return replace(
        quality,
        not_followed=int(changes.metrics["lost_connections"].sum()),
        names_full=nameless_count,
        responses_unassigned=changes.responses.unassigned,
        unattributed_bytes=int(traffic[unattributed].sum()),
        late_bytes=int(changes.metrics["late_bytes"].sum()),
        impossible_changes=len(changes.refused),
        sockmap_connections=len(changes.in_sockmap),
        late_seconds=tick_counts.late_seconds,
        missed_ticks=tick_counts.missed,
        failed_ticks=tick_counts.failed,
        lost_samples=tick_counts.lost_samples,
    )


def _with_other_names(owner_codes: Mapping[str, Codes]) -> dict[str, Codes]:
    """Return `owner_codes` with all names without space as one, except those of owners that are not known at all.

    A name without space is not that of any group with a name: known names keep their code.
    """
    names = [name for name in owner_codes if DIMENSIONS[name].kind is DimensionKind.NAME]
    known = np.any([owner_codes[name] != UNKNOWN_CODE for name in names], axis=0)
    other = {
        name: np.where(known & (owner_codes[name] == UNKNOWN_CODE), np.uint32(OTHER_CODE), owner_codes[name])
        for name in names
    }
    return {**owner_codes, **other}


def _lost_connections(changes: Changes, nameless: NDArray[np.intp]) -> Numbers:
    """Return, (n,), the number of connections of each row that lost details or counts."""
    rows = changes.rows
    lost = changes.metrics["lost_connections"].copy()
    lost += np.where((rows["cookie"] == 0) & (rows["family"] == 0), changes.metrics["closes"], 0)  # folded into sums
    lost[nameless] += 1
    lost[changes.refused] += 1
    return lost


def _missing(rows: NDArray[np.void]) -> Codes:
    """Return, (n,), 0 for connections, and for other rows the code for their missing dimensions.

    Rows of sums lost their dimensions. Rows of UDP and of reset peers, with a family, of resets without any peer, of
    sockets without a process, with a state, and the watchdog's own row, the last, have none.
    """
    lost = (rows["family"] == 0) & (rows["netns"] != 0) & (rows["state"] == 0)
    missing = np.where(lost, UNKNOWN_CODE, ABSENT_CODE).astype(np.uint32)
    missing[-1] = ABSENT_CODE
    missing[rows["cookie"] != 0] = 0
    return missing


def _halves(rows: NDArray[np.void], end: str) -> AddressHalves:
    words = rows.view("<u8").reshape(len(rows), -1)  # a copy of words is four times as fast as a copy of bytes
    at = _OFFSETS[end] // words.itemsize
    return np.ascontiguousarray(words[:, at : at + 2]).byteswap()


def _with_own_row(changes: Changes, losses: Mapping[str, int]) -> Changes:
    # The last row is the watchdog's own, with its losses only.
    count = len(changes.rows)
    metrics: dict[str, Numbers] = {name: np.full(count + 1, _empty_value(name)) for name in METRICS}
    for name, values in changes.metrics.items():
        metrics[name][:count] = values
    for name, value in losses.items():
        metrics[name][count] = value
    rows = concatenate_rows([changes.rows, np.zeros(1, CONNECTION)])
    failure, unseen_ns = np.append(changes.failure, np.uint8(0)), np.append(changes.unseen_ns, 0)
    return Changes(rows, failure, metrics, changes.responses, unseen_ns, changes.refused, changes.in_sockmap)


def _empty_value(name: str) -> float:
    return np.nan if METRICS[name].kind is MetricKind.DISTRIBUTION else 0.0


def _with_responses(metrics: Mapping[str, Numbers], seconds: Numbers) -> dict[str, Numbers]:
    extended = {}
    for name, values in metrics.items():
        extended[name] = np.concatenate([values, np.full(len(seconds), _empty_value(name))])
    extended["response_latency"][-len(seconds) :] = seconds
    return extended


def _extended(dimensions: Mapping[str, Codes], name: str, response_rows: NDArray[np.intp]) -> Callable[[], Codes]:
    return lambda: np.concatenate([dimensions[name], dimensions[name][response_rows]])
