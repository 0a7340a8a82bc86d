"""Patterns of names that no value can match: longer than the kernel's field, or in a form that is never written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from watchdog.config.suggestions import quote_value
from watchdog.measure.catalogue import CONTAINER_DIGITS, Dimension

_TOKEN = re.compile(r"\*+|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)  # as fnmatch reads a pattern
# A container id longer than the kept digits: bare, as docker://ID, or as docker-ID.scope. crictl prints 13 digits.
_LONG_ID = re.compile(rf"(?<![0-9A-Za-z])[0-9a-f]{{{CONTAINER_DIGITS + 1},64}}(?![0-9A-Za-z])")


@dataclass(frozen=True, slots=True)
class _Token:
    """One part of a pattern. `min_bytes`: length of the shortest text that it matches, in UTF-8."""

    text: str
    min_bytes: int

    @property
    def is_literal(self) -> bool:
        return len(self.text) == 1 and self.text not in "*?"


def check_name_pattern(dimension: Dimension, pattern: str) -> None:
    """Check that a name of `dimension` can match `pattern`, with or without `!` before it.

    Raises:
        ValueError: no name can; the message has the reason and, where there is one, a pattern that matches.
    """
    _check_form(dimension.name, pattern)
    tokens = [_Token(text, _min_bytes(text)) for text in _TOKEN.findall(pattern)]
    if dimension.name == "container" and (match := _LONG_ID.search(pattern)):
        raise ValueError(
            f"never matches: a container id is its first {CONTAINER_DIGITS} digits;"
            f" use {quote_value(match[0][:CONTAINER_DIGITS])}"
        )
    needed = sum(token.min_bytes for token in tokens)
    if dimension.max_bytes is not None and needed > dimension.max_bytes:
        raise ValueError(_too_long(dimension.name, dimension.max_bytes, needed, tokens))
    if dimension.endings and tokens and not any(_can_end(tokens, ending) for ending in dimension.endings):
        raise ValueError(
            f"never matches: a {dimension.name} ends in {', '.join(dimension.endings)};"
            f" use {quote_value(_with_ending(pattern.strip(), dimension.endings))}"
        )


def _with_ending(name: str, endings: tuple[str, ...]) -> str:
    return name if name.endswith(endings) else name + endings[0]


def _check_form(name: str, pattern: str) -> None:
    last = pattern.rpartition("/")[2]
    if name == "exe" and "/" in pattern:
        remedy = f"; use {quote_value(last)}" if last else ""
        raise ValueError(f"never matches: exe is the name of the file without its folder{remedy}")
    if name == "unit" and (pattern.startswith("/") or ".slice/" in pattern):
        remedy = f"; use {quote_value(last)}" if last else ""
        raise ValueError(f"never matches: unit is the name of a unit, not the path of a control group{remedy}")
    if name == "user" and pattern == "0":
        raise ValueError('never matches: user 0 is "root" everywhere')


def _min_bytes(token: str) -> int:
    if token.startswith("*"):
        return 0
    return len(token.encode("utf-8", "surrogatepass")) if len(token) == 1 else 1


def _too_long(name: str, max_bytes: int, needed: int, tokens: list[_Token]) -> str:
    message = f"never matches: {name} holds the first {max_bytes} bytes of a name, this pattern needs {needed}"
    shortened = _shortened(tokens, max_bytes)
    return f"{message}; use {quote_value(shortened)}" if shortened else message


def _shortened(tokens: list[_Token], max_bytes: int) -> str:
    """Return a pattern for the part of the name that the field holds; "" if the pattern does not begin with text."""
    kept, room, exact = "", max_bytes, True
    for token in tokens:
        if token.min_bytes > room:
            break
        kept, room = kept + token.text, room - token.min_bytes
        exact &= token.is_literal
    if not tokens[0].is_literal:
        return ""
    return kept if (exact and not room) or kept.endswith("*") else f"{kept}*"


def _can_end(tokens: list[_Token], ending: str) -> bool:
    """Return whether a text that the tokens match can end in `ending`."""
    tail = ""
    for length, token in enumerate(reversed(tokens)):
        if token.text.startswith("*"):  # the text before the tail is free
            return fnmatchcase(ending[len(ending) - length :], tail)
        tail = token.text + tail
        if length + 1 == len(ending):
            return fnmatchcase(ending, tail)
    return False
