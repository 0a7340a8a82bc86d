"""Texts of PromQL: strings, durations, numbers, and matchers of labels for the patterns of rules.

Source: prometheus.io/docs, "Querying basics"; github.com/google/re2, "Syntax".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from watchdog import sanitize
from watchdog.config.durations import format_duration

_MILLISECOND_NS = 1_000_000
_TOKEN = re.compile(r"\*+|\?|\[!?\]?[^\]]*\]|[^*?\[]+|\[", re.DOTALL)  # as fnmatch reads a pattern
_RE2_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")


def quote(text: str) -> str:
    """Return `text` as a string literal, on one line and printable."""
    escaped = sanitize.for_log(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def duration(duration_ns: int) -> str:
    """Return a duration in whole milliseconds, at least one: "1m30s"."""
    return format_duration(max(1, math.ceil(duration_ns / _MILLISECOND_NS)) * _MILLISECOND_NS)


def number(value: float) -> str:
    """Return a finite number with all its digits."""
    return repr(float(value)).removesuffix(".0")


def name_matchers(label: str, any_of: Sequence[str], none_of: Sequence[str]) -> Iterator[str]:
    """Yield the matchers of a label for shell-style globs: one for those of which any matches, one for the excluded."""
    for patterns, equal, matching in ((any_of, "=", "=~"), (none_of, "!=", "!~")):
        if not patterns:
            continue
        if len(patterns) == 1 and not re.search(r"[*?\[]", patterns[0]):
            yield f"{label}{equal}{quote(sanitize.escape_unprintable(patterns[0]))}"
        else:
            yield f"{label}{matching}{quote('|'.join(map(glob_regex, patterns)))}"


def value_matcher(label: str, values: Sequence[str]) -> str:
    """Return the matcher of a label for any of `values`, which are words."""
    return f'{label}="{values[0]}"' if len(values) == 1 else f'{label}=~"{"|".join(values)}"'


def glob_regex(pattern: str) -> str:
    """Return the regular expression of RE2, anchored by Prometheus, for the values of labels that a glob matches.

    The values have the escaped form of `sanitize`, and so has the literal text of the expression.
    """
    return "".join(map(_token_regex, _TOKEN.findall(pattern)))


def _token_regex(token: str) -> str:
    if token.startswith("*"):
        return ".*"
    if token == "?":
        return "."
    if len(token) > 1 and token[0] == "[":
        return _class_regex(token[1:-1])
    return _RE2_SPECIAL.sub(lambda found: "\\" + found[0], sanitize.escape_unprintable(token))


def _class_regex(content: str) -> str:
    """Return the character class for the inside of a bracket of a glob, without ranges from high to low."""
    is_negated = content.startswith("!")
    ranges = [
        _character(found["low"]) + (f"-{_character(found['high'])}" if found["high"] else "")
        for found in re.finditer(r"(?P<low>.)(?:-(?P<high>.))?", content[is_negated:], re.DOTALL)
        if not found["high"] or found["low"] <= found["high"]
    ]
    if not ranges:
        return "." if is_negated else r"[^\x{0}-\x{10FFFF}]"
    return f"[{'^' if is_negated else ''}{''.join(ranges)}]"


def _character(character: str) -> str:
    return character if character.isalnum() and character.isprintable() else f"\\x{{{ord(character):X}}}"
