"""The conditions in `where` of a rule: the rows that it counts."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Iterable, Mapping

from watchdog.config import suggestions
from watchdog.config.document import Table
from watchdog.config.suggestions import quote_value
from watchdog.measure.catalogue import DIMENSIONS, Dimension, DimensionKind
from watchdog.rules.language.exclusions import excluded_patterns, other_family
from watchdog.rules.language.name_patterns import check_name_pattern
from watchdog.rules.language.named_lists import NamedLists
from watchdog.rules.language.pattern_doubts import pattern_doubts
from watchdog.rules.language.rule import Condition

_HOST_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9.-]*[a-z0-9])?\.?", re.ASCII | re.IGNORECASE)
_NUMBERS = re.compile(r"(\d{1,10})(?:-(\d{1,10}))?", re.ASCII)


def read_where(
    table: Table,
    dimensions: Mapping[str, Dimension] = DIMENSIONS,
    *,
    key: str = "where",
    lists: NamedLists | None = None,
) -> tuple[Condition, ...]:
    """Return the conditions at `key` of a rule or another table, in the file's order; problems are noted in them.

    `lists`: for elements like "@internal"; None: such an element is a pattern.
    """
    where = table.table(key)
    conditions: list[Condition] = []
    for name in where:
        value = where.value(name)
        if name not in dimensions:
            where.add_problem(name, suggestions.unknown_name("dimension", name, dimensions))
            continue
        if value == []:
            where.add_problem(name, "must not be empty")
        elements = value if isinstance(value, list) else [value]
        expanded = enumerate(elements) if lists is None else lists.expand(where, name, elements)
        conditions.append(_read_condition(where, dimensions[name], expanded, is_array=isinstance(value, list)))
        _refuse_exclusions(where, dimensions[name], conditions[-1])
    _refuse_families(where, {condition.dimension: condition for condition in conditions})
    return tuple(conditions)


def _refuse_exclusions(where: Table, dimension: Dimension, condition: Condition) -> None:
    name, value = dimension.name, where.value(dimension.name)
    if where.has_problem(name):
        return
    for pattern, exclusions in excluded_patterns(dimension, condition).items():
        if pattern is not None:
            index = value.index(pattern) if isinstance(value, list) and pattern in value else None
            where.add_problem(name, f"{quote_value(pattern)} never matches: {exclusions} excludes it", index=index)
        else:
            where.add_problem(name, f"never matches: {exclusions} excludes every {name}")


def _refuse_families(where: Table, conditions: Mapping[str, Condition]) -> None:
    family = conditions.get("family")
    for name in ("local", "remote", "remote_net"):
        condition = conditions.get(name)
        if family is None or condition is None or where.has_problem(name) or where.has_problem("family"):
            continue
        if (pattern := other_family(condition, family)) is not None:
            where.add_problem(name, f"{quote_value(pattern)} never matches: it is not of the family of this rule")


def _read_condition(
    where: Table, dimension: Dimension, elements: Iterable[tuple[int, object]], *, is_array: bool
) -> Condition:
    any_of: list[str] = []
    none_of: list[str] = []
    for index, element in elements:
        text = str(element) if _is_plain_number(element) and dimension.kind is DimensionKind.NUMBER else element
        if not isinstance(text, str):
            wanted = "numbers or strings" if dimension.kind is DimensionKind.NUMBER else "strings"
            where.add_problem(
                dimension.name,
                f"must hold {wanted} only, not {quote_value(element)}",
                index=index if is_array else None,
            )
            continue
        pattern = text.removeprefix("!")
        try:
            _check(dimension, pattern)
        except ValueError as error:
            where.add_problem(dimension.name, str(error), index=index if is_array else None)
        else:
            for doubt in pattern_doubts(dimension, pattern, tuple(where)):
                where.add_note(dimension.name, doubt, index=index if is_array else None)
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
        raise ValueError(f'not a number or a range like "1024-65535": {quote_value(pattern)}')
    low, high = int(match[1]), int(match[2] or match[1])
    if high > dimension.maximum:
        raise ValueError(f"{high} is not a {dimension.name}: the maximum is {dimension.maximum}")
    if high < dimension.minimum:
        raise ValueError(f"{high} is not a {dimension.name}: the minimum is {dimension.minimum}")
    if low > high:
        raise ValueError(f"the range {quote_value(pattern)} is empty")


def _check_address(pattern: str) -> None:
    try:
        network = ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        remedy = "; host names are not looked up" if _HOST_NAME.fullmatch(pattern) else ""
        raise ValueError(f"not an address or a CIDR block: {quote_value(pattern)}{remedy}") from None
    if "%" in pattern:
        raise ValueError(f"{quote_value(pattern)} names an interface; use the address without it")
    if str(network.network_address) != str(ipaddress.ip_address(pattern.partition("/")[0])):
        raise ValueError(f'{quote_value(pattern)} has bits set after its prefix: did you mean "{network}"?')
