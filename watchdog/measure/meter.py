"""The meter: makes the snapshots for the rules from the readings of the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from socket import AF_INET

import numpy as np
from numpy.typing import NDArray

from watchdog.config.location_files import NO_LOCATION_FILES, LocationFiles
from watchdog.config.network_prefixes import DEFAULT_NETWORK_PREFIXES, NetworkPrefixes
from watchdog.kernel.collector import Reading
from watchdog.kernel.layout import CONNECTION
from watchdog.kernel.quality import Quality
from watchdog.measure import live_rows
from watchdog.measure.attribution import OWNER_DIMENSIONS, Attribution
from watchdog.measure.catalogue import (
    ABSENT_CODE,
    FAMILIES,
    LOCATION_DIMENSIONS,
    METRICS,
    UNCOUNTED_IN_SOCKMAP,
    UNKNOWN_CODE,
    MetricKind,
)
from watchdog.measure.cgroup import Cgroups
from watchdog.measure.connection_metrics import is_of_namespace
from watchdog.measure.connection_table import ConnectionTable
from watchdog.measure.deltas import KNOWN, Changes, Deltas
from watchdog.measure.interned_texts import OWN_ACCOUNT
from watchdog.measure.interning import InternedNames
from watchdog.measure.locations import Locations
from watchdog.measure.loss_bounds import DERIVED_FROM_COUNTERS, UNKNOWN_OF_LOST_CONNECTIONS, Undercounted
from watchdog.measure.networks import network_halves
from watchdog.measure.slot_table import NO_SLOT, Slots
from watchdog.measure.snapshot import AddressHalves, Codes, LateTraffic, Numbers, Snapshot
from watchdog.measure.snapshot_rows import LazyColumns, SnapshotRows
from watchdog.measure.struct_rows import concatenate_rows
from watchdog.measure.users import UserNames

SELF_PROCESS = "bpf-watchdog"
"""The process of the row with the watchdog's own losses."""

_NO_ADDRESS = np.uint64(2**64 - 1)  # both halves
_OFFSETS = {name: offset for name, (_, offset, *_) in (CONNECTION.fields or {}).items()}
_MAPPED = np.uint64(0xFFFF)  # ::ffff:0:0/96, upper half of the lower half


@dataclass(frozen=True, slots=True)
class TickCounts:
    """Counts of the daemon since the newest snapshot, as in `Quality`.

    `missed`: ticks of the configured interval without a snapshot. `refused_reloads`: by SIGHUP. `unknown`: ticks in
    which a rule was unknown. `slow_stages`: stages of ticks over their time. `unread_commands`: command lines of
    evidence. `interval_seconds`: the present interval.
    """

    late_seconds: float = 0.0
    missed: int = 0
    failed: int = 0
    lost_samples: int = 0
    lost_amounts: Mapping[str, float] = field(default_factory=dict)
    refused_reloads: int = 0
    unknown: int = 0
    slow_stages: int = 0
    unread_commands: int = 0
    interval_seconds: float = 1.0
    configured_seconds: float = 1.0

    def metrics(self) -> dict[str, float]:
        """Return the amounts of the metrics about the daemon itself, by name."""
        return {
            "missed_ticks": self.missed,
            "failed_ticks": self.failed,
            "unknown_ticks": self.unknown,
            "refused_reloads": self.refused_reloads,
            "slow_stages": self.slow_stages,
            "unread_commands": self.unread_commands,
            "tick_interval": self.interval_seconds,
            "configured_interval": self.configured_seconds,
        }


NO_MISSED_TICKS = TickCounts()


class Meter:
    """Makes snapshots from readings; keeps the last values of all connections."""

    def __init__(
        self, prefixes: NetworkPrefixes = DEFAULT_NETWORK_PREFIXES, files: LocationFiles = NO_LOCATION_FILES
    ) -> None:
        """Start without data: the first reading is the baseline. `prefixes`, `files`: of the networks of peers.

        Raises:
            WatchdogError: a file of locations cannot be read.
        """
        self._prefixes = prefixes
        self._locations = Locations(files)
        self.names = InternedNames(prefixes)
        table = ConnectionTable(KNOWN | live_rows.COLUMNS)
        self._deltas = Deltas(table)
        self._cgroups = Cgroups()
        self._users = UserNames()
        self._attribution = Attribution(self.names, self._cgroups, self._users)
        self._live = live_rows.LiveRows(table, self.names, self._attribution, prefixes)
        self._previous_ns: int | None = None

    def advance(self, reading: Reading, wall: float, tick_counts: TickCounts = NO_MISSED_TICKS) -> Snapshot:
        """Return the snapshot of one reading; the first snapshot has `elapsed_ns` 0."""
        _, snapshot = self.advance_with_changes(reading, wall, tick_counts)
        return snapshot

    def process_start_ns(self, pid: int) -> int | None:
        """Return the start of a process of the newest readings, CLOCK_BOOTTIME; None if unknown."""
        return self._attribution.process_start_ns(pid)

    def user_name(self, uid: int) -> str:
        """Return the name of a user of the host, or its number while no name is known."""
        return self._users.name(uid)

    def advance_with_changes(
        self, reading: Reading, wall: float, tick_counts: TickCounts = NO_MISSED_TICKS
    ) -> tuple[Changes, Snapshot]:
        """Return the changes of one reading and its snapshot. `tick_counts`: late, missed and failed ticks before it.

        The first rows of the snapshot are those of the changes, see `SnapshotRows`.
        """
        self._cgroups.add(reading.cgroups, reading.at_ns)
        changes = self._deltas.advance(reading)
        owners = self._attribution.assign(changes.rows["owner"], self._live.owners(), reading.at_ns)
        not_followed = np.flatnonzero(changes.metrics["lost_connections"])
        nameless = self._attribution.find_nameless(owners)
        lost = _lost_connections(changes, nameless)
        changes = _with_own_row(changes, tick_counts.metrics())
        columns, addresses, missing = self._changed_columns(changes, owners, reading.at_ns)
        self._live.write(changes, np.append(owners, NO_SLOT), columns, addresses)
        rows = SnapshotRows(changes, self._live)
        idle_nameless = self._attribution.find_nameless(self._live.idle_owners())
        in_sockmap = np.concatenate([changes.in_sockmap, rows.idle_start + self._live.find_idle_in_sockmap()])
        nameless_count = len(nameless) + len(idle_nameless)
        quality = _complete_quality(reading.quality, changes, nameless_count, len(in_sockmap), tick_counts)
        unattributed = quality.sums_full + quality.storage_failed + quality.missed_events
        changes.metrics["lost_connections"][:] = np.append(lost, unattributed)
        elapsed = 0 if self._previous_ns is None else reading.at_ns - self._previous_ns
        self._previous_ns = reading.at_ns
        late_rows = np.flatnonzero(changes.unseen_ns)
        partial_rows = np.union1d(nameless, np.flatnonzero(columns["local_port"] == UNKNOWN_CODE))
        partial_rows = np.concatenate([partial_rows, rows.idle_start + idle_nameless])
        of_partial = np.flatnonzero(np.isin(rows.response_rows, partial_rows))
        snapshot = Snapshot(
            reading.at_ns,
            elapsed,
            wall,
            self._dimensions(rows, columns, addresses, missing, changes.rows["owner"]["uid"], reading.at_ns),
            LazyColumns({name: partial(rows.metric, name) for name in METRICS}),
            self._addresses(rows, addresses),
            self.names,
            quality,
            LateTraffic(late_rows, changes.unseen_ns[late_rows]),
            np.concatenate([partial_rows, rows.response_start + of_partial]),
            (
                Undercounted(in_sockmap, UNCOUNTED_IN_SOCKMAP),
                Undercounted(changes.refused, DERIVED_FROM_COUNTERS),
                Undercounted(not_followed, UNKNOWN_OF_LOST_CONNECTIONS),
            ),
        )
        return changes, snapshot

    def _changed_columns(
        self, changes: Changes, owners: Slots, at_ns: int
    ) -> tuple[dict[str, Codes], dict[str, AddressHalves], dict[str, Codes]]:
        """Return the columns of the rows of `changes`: dimensions, addresses, and the codes of missing addresses."""
        rows = changes.rows
        own = np.uint32(ABSENT_CODE)
        columns = {name: np.append(self._attribution.codes(name, owners), own) for name in OWNER_DIMENSIONS}
        columns["pid"] = rows["owner"]["tgid"].astype(np.uint32)
        without_process = is_of_namespace(rows)
        for codes in columns.values():
            codes[without_process] = ABSENT_CODE
        columns["process"][-1] = self.names.intern("process", SELF_PROCESS, OWN_ACCOUNT, at_ns)
        columns["pid"][-1] = ABSENT_CODE
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
        missing_ends = {"local": missing, "remote": missing_peer}
        for end, missing_end in missing_ends.items():
            addresses[end][missing_end != 0] = _NO_ADDRESS
        return columns, addresses, missing_ends

    def _dimensions(
        self,
        rows: SnapshotRows,
        columns: Mapping[str, Codes],
        addresses: Mapping[str, AddressHalves],
        missing: Mapping[str, Codes],
        accounts: Codes,
        at_ns: int,
    ) -> Mapping[str, Codes]:
        def join(name: str) -> Codes:
            return rows.join(columns[name], self._live.idle_dimension(name))

        def join_addresses(end: str) -> Codes:
            halves = self._changed_halves(addresses, end)
            codes = missing["remote" if end == "remote_net" else end].copy()
            complete = codes == 0
            codes[complete] = self.names.intern_addresses(end, halves[complete], accounts[complete], at_ns)
            return rows.join(codes, self._live.idle_address_codes(end, at_ns))

        ends = LazyColumns({end: partial(join_addresses, end) for end in (*addresses, "remote_net")})

        def locate(dimension: str) -> Codes:
            halves = self._addresses(rows, addresses)["remote"]
            return self._locations.codes(dimension, ends["remote"], halves, self.names, at_ns)

        makers = {name: partial(join, name) for name in columns}
        makers |= {end: partial(ends.__getitem__, end) for end in ends}
        return LazyColumns(makers | {name: partial(locate, name) for name in LOCATION_DIMENSIONS})

    def _addresses(self, rows: SnapshotRows, changed: Mapping[str, AddressHalves]) -> Mapping[str, AddressHalves]:
        def join(end: str) -> AddressHalves:
            return rows.join(self._changed_halves(changed, end), self._live.idle_addresses(end))

        return LazyColumns({end: partial(join, end) for end in (*changed, "remote_net")})

    def _changed_halves(self, changed: Mapping[str, AddressHalves], end: str) -> AddressHalves:
        return network_halves(changed["remote"], self._prefixes) if end == "remote_net" else changed[end]


def _complete_quality(
    quality: Quality, changes: Changes, nameless_count: int, sockmap_count: int, tick_counts: TickCounts
) -> Quality:
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
        sockmap_connections=sockmap_count,
        late_seconds=tick_counts.late_seconds,
        missed_ticks=tick_counts.missed,
        failed_ticks=tick_counts.failed,
        lost_samples=tick_counts.lost_samples,
        lost_amounts=tick_counts.lost_amounts,
    )


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


def _with_own_row(changes: Changes, own: Mapping[str, float]) -> Changes:
    # The last row is the watchdog's own, with the metrics about itself only.
    count = len(changes.rows)
    metrics: dict[str, Numbers] = {name: np.full(count + 1, _empty_value(name)) for name in METRICS}
    for name, values in changes.metrics.items():
        metrics[name][:count] = values
    for name, value in own.items():
        metrics[name][count] = value
    rows = concatenate_rows([changes.rows, np.zeros(1, CONNECTION)])
    return replace(
        changes,
        rows=rows,
        live=np.append(changes.live, -1),
        failure=np.append(changes.failure, np.uint8(0)),
        metrics=metrics,
        unseen_ns=np.append(changes.unseen_ns, 0),
    )


def _empty_value(name: str) -> float:
    return np.nan if METRICS[name].kind is MetricKind.DISTRIBUTION else 0.0
