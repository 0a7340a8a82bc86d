"""The named formats of numbers in a summary."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from watchdog.measure.catalogue import Unit

_WHOLE_FROM = 99.95  # below: one decimal
_SMALL = 0.995  # below: two significant digits

_BYTES = (("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12), ("PB", 1e15))
_SECONDS = (("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3_600.0), ("d", 86_400.0))


def _number(value: float) -> str:
    size = abs(value)
    if size >= _WHOLE_FROM:
        return f"{value:,.0f}"
    if size >= _SMALL:
        return f"{value:.1f}".removesuffix(".0")
    return f"{value:.2g}"


def _scaled(value: float, units: Sequence[tuple[str, float]]) -> str:
    """Format `value` in the greatest unit of which it is at least one after rounding."""
    name, scale = units[0]
    for next_name, next_scale in units[1:]:
        if abs(value) < next_scale * 0.9995:
            break
        name, scale = next_name, next_scale
    return f"{_number(value / scale)} {name}"


def _count(value: float) -> str:
    return _number(value)


def _rate(value: float) -> str:
    return f"{_number(value)}/s"


def _bytes(value: float) -> str:
    return _scaled(value, _BYTES)


def _bytes_rate(value: float) -> str:
    return f"{_bytes(value)}/s"


def _seconds(value: float) -> str:
    return _scaled(value, _SECONDS) if value else "0 s"


def _percent(value: float) -> str:
    return f"{_number(value * 100)} %"


def _ago(value: float) -> str:
    return f"{_scaled(max(float(round(value)), 0.0), _SECONDS[2:])} ago"


def _finite(format_finite: Callable[[float], str]) -> Callable[[float], str]:
    """Return `format_finite` for all numbers: x / 0 is infinite, an empty window is NaN."""

    def format_any(value: float) -> str:
        if math.isnan(value):
            return "unknown"
        return format_finite(value) if math.isfinite(value) else ("infinite" if value > 0 else "-infinite")

    return format_any


FORMATS: Final[Mapping[str, Callable[[float], str]]] = {
    name: _finite(format_finite)
    for name, format_finite in (
        ("count", _count),  # 1,234
        ("rate", _rate),  # 120/s
        ("bytes", _bytes),  # 1.2 MB
        ("bytes/s", _bytes_rate),  # 1.2 MB/s
        ("seconds", _seconds),  # 12.3 ms, 4.5 s, 2 min
        ("percent", _percent),  # 5.3 %
        ("ago", _ago),  # 12 s ago
    )
}


def natural_format(unit: Unit | None, *, per_second: bool) -> str:
    """Return the name of the default format for numbers of `unit`; `per_second`: they are rates."""
    match unit:
        case Unit.BYTES:
            return "bytes/s" if per_second else "bytes"
        case Unit.SECONDS:
            return "seconds"
        case Unit.RATIO:
            return "percent"
        case _:
            return "rate" if per_second else "count"
