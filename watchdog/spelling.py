"""What to say of a word that is not in a closed list."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """Say that `word` is no `kind`, and which of `known` was probably meant, or all of them."""
    words = sorted(name for name in known if name)
    close = difflib.get_close_matches(word, words, n=1)
    if close:
        return f"unknown {kind} {quoted(word)}: did you mean {quoted(close[0])}?"
    if not words:
        return f"unknown {kind} {quoted(word)}: there are none"
    return f"unknown {kind} {quoted(word)}: known are {', '.join(words)}"


def quoted(value: object) -> str:
    """Return `value` as a TOML file would write it, on one line, harmless to a terminal and cut at 80 characters."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)[:80]
    text = value if len(value) <= 80 else value[:79] + "…"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in escaped) + '"'
