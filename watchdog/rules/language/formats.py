"""The named formats of numbers in a summary."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from watchdog.measure.catalogue import Unit

_WHOLE_FROM = 99.95  # below: one decimal
_SMALL = 0.995  # below: two significant digits
_MAX_MORE_DIGITS = 12
_EXACT_DIGITS = 15  # that a float64 holds of every decimal number
_ROUNDING = 1e-9  # share of a number within which it reads the same

_BYTES = (("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12), ("PB", 1e15))
_SECONDS = (("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3_600.0), ("d", 86_400.0))

_Digits = Callable[[float], str]  # writes a number without unit


def _rounded(more: int) -> _Digits:
    """Return a function that writes numbers with few digits, and `more` beyond these."""

    def write(value: float) -> str:
        size = abs(value)
        if size < _SMALL:
            return f"{value:.{2 + more}g}"
        decimals = more + (size < _WHOLE_FROM)
        text = f"{value:,.{decimals}f}"
        return text.rstrip("0").rstrip(".") if decimals else text

    return write


def _exact(value: float) -> str:
    """Write a number with all its digits."""
    return f"{value:,.{_EXACT_DIGITS}g}"


def _scaled(value: float, units: Sequence[tuple[str, float]], digits: _Digits) -> tuple[str, float, str]:
    """Return `value` in the greatest unit of which it is at least one after rounding: number, scale and unit."""
    name, scale = units[0]
    for next_name, next_scale in units[1:]:
        if abs(value) < next_scale * 0.9995:
            break
        name, scale = next_name, next_scale
    return digits(value / scale), scale, f" {name}"


def _plain(value: float, digits: _Digits) -> tuple[str, float, str]:
    return digits(value), 1.0, ""


def _rate(value: float, digits: _Digits) -> tuple[str, float, str]:
    return digits(value), 1.0, "/s"


def _bytes(value: float, digits: _Digits) -> tuple[str, float, str]:
    return _scaled(value, _BYTES, digits)


def _bytes_rate(value: float, digits: _Digits) -> tuple[str, float, str]:
    number, scale, unit = _scaled(value, _BYTES, digits)
    return number, scale, f"{unit}/s"


def _seconds(value: float, digits: _Digits) -> tuple[str, float, str]:
    return _scaled(value, _SECONDS, digits) if value else ("0", 1.0, " s")


def _percent(value: float, digits: _Digits) -> tuple[str, float, str]:
    return digits(value * 100), 0.01, " %"


def _ago(value: float, digits: _Digits) -> tuple[str, float, str]:
    number, scale, unit = _scaled(max(float(round(value)), 0.0), _SECONDS[2:], digits)
    return number, scale, f"{unit} ago"


_PARTS: Final[Mapping[str, Callable[[float, _Digits], tuple[str, float, str]]]] = {
    "count": _plain,  # 1,234
    "rate": _rate,  # 120/s
    "bytes": _bytes,  # 1.2 MB
    "bytes/s": _bytes_rate,  # 1.2 MB/s
    "seconds": _seconds,  # 12.3 ms, 4.5 s, 2 min
    "percent": _percent,  # 5.3 %
    "ago": _ago,  # 12 s ago
}


def format_number(name: str, value: float, limit: float = math.nan) -> str:
    """Return `value` in the format `name`, with as many digits as it takes to read on its side of `limit`.

    NaN, the value of an empty window, is "unknown".
    """
    if math.isnan(value):
        return "unknown"
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    shortest, _ = _written(name, value, _rounded(0))
    if math.isnan(limit) or value == limit:
        return shortest
    texts = (_written(name, value, _rounded(more)) for more in range(_MAX_MORE_DIGITS))
    return next((text for text, read in texts if _is_same_side(read, value, limit)), shortest)


def format_exact(name: str, value: float) -> str:
    """Return `value` in the format `name` with all its digits: "19.96/s"."""
    return _written(name, value, _exact)[0] if math.isfinite(value) else format_number(name, value)


def _written(name: str, value: float, digits: _Digits) -> tuple[str, float]:
    """Return the text of `value`, and the value that it reads as."""
    number, scale, unit = _PARTS[name](value, digits)
    return number + unit, float(number.replace(",", "")) * scale


def _is_same_side(read: float, value: float, limit: float) -> bool:
    return not math.isclose(read, limit, rel_tol=_ROUNDING) and (read > limit) == (value > limit)


FORMATS: Final[Mapping[str, Callable[[float], str]]] = {name: partial(format_number, name) for name in _PARTS}


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
