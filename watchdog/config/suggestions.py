"""Messages for names that are not in a closed list: "did you mean …?"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MAX_CHARACTERS = 80
_MIN_SIMILARITY = 0.7  # difflib's ratio; below it: "silence" and "evidence", "rule" and "route"
_MIN_PREFIX = 3  # characters: "crit" is near "critical"
_MAX_PRINTED_INTEGER = 10**18


def unknown_name(kind: str, word: str, known: Iterable[str]) -> str:
    """Return the message for an unknown `word`, with the closest name of `known`, or all of them if none is near."""
    words = {name.casefold(): name for name in sorted(known) if name}
    near = _nearest(word.casefold(), words)
    if near is not None:
        return f"unknown {kind} {quote_value(word)}: did you mean {quote_value(words[near])}?"
    if not words:
        return f"unknown {kind} {quote_value(word)}: there are none"
    return f"unknown {kind} {quote_value(word)}: known are {', '.join(words.values())}"


def is_near(word: str, known: Iterable[str]) -> bool:
    """Return whether `word` is so close to a name of `known` that it is likely to be a misspelled one."""
    return _nearest(word.casefold(), [name.casefold() for name in known]) is not None


def _nearest(word: str, known: Iterable[str]) -> str | None:
    close = difflib.get_close_matches(word, known, n=1, cutoff=_MIN_SIMILARITY)
    if close:
        return close[0]
    begun = [name for name in known if min(len(name), len(word)) >= _MIN_PREFIX and _has_common_start(name, word)]
    return max(begun, key=len, default=None)


def _has_common_start(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def quote_value(value: object) -> str:
    """Return `value` in TOML notation, on one line, with control characters escaped, cut at 80 characters."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            text = value if len(value) <= _MAX_CHARACTERS else value[: _MAX_CHARACTERS - 1] + "…"
            escaped = text.replace("\\", "\\\\").replace('"', '\\"')
            return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'
        case int() if abs(value) > _MAX_PRINTED_INTEGER:  # Python refuses to print integers of over 4300 digits
            return "a very large number"
        case _:
            return str(value)[:_MAX_CHARACTERS]
