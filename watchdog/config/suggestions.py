"""What to say of a word that is not in a closed list."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MOST_LETTERS = 80
_MOST_DIGITS_VALUE = 10**18


def unknown_name(kind: str, word: str, known: Iterable[str]) -> str:
    """Say that `word` is no `kind`, and which of `known` was probably meant, or all of them."""
    words = {name.casefold(): name for name in sorted(known) if name}
    close = difflib.get_close_matches(word.casefold(), words, n=1)
    if close:
        return f"unknown {kind} {quote_value(word)}: did you mean {quote_value(words[close[0]])}?"
    if not words:
        return f"unknown {kind} {quote_value(word)}: there are none"
    return f"unknown {kind} {quote_value(word)}: known are {', '.join(words.values())}"


def quote_value(value: object) -> str:
    """Return `value` as a TOML file would write it, on one line, harmless to a terminal and cut at 80 characters."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            text = value if len(value) <= _MOST_LETTERS else value[: _MOST_LETTERS - 1] + "…"
            escaped = text.replace("\\", "\\\\").replace('"', '\\"')
            return '"' + "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in escaped) + '"'
        case int() if abs(value) > _MOST_DIGITS_VALUE:  # Python refuses to print integers of over 4300 digits
            return "a very large number"
        case _:
            return str(value)[:_MOST_LETTERS]
