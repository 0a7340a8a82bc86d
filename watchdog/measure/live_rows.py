"""The rows of idle connections in a snapshot: their dimensions and gauges stand while nothing changes.

They are columns of the table of live connections. A tick writes them for the connections of its reading only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from watchdog.clock import SECOND_NS
from watchdog.config.network_prefixes import NetworkPrefixes
from watchdog.kernel.layout import FLAG_SOCKMAP
from watchdog.measure.attribution import OWNER_DIMENSIONS, Attribution
from watchdog.measure.catalogue import METRICS, OTHER_CODE, MetricKind
from watchdog.measure.connection_metrics import LISTEN
from watchdog.measure.connection_table import ConnectionTable, Positions
from watchdog.measure.deltas import Changes
from watchdog.measure.interning import InternedNames
from watchdog.measure.networks import network_halves
from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import AddressHalves, Codes, Numbers

_STANDING_METRICS = (*(name for name, metric in METRICS.items() if metric.kind is MetricKind.GAUGE), "accept_queue")
_ENDS = ("local", "remote")
_CODED = (*_ENDS, "remote_net")
_DIMENSIONS = ("pid", "family", "remote_port", "state", "failure")  # others are among `KNOWN`
COLUMNS: dict[str, DTypeLike] = {
    "owner": np.int32,  # slot in the attribution
    **dict.fromkeys(_DIMENSIONS, np.uint32),
    **dict.fromkeys(_ENDS, (np.uint64, 2)),
    **{f"{end}_code": np.uint32 for end in _CODED},  # plus 1; 0: none yet
    **dict.fromkeys(_STANDING_METRICS, np.float64),
}
"""Columns of the table of live connections, beside `KNOWN`."""

# Codes of addresses are used again when nobody has asked for them for the longest window, which is a minute at least.
_CODES_KEPT_NS = 30 * SECOND_NS


class LiveRows:
    """The columns of all live connections, and among them the idle ones: those without a row in the changes."""

    def __init__(
        self, table: ConnectionTable, names: InternedNames, attribution: Attribution, prefixes: NetworkPrefixes
    ) -> None:
        """Keep the rows in `table`, which has `COLUMNS`. `prefixes`: of the networks of peers."""
        self._prefixes = prefixes
        self._table = table
        self._names = names
        self._attribution = attribution
        self._codes_used_ns = dict.fromkeys(_CODED, 0)
        self._idle: Positions = np.empty(0, np.intp)

    def write(
        self, changes: Changes, owners: Slots, dimensions: Mapping[str, Codes], addresses: Mapping[str, AddressHalves]
    ) -> None:
        """Write the rows of live connections among those of the changes; all arguments have one entry per row."""
        rows = np.flatnonzero(changes.live >= 0)
        at = changes.live[rows]
        values: dict[str, NDArray[Any]] = {"owner": owners, **{name: dimensions[name] for name in _DIMENSIONS}}
        values |= {**addresses, **{name: changes.metrics[name] for name in _STANDING_METRICS}}
        for name, column in values.items():
            self._table.column(name)[at] = column[rows]
        is_idle = np.ones(len(self._table), np.bool_)
        is_idle[at] = False
        self._idle = np.flatnonzero(is_idle)

    def owners(self) -> Slots:
        """Return the slot in the attribution of the owner of each live connection, (n,)."""
        slots: Slots = self._table.column("owner")
        return slots

    def idle_positions(self) -> Positions:
        """Return the positions of idle connections in the table, (i,), ascending: the order of all columns below."""
        return self._idle

    def idle_owners(self) -> Slots:
        """Return the slots of the owners of idle connections, (i,)."""
        return self.owners()[self._idle]

    def idle_dimension(self, name: str) -> Codes:
        """Return the codes of a dimension other than an address, (i,)."""
        if name in OWNER_DIMENSIONS:
            return self._attribution.codes(name, self.idle_owners())
        codes: Codes = self._table.column(name)[self._idle].astype(np.uint32, copy=False)
        return codes

    def idle_metric(self, name: str) -> Numbers | None:
        """Return the values of a metric of the present, (i,); None for a metric that idle connections do not have."""
        return self._table.column(name)[self._idle] if name in _STANDING_METRICS else None

    def idle_addresses(self, end: str) -> AddressHalves:
        """Return the addresses of the `local` or `remote` end, or the networks of peers, (i, 2)."""
        return self._halves(end, self._idle)

    def _halves(self, end: str, positions: Positions) -> AddressHalves:
        if end == "remote_net":
            return network_halves(self._halves("remote", positions), self._prefixes)
        halves: AddressHalves = self._table.column(end)[positions]
        return halves

    def idle_address_codes(self, end: str, at_ns: int) -> Codes:
        """Return the codes of these addresses, (i,), and mark them as used."""
        column = self._table.column(f"{end}_code")
        if at_ns - self._codes_used_ns[end] > _CODES_KEPT_NS:
            column[:] = 0
        self._codes_used_ns[end] = at_ns
        kept: Codes = column[self._idle]
        codes = kept - np.uint32(1)
        self._names.mark_addresses_used(end, codes[kept > 0], at_ns)
        new = np.flatnonzero(kept == 0)
        if len(new):
            accounts = self._attribution.accounts(self.idle_owners()[new])
            found = self._names.intern_addresses(end, self._halves(end, self._idle[new]), accounts, at_ns)
            column[self._idle[new]] = np.where(found == OTHER_CODE, 0, found + np.uint32(1))
            codes[new] = found
        return codes

    def find_idle_in_sockmap(self) -> NDArray[np.intp]:
        """Return the indices of the idle connections that are or were in a sockmap, without listeners."""
        flags, state = self._table.column("flags")[self._idle], self._table.column("state")[self._idle]
        return np.flatnonzero((flags & FLAG_SOCKMAP).astype(np.bool_) & (state != LISTEN))
