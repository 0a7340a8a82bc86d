"""Conditions that contradict themselves: values that are wanted and excluded again, addresses of the wrong family."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from watchdog.config.suggestions import quote_value
from watchdog.measure.catalogue import Dimension, DimensionKind
from watchdog.rules.language.rule import Condition

_Range = tuple[int, int]  # both ends included

_MAPPED = 0xFFFF << 32  # IPv4 is compared as ::ffff:a.b.c.d, as `rules/engine/selection.py` does
_MAX_ADDRESS = 2**128 - 1
_WILD = re.compile(r"\*+|\?|\[!?\]?[^\]]*\]")
# Stand for the texts that a wildcard matches: characters that no exclusion names, so that only a wildcard matches them.
_STAND_INS = ("", "\ue000", "\ue000" * 40)


def excluded_patterns(dimension: Dimension, condition: Condition) -> dict[str | None, str]:
    """Return each wanted pattern of which no value remains, with the exclusions that exclude it, as text.

    The key None is the whole condition: it has exclusions only, and they leave no value.
    """
    exclusions = condition.none_of
    if not exclusions:
        return {}
    listed = ", ".join(quote_value(f"!{pattern}") for pattern in exclusions)
    wanted: tuple[str | None, ...] = condition.any_of or (None,)
    return {
        pattern: next((quote_value(f"!{one}") for one in exclusions if _excludes(dimension, pattern, [one])), listed)
        for pattern in wanted
        if _excludes(dimension, pattern, exclusions)
    }


def _excludes(dimension: Dimension, pattern: str | None, exclusions: Sequence[str]) -> bool:
    match dimension.kind:
        case DimensionKind.NUMBER:
            whole = (dimension.minimum, dimension.maximum)
            return _covers([_numbers(one) for one in exclusions], whole if pattern is None else _numbers(pattern))
        case DimensionKind.ADDRESS:
            whole = (0, _MAX_ADDRESS)
            return _covers([_addresses(one) for one in exclusions], whole if pattern is None else _addresses(pattern))
        case DimensionKind.CHOICE:
            choices = [one for one in dimension.choices if pattern is None or fnmatchcase(one, pattern)]
            return all(any(fnmatchcase(choice, one) for one in exclusions) for choice in choices)
        case DimensionKind.NAME:
            return any(_covers_name(one, "*" if pattern is None else pattern) for one in exclusions)


def _covers_name(outer: str, inner: str) -> bool:
    """Return whether every text that matches `inner` is certain to match `outer`."""
    return outer == inner or all(fnmatchcase(_example(inner, text), outer) for text in _STAND_INS)


def _example(pattern: str, text: str) -> str:
    """Return a text that matches `pattern`: `text` for each *, one character for each other wildcard."""
    return _WILD.sub(lambda wildcard: text if wildcard[0].startswith("*") else "\ue000", pattern)


def _covers(outer: Sequence[_Range], inner: _Range) -> bool:
    """Return whether the union of the ranges contains each number of `inner`."""
    next_number, last = inner
    for low, high in sorted(outer):
        if low <= next_number <= high:
            next_number = high + 1
    return next_number > last


def _numbers(pattern: str) -> _Range:
    low, _, high = pattern.partition("-")
    return int(low), int(high or low)


def _addresses(pattern: str) -> _Range:
    network = ipaddress.ip_network(pattern, strict=False)
    offset = _MAPPED if network.version == 4 else 0  # noqa: PLR2004 - IPv4
    return int(network.network_address) + offset, int(network.broadcast_address) + offset


def other_family(condition: Condition, families: Condition) -> str | None:
    """Return the first wanted address that no connection of the wanted `families` can have, None without one."""
    for pattern in condition.any_of:
        low, high = _addresses(pattern)
        is_ipv4 = low >> 32 == _MAPPED >> 32 == high >> 32
        may_be_ipv4 = is_ipv4 or low <= _MAPPED <= high
        possible = [name for name, has in (("ipv4", may_be_ipv4), ("ipv6", not is_ipv4)) if has]
        if not any(_meets(name, families) for name in possible):
            return pattern
    return None


def _meets(value: str, condition: Condition) -> bool:
    wanted = not condition.any_of or any(fnmatchcase(value, pattern) for pattern in condition.any_of)
    return wanted and not any(fnmatchcase(value, pattern) for pattern in condition.none_of)
