"""Numbers with units in thresholds: `"100MB"`, `"1.5GiB"`, `"250ms"`, `"5%"`, `"10MB/s"`."""

from __future__ import annotations

import re

from watchdog.config.suggestions import quote_value
from watchdog.measure.catalogue import Unit

_QUANTITY = re.compile(r"(-?\d{1,18}(?:\.\d{1,18})?) ?([A-Za-z%]*)(/s)?", re.ASCII)
_SCALES: dict[Unit | None, dict[str, float]] = {
    Unit.BYTES: {
        "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
        "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40,
    },
    Unit.SECONDS: {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3_600, "d": 86_400},
    Unit.RATIO: {"%": 1e-2},
}  # fmt: skip
_EXAMPLES = {Unit.BYTES: '"100MB"', Unit.SECONDS: '"250ms"', Unit.RATIO: '"5%"'}


_SHOWN_UNITS = {"m": "min"}  # as values are shown


def quantity_text(text: str, *, per_second: bool) -> str:
    """Return a quantity that `parse_quantity` reads as it is shown beside values: "1.25 GiB/s"; "" without a unit."""
    match = _QUANTITY.fullmatch(text)
    if match is None or not match[2]:
        return ""
    return f"{match[1]} {_SHOWN_UNITS.get(match[2], match[2])}{'/s' if per_second else ''}"


def parse_quantity(text: str, unit: Unit | None, *, per_second: bool) -> float:
    """Return the number in `text`, in `unit` (bytes, seconds, share of 1); `/s` may follow where it is a rate.

    Raises:
        ValueError: `text` is not a number, or its unit does not fit `unit`.
    """
    match = _QUANTITY.fullmatch(text)
    example = _EXAMPLES.get(unit, "100") if unit else "100"
    if match is None:
        raise ValueError(f"not a number: {quote_value(text)}; write it like {example}")
    number, suffix, rate = match.groups()
    if rate and not per_second:
        raise ValueError(f"{quote_value(text)} is a rate, but the value of the metric is not")
    scales = _SCALES.get(unit, {})
    if not suffix:
        return float(number)
    if suffix not in scales:
        allowed = f"with {', '.join(scales)}" if scales else "without a unit"
        measured = f"{unit} are written" if unit else "it is written"
        raise ValueError(f"wrong unit {quote_value(suffix)} in {quote_value(text)}: {measured} {allowed}")
    # Divided where that is exact: 250 * 1e-3 is not 0.25 in floating point for every number.
    scale = scales[suffix]
    return float(number) * scale if scale >= 1 else float(number) / round(1 / scale)
