"""The filter of `top`: conditions as those of `sample --where`, on one line, with the position of an error."""

from __future__ import annotations

import re
from dataclasses import dataclass

from watchdog.control.traffic_handler import MAX_MATCHERS, parse_where
from watchdog.errors import UsageError
from watchdog.measure.catalogue import DIMENSIONS, DimensionKind

_MATCHER = re.compile(r'(?:[^\s"]|"[^"]*")+')
_QUOTE = '"'


@dataclass(frozen=True, slots=True)
class FilterProblem:
    """An error in a filter: `position` of its first character, `length` in characters, and a text for people."""

    position: int
    length: int
    text: str


def parse_filter(text: str) -> tuple[str, ...] | FilterProblem:
    """Return the matchers in `text`, separated by spaces; a value with spaces stands in double quotes."""
    if text.count(_QUOTE) % 2:
        position = text.rindex(_QUOTE)
        return FilterProblem(position, len(text) - position, "this quote has no end")
    found = list(_MATCHER.finditer(text))
    if len(found) > MAX_MATCHERS:
        first = found[MAX_MATCHERS]
        return FilterProblem(first.start(), len(text) - first.start(), f"at most {MAX_MATCHERS} conditions")
    matchers = tuple(match[0].replace(_QUOTE, "") for match in found)
    for match, matcher in zip(found, matchers, strict=True):
        try:
            parse_where([matcher])
        except UsageError as error:
            return FilterProblem(match.start(), len(match[0]), str(error))
    try:
        parse_where(matchers)
    except UsageError as error:  # conditions that exclude each other
        return FilterProblem(0, len(text), str(error))
    return matchers


def quote_matcher(matcher: str) -> str:
    """Return a matcher as it stands in a filter."""
    name, equals, value = matcher.partition("=")
    return f'{name}{equals}"{value}"' if re.search(r"\s", value) else matcher


def exact_matcher(dimension: str, value: str) -> str:
    """Return the matcher of one value of a dimension; characters with a meaning in patterns are masked."""
    if DIMENSIONS[dimension].kind is not DimensionKind.NAME:
        return f"{dimension}={value}"
    masked = re.sub(r"[*?\[]", r"[\g<0>]", value).replace(_QUOTE, "?")
    return f"{dimension}={'?' + masked[1:] if masked.startswith('!') else masked}"
