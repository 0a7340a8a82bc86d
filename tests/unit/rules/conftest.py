"""Rules and snapshots for tests: made of plain values, on a host whose names get codes as they come."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytest

from watchdog.kernel.quality import Quality
from watchdog.measure.catalogue import DIMENSIONS, METRICS, UNKNOWN_CODE, DimensionKind, MetricKind
from watchdog.measure.snapshot import Snapshot
from watchdog.rules.language.expression import Comparison, Expression, MetricReference
from watchdog.rules.language.rule import Condition, Rule, Severity, Stat, StatKind, Thresholds
from watchdog.rules.language.template import Template

SECOND_NS = 1_000_000_000


def _stat(text: str) -> Stat:
    if text.startswith("p"):
        digits = text[1:]
        return Stat(text, StatKind.PERCENTILE, float(digits[:2] + "." + digits[2:] if len(digits) > 2 else digits))
    return Stat(text, StatKind(text))


def _rule(
    name: str = "storm",
    metric: str | Expression = "connects",
    stat: str = "rate",
    window: float = 10,
    by: Iterable[str] = ("process",),
    where: Iterable[Condition] = (),
    only_if: Comparison | None = None,
    above: float | None = 100,
    critical: float | None = None,
    below: float | None = None,
    clear: float | None = None,
    clear_critical: float | None = None,
    hold: float = 0,
    keep: float = 0,
    **others: Any,
) -> Rule:
    fire_warning = above if below is None else below
    fire = {Severity.WARNING: fire_warning, Severity.CRITICAL: critical}
    clears = {Severity.WARNING: clear, Severity.CRITICAL: clear_critical}
    fire = {severity: limit for severity, limit in fire.items() if limit is not None}
    cleared = {severity: limit if clears[severity] is None else clears[severity] for severity, limit in fire.items()}
    return Rule(
        id=name,
        summary=others.get("summary", Template("", ())),
        metric=MetricReference(metric) if isinstance(metric, str) else metric,
        stat=_stat(stat),
        window_ns=round(window * SECOND_NS),
        by=tuple(by),
        where=tuple(where),
        only_if=only_if,
        thresholds=Thresholds(below is None, fire, cleared),
        for_ns=round(hold * SECOND_NS),
        keep_firing_for_ns=round(keep * SECOND_NS),
        receivers=None,
        runbook=None,
        file="rules.toml",
        line=1,
    )


@pytest.fixture(scope="session")
def make_rule() -> Callable[..., Rule]:
    """Give a factory of rules: `above`, `below` and `clear` are the warning's thresholds, times are in seconds."""
    return _rule


class Host:
    """A host whose snapshots are written down row by row; its clock starts at 1,000 s."""

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
        return next(text for text, known in self._codes[dimension].items() if known == code)

    def find_code(self, dimension: str, text: str) -> int | None:
        return self._codes.get(dimension, {}).get(text)

    def baseline(self, *rows: Mapping[str, Any]) -> Snapshot:
        """Make a snapshot without measured time."""
        return self._snapshot(rows, 0, Quality())

    def tick(self, *rows: Mapping[str, Any], seconds: float = 1, **quality: int) -> Snapshot:
        """Let time pass, and make a snapshot of `rows`: dimensions (None: lost) and metrics by name."""
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
            for name in ("local", "remote")
        }
        return Snapshot(self.at_ns, elapsed_ns, 1.75e9, dimensions, metrics, addresses, self, quality)


def _halves(text: str | None) -> tuple[int, int]:
    if text is None:
        return 2**64 - 1, 2**64 - 1
    address = ipaddress.ip_address(text)
    number = int(address) | (0xFFFF << 32 if address.version == 4 else 0)
    return number >> 64, number & (2**64 - 1)


@pytest.fixture(scope="session")
def make_host() -> Callable[[], Host]:
    """Give a factory of hosts, for tests that need a new one for each example."""
    return Host


@pytest.fixture
def host() -> Host:
    """Give a host to write snapshots of."""
    return Host()
