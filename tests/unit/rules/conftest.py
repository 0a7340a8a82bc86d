"""Rules and snapshots for tests, written as plain values."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import factories
from watchdog.clock import SECOND_NS
from watchdog.kernel.quality import Quality
from watchdog.measure.catalogue import (
    DIMENSIONS,
    METRICS,
    UNCOUNTED_IN_SOCKMAP,
    UNKNOWN_CODE,
    DimensionKind,
    MetricKind,
)
from watchdog.measure.loss_bounds import DERIVED_FROM_COUNTERS, Undercounted
from watchdog.measure.snapshot import LateTraffic, Snapshot
from watchdog.rules.language.rule import Rule


@pytest.fixture(scope="session")
def make_rule() -> Callable[..., Rule]:
    """Return the factory of rules."""
    return factories.make_rule


class Host:
    """Makes snapshots from rows; its clock starts at 1,000 s, and each new name gets the next code."""

    def __init__(self) -> None:
        self.at_ns = 1_000 * SECOND_NS
        self._codes: dict[str, dict[str, int]] = {}

    def code(self, dimension: str, value: Any) -> int:
        if value is None:
            return UNKNOWN_CODE
        match DIMENSIONS[dimension].kind:
            case DimensionKind.NUMBER:
                return int(value)
            case DimensionKind.CHOICE:
                return DIMENSIONS[dimension].choices.index(value)
            case _:
                codes = self._codes.setdefault(dimension, {})
                return codes.setdefault(value, len(codes))

    def text(self, dimension: str, code: int) -> str:
        if choices := DIMENSIONS[dimension].choices:
            return choices[code]
        if DIMENSIONS[dimension].kind is DimensionKind.NUMBER:
            return str(code)
        return next((text for text, known in self._codes[dimension].items() if known == code), "(other)")

    def find_code(self, dimension: str, text: str) -> int | None:
        return self._codes.get(dimension, {}).get(text)

    def baseline(self, *rows: Mapping[str, Any]) -> Snapshot:
        """Return a snapshot without measured time."""
        return self._snapshot(rows, 0, Quality())

    def tick(self, *rows: Mapping[str, Any], seconds: float = 1, **quality: Any) -> Snapshot:
        """Advance the clock and return a snapshot of `rows`: dimensions (None: lost) and metrics by name.

        A row with `unseen_seconds` has late traffic; one with `in_sockmap` or `refused` counts too little.
        """
        elapsed_ns = round(seconds * SECOND_NS)
        self.at_ns += elapsed_ns
        return self._snapshot(rows, elapsed_ns, Quality(**quality))

    def _snapshot(self, rows: Iterable[Mapping[str, Any]], elapsed_ns: int, quality: Quality) -> Snapshot:
        rows = list(rows)
        blank = {DimensionKind.NUMBER: 0, DimensionKind.ADDRESS: "::", "direction": "unknown"}
        dimensions = {
            name: np.array(
                [self.code(name, row.get(name, blank.get(name, blank.get(dimension.kind, "")))) for row in rows],
                dtype=np.uint32,
            )
            for name, dimension in DIMENSIONS.items()
        }
        metrics = {
            name: np.array(
                [row.get(name, np.nan if metric.kind is MetricKind.DISTRIBUTION else 0) for row in rows], float
            )
            for name, metric in METRICS.items()
        }
        addresses = {
            name: np.array([_halves(row.get(name, "::")) for row in rows], dtype=np.uint64).reshape(-1, 2)
            for name in ("local", "remote", "remote_net")
        }
        late_rows = [index for index, row in enumerate(rows) if row.get("unseen_seconds")]
        unseen_ns = np.array([round(rows[index]["unseen_seconds"] * SECOND_NS) for index in late_rows], np.int64)
        late = LateTraffic(np.array(late_rows, np.intp), unseen_ns)
        partial = np.array([index for index, row in enumerate(rows) if None in row.values()], np.intp)
        undercounted = (
            Undercounted(_indices(rows, "in_sockmap"), UNCOUNTED_IN_SOCKMAP),
            Undercounted(_indices(rows, "refused"), DERIVED_FROM_COUNTERS),
        )
        return Snapshot(
            self.at_ns,
            elapsed_ns,
            1.75e9,
            dimensions,
            metrics,
            addresses,
            self,
            quality,
            late,
            partial,
            undercounted,
        )


def _indices(rows: Iterable[Mapping[str, Any]], mark: str) -> NDArray[np.intp]:
    return np.array([index for index, row in enumerate(rows) if row.get(mark)], np.intp)


def _halves(text: str | None) -> tuple[int, int]:
    if text is None:
        return 2**64 - 1, 2**64 - 1
    address = ipaddress.ip_address(text.partition("/")[0])
    number = int(address) | (0xFFFF << 32 if address.version == 4 else 0)
    return number >> 64, number & (2**64 - 1)


@pytest.fixture(scope="session")
def make_host() -> Callable[[], Host]:
    """Return the class of hosts, for tests that need a new host for each example."""
    return Host


@pytest.fixture
def host() -> Host:
    """Return a new host."""
    return Host()
