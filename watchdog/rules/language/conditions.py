"""The conditions in `where` of a rule: the rows that it counts."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Mapping

from watchdog.config import suggestions
from watchdog.config.document import Table
from watchdog.measure.catalogue import DIMENSIONS, Dimension, DimensionKind
from watchdog.rules.language.name_patterns import check_name_pattern
from watchdog.rules.language.rule import Condition

_NUMBERS = re.compile(r"(\d{1,10})(?:-(\d{1,10}))?", re.ASCII)


def read_where(table: Table, dimensions: Mapping[str, Dimension] = DIMENSIONS) -> tuple[Condition, ...]:
    """Return the conditions of a rule's `where`, or another table's, in the file's order; problems are noted in it."""
    where = table.table("where")
    conditions = []
    for key in where:
        value = where.value(key)
        if key not in dimensions:
            where.add_problem(key, suggestions.unknown_name("dimension", key, dimensions))
            continue
        if value == []:
            where.add_problem(key, "must not be empty")
        elements = value if isinstance(value, list) else [value]
        conditions.append(_read_condition(where, dimensions[key], elements, is_array=isinstance(value, list)))
    return tuple(conditions)


def _read_condition(where: Table, dimension: Dimension, elements: list[object], *, is_array: bool) -> Condition:
    any_of: list[str] = []
    none_of: list[str] = []
    for index, element in enumerate(elements):
        text = str(element) if _is_plain_number(element) and dimension.kind is DimensionKind.NUMBER else element
        if not isinstance(text, str):
            wanted = "numbers or strings" if dimension.kind is DimensionKind.NUMBER else "strings"
            where.add_problem(dimension.name, f"must hold {wanted} only", index=index if is_array else None)
            continue
        pattern = text.removeprefix("!")
        try:
            _check(dimension, pattern)
        except ValueError as error:
            where.add_problem(dimension.name, str(error), index=index if is_array else None)
        (any_of if pattern == text else none_of).append(pattern)
    return Condition(dimension.name, tuple(any_of), tuple(none_of))


def _is_plain_number(value: object) -> bool:
    # Integers beyond 64 bits are no TOML, and Python refuses to print the greatest of them.
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _check(dimension: Dimension, pattern: str) -> None:
    match dimension.kind:
        case DimensionKind.CHOICE:
            _check_choice(dimension, pattern)
        case DimensionKind.NUMBER:
            _check_number(dimension, pattern)
        case DimensionKind.ADDRESS:
            _check_address(pattern)
        case DimensionKind.NAME:  # "" is the name of rows without one
            check_name_pattern(dimension, pattern)


def _check_choice(dimension: Dimension, pattern: str) -> None:
    if not any(fnmatch.fnmatchcase(choice, pattern) for choice in dimension.choices):
        raise ValueError(suggestions.unknown_name(dimension.name, pattern, dimension.choices))


def _check_number(dimension: Dimension, pattern: str) -> None:
    match = _NUMBERS.fullmatch(pattern)
    if match is None:
        raise ValueError(f'not a number or a range like "1024-65535": {suggestions.quote_value(pattern)}')
    low, high = int(match[1]), int(match[2] or match[1])
    if high > dimension.maximum:
        raise ValueError(f"{high} is not a {dimension.name}: the maximum is {dimension.maximum}")
    if high < dimension.minimum:
        raise ValueError(f"{high} is not a {dimension.name}: the minimum is {dimension.minimum}")
    if low > high:
        raise ValueError(f"the range {suggestions.quote_value(pattern)} is empty")


def _check_address(pattern: str) -> None:
    try:
        network = ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        raise ValueError(f"not an address or a CIDR block: {suggestions.quote_value(pattern)}") from None
    if "%" in pattern:
        raise ValueError(f"{suggestions.quote_value(pattern)} names an interface; use the address without it")
    if str(network.network_address) != str(ipaddress.ip_address(pattern.partition("/")[0])):
        raise ValueError(f'{suggestions.quote_value(pattern)} has bits set after its prefix: did you mean "{network}"?')
