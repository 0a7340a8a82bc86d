"""Contributors to a value: the connections of one instance in one tick, by peer and by process.

These are the connections that match the rule's `where` and have the instance's labels, ordered by their amount of the
rule's metric. For arithmetic it is the first metric: for a share the part, not the whole.
"""

from __future__ import annotations

import secrets
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watchdog.measure.catalogue import ABSENT_CODE, DIRECTIONS, FAILURES, METRICS, TCP_STATES, MetricKind
from watchdog.measure.interning import address_text
from watchdog.measure.slot_table import Slots
from watchdog.measure.snapshot import Numbers, Snapshot
from watchdog.rules.engine.contributor_values import (
    ContributingProcess,
    LeftOutGroup,
    LeftOutGroups,
    Peer,
)
from watchdog.rules.engine.groups import GroupSlots, code_of
from watchdog.rules.engine.selection import Selection
from watchdog.rules.language.rule import Labels, Rule

MAX_PEERS: Final = 5
MAX_PROCESSES: Final = 16  # candidates for the top process: the first one that is alive

_NO_ADDRESS = 2**64 - 1  # both halves
_MULTIPLIERS = [
    np.uint64(secrets.randbits(64) | 1) for _ in range(3)
]  # secret, so that nobody can choose peers that collide
_NAMES = ("process", "exe", "user", "unit", "container")

_RowNumbers = NDArray[np.intp]
_Ids = NDArray[np.uint64]


def rows_of_where(snapshot: Snapshot, rule: Rule, selection: Selection) -> _RowNumbers:
    """Return the numbers of the rows that `rule` counts."""
    chosen = selection.counted(snapshot, rule.where, rule.exclusions)
    return np.arange(len(snapshot)) if chosen is None else np.flatnonzero(chosen)


def rows_with_labels(snapshot: Snapshot, rows: _RowNumbers, labels: Labels) -> _RowNumbers:
    """Return those of `rows` that belong to the instance with `labels`."""
    for dimension, text in labels:
        code = code_of(dimension, text, snapshot)
        if code is None:
            return np.zeros(0, np.intp)
        rows = rows[snapshot.dimensions[dimension][rows] == code]
    return rows


def rows_in(rows: _RowNumbers, slots: Slots, wanted: Slots) -> tuple[_RowNumbers, Slots]:
    """Return those of `rows` whose group is among `wanted`, and their slots; `slots`: the group of each row."""
    chosen = np.isin(slots, wanted)
    return rows[chosen], slots[chosen]


def groups_left_out(
    snapshot: Snapshot, rows: _RowNumbers, slots: Slots, metric: str, groups: GroupSlots
) -> LeftOutGroups:
    """Return the groups of `rows`, whose slots are `slots`: the largest ones, and their number by user."""
    ids, firsts, order = _ranked(slots.astype(np.uint64), snapshot.metrics[metric][rows], metric)
    pids, users = snapshot.dimensions["pid"][rows], snapshot.dimensions["user"][rows]
    largest = tuple(
        LeftOutGroup(
            groups.read_labels(int(slots[firsts[number]]), snapshot),
            amount,
            snapshot.names.text("user", int(users[firsts[number]])),
            int(pids[firsts[number]]) if pids[firsts[number]] < ABSENT_CODE else 0,
        )
        for number, amount in order[:MAX_PEERS]
    )
    pairs = np.unique(np.stack([ids.astype(np.uint64), users.astype(np.uint64)], axis=1), axis=0)
    codes, counts = np.unique(pairs[:, 1], return_counts=True)
    most = np.argsort(-counts, kind="stable")[:MAX_PEERS]
    by_user = tuple((snapshot.names.text("user", int(codes[one])), int(counts[one])) for one in most)
    return LeftOutGroups(largest, by_user, len(codes))


def count_names(snapshot: Snapshot, rows: _RowNumbers) -> int:
    """Return the number of distinct process names in `rows`."""
    codes = snapshot.dimensions["process"][rows]
    return len(np.unique(codes[codes < ABSENT_CODE]))


def contributing_peers(snapshot: Snapshot, rows: _RowNumbers, metric: str) -> tuple[tuple[Peer, ...], int]:
    """Return the peers with the greatest amounts of `metric` in `rows`, and their total number."""
    inbound = snapshot.dimensions["direction"][rows] == DIRECTIONS.index("in")
    halves = snapshot.addresses["local" if "remote" in METRICS[metric].missing_dimensions else "remote"][rows]
    own = inbound | ("remote" in METRICS[metric].missing_dimensions)
    ports = np.where(own, snapshot.dimensions["local_port"][rows], snapshot.dimensions["remote_port"][rows])
    there = np.flatnonzero(~(halves == _NO_ADDRESS).all(axis=1) & (ports < ABSENT_CODE))
    rows, halves, ports, inbound = rows[there], halves[there], ports[there], inbound[there]
    keys = halves[:, 0] * _MULTIPLIERS[0] + halves[:, 1] * _MULTIPLIERS[1]
    keys += (ports.astype(np.uint64) * np.uint64(2) + inbound) * _MULTIPLIERS[2]
    ids, firsts, order = _ranked(keys, snapshot.metrics[metric][rows], metric)
    peers = []
    for number, amount in order[:MAX_PEERS]:
        first = firsts[number]
        address = address_text(int(halves[first, 0]), int(halves[first, 1]))
        direction = DIRECTIONS[int(snapshot.dimensions["direction"][rows[first]])]
        peers.append(_peer(snapshot, rows[ids == number], address, int(ports[first]), direction, amount))
    return tuple(peers), len(order)


def contributing_processes(
    snapshot: Snapshot, rows: _RowNumbers, metric: str
) -> tuple[tuple[ContributingProcess, ...], int]:
    """Return the processes with the greatest amounts of `metric` in `rows`, and their total number."""
    pids = snapshot.dimensions["pid"][rows]
    there = np.flatnonzero((pids > 0) & (pids < ABSENT_CODE))
    rows, pids = rows[there], pids[there]
    _, firsts, order = _ranked(pids.astype(np.uint64), snapshot.metrics[metric][rows], metric)
    found = []
    for number, amount in order[:MAX_PROCESSES]:
        row = rows[firsts[number]]
        texts = [snapshot.names.text(name, int(snapshot.dimensions[name][row])) for name in _NAMES]
        found.append(ContributingProcess(int(pids[firsts[number]]), amount, *texts))
    return tuple(found), len(order)


def nonzero_rows(snapshot: Snapshot, rows: _RowNumbers, metric: str) -> _RowNumbers:
    """Return the `rows` with an amount of `metric`, all of them where none has one."""
    values = snapshot.metrics[metric][rows]
    adding = rows[~np.isnan(values) & (values != 0)]
    return adding if len(adding) else rows


def total_amount(snapshot: Snapshot, rows: _RowNumbers, metric: str) -> float:
    """Return the amount of `metric` in `rows`; NaN for distributions, which do not add up."""
    return float("nan") if _is_distribution(metric) else float(snapshot.metrics[metric][rows].sum())


def _ranked(keys: _Ids, values: Numbers, metric: str) -> tuple[NDArray[np.intp], _RowNumbers, list[tuple[int, float]]]:
    """Put rows with one key together; return each row's number, each number's first row, numbers with amounts.

    The greatest amount comes first; of equal ones that of more rows, then the greater key: pids are counted up, and of
    many that lived for a moment each, the newest may still be there to be looked at.
    """
    found, firsts, ids = np.unique(keys, return_index=True, return_inverse=True)
    ids = ids.reshape(-1)
    values = np.nan_to_num(values)
    amounts: Numbers = np.zeros(len(found))
    (np.maximum if _is_distribution(metric) else np.add).at(amounts, ids, values)
    order = np.lexsort((-np.arange(len(found)), -np.bincount(ids, minlength=len(found)), -amounts)).tolist()
    return ids, firsts, [(number, float(amounts[number])) for number in order]


def _peer(snapshot: Snapshot, rows: _RowNumbers, address: str, port: int, direction: str, amount: float) -> Peer:
    metrics, dimensions = snapshot.metrics, snapshot.dimensions
    alive = metrics["open"][rows] > 0
    # Answers to requests have rows of their own, beside their connection's.
    connections = int((alive | (metrics["closes"][rows] > 0)).sum())
    sent, received = (int(metrics[name][rows].sum()) for name in ("bytes_sent", "bytes_received"))
    states = _counted(dimensions["state"][rows[alive]], TCP_STATES)
    failures = _counted(dimensions["failure"][rows], FAILURES)
    return Peer(address, port, direction, amount, connections, sent, received, states, failures)


def _counted(codes: NDArray[np.uint32], choices: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    counts = np.bincount(codes[codes < len(choices)], minlength=len(choices)).tolist()
    counted = [(choice, count) for choice, count in zip(choices, counts, strict=True) if choice and count]
    return tuple(sorted(counted, key=lambda item: -item[1]))


def _is_distribution(metric: str) -> bool:
    return METRICS[metric].kind is MetricKind.DISTRIBUTION
